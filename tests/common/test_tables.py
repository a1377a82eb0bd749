"""CSV files come back as they were written: text as text, numbers to the last digit, and nothing silently shifted."""

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.tables import parse_csv, read_csv

NO_NUMBERS = [
    "007", "1.10", "1e5", "1_000", "0x1F", "inf", "-inf", "nan", "NaN", "NA", "N/A", "<NA>", "null", "NULL", "None", "",
    "True", "false", "yes", "2024-01-02", "12:30", "1,5", " padded ", "#", "'", '"', '""', "a\tb", "a\nb", "a\r\nb",
    "\ufeffmark", "ñ", "n\u0303", "5 %", "=1+1", "-", "+1", "1" * 40,
]  # fmt: skip
"""Texts that a reader which infers types would change."""

# Python's writer does not quote a single carriage return. No name has one, because it ends a line of a text file.
texts = st.sampled_from(NO_NUMBERS) | st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)


class TestText:
    def test_is_not_taken_for_a_number_a_date_or_nothing(self):
        frame = pd.DataFrame({"name": NO_NUMBERS, "count": range(len(NO_NUMBERS))})
        read = parse_csv(frame.to_csv(index=False), {"name": str, "count": int})
        assert read["name"].tolist() == NO_NUMBERS
        assert read["count"].tolist() == list(range(len(NO_NUMBERS)))

    @pytest.mark.parametrize("text", NO_NUMBERS)
    def test_in_the_only_column_does_not_change_either(self, text):
        read = parse_csv(pd.DataFrame({"name": [text, text]}).to_csv(index=False), {})
        assert read["name"].tolist() == [text, text]

    @given(st.lists(st.tuples(texts, texts, texts), max_size=5))
    def test_of_any_kind_survives_a_round_trip(self, rows):
        frame = pd.DataFrame(rows, columns=["wnid", "name", "other"])
        read = parse_csv(frame.to_csv(index=False), {"wnid": str})
        assert list(map(tuple, read.to_numpy().tolist())) == rows

    def test_survives_a_file(self, tmp_path):
        (tmp_path / "a.csv").write_bytes(pd.DataFrame({"name": NO_NUMBERS}).to_csv(index=False).encode())
        assert read_csv(tmp_path / "a.csv", {"name": str})["name"].tolist() == NO_NUMBERS

    def test_with_a_byte_order_mark_has_the_same_columns(self, tmp_path):
        (tmp_path / "a.csv").write_bytes("\ufeffname\n007\n".encode())
        assert read_csv(tmp_path / "a.csv", {"name": str})["name"].tolist() == ["007"]


class TestNumbers:
    @given(st.lists(st.tuples(st.floats(allow_nan=False), st.integers(-(2**63), 2**63 - 1)), max_size=5))
    def test_survive_a_round_trip_to_the_last_bit(self, rows):
        frame = pd.DataFrame(rows, columns=["share", "count"]).astype({"share": float, "count": int})
        read = parse_csv(frame.to_csv(index=False), {"count": int}, float)
        assert read.dtypes.to_dict() == {"share": float, "count": int}
        assert read["share"].tolist() == [row[0] for row in rows]
        assert read["count"].tolist() == [row[1] for row in rows]

    def test_that_are_missing_are_nan_among_floats(self):
        assert math.isnan(parse_csv("a,b\n,x\n", {"a": float})["a"][0])

    @pytest.mark.parametrize(
        ("cell", "kind"), [("x", float), ("", int), ("1.0", int), ("1e5", int), ("NA", float), ("9" * 30, int)]
    )
    def test_that_are_not_numbers_are_refused_with_their_column(self, cell, kind):
        with pytest.raises(ValueError, match=r"^column a: "):
            parse_csv(f"a,b\n{cell},x\n", {"a": kind})


class TestDamage:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "it is empty"),
            ("\n\n", "it is empty"),
            ("a,b\n1,2\n", "it lacks c"),
            ("a,c\n1\n", "row 1 has 1 cells, expected 2"),
            ("a,c\n1,2\n1,2,3\n", "row 2 has 3 cells, expected 2"),
            ("a,c\n1,2,3\n", "row 1 has 3 cells, expected 2"),  # not an index and two cells
            ("c,c\n1,2\n", "it has a duplicate column: c, c"),
            ('a,c\n"1,2\n', "unexpected end of data"),
            ('a,c\n"1"x,2\n', "line 2: "),
        ],
    )
    def test_is_refused_with_the_reason(self, text, reason):
        with pytest.raises(ValueError, match=reason):
            parse_csv(text, {"c": str})

    @pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"label\n1\n"])
    def test_in_a_file_names_the_command_that_restores_it(self, tmp_path, content):
        path = tmp_path / "classes.csv"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(UserError, match=r"classes.csv cannot be read \(.*\): `rm -f .*` and `dvc checkout"):
            read_csv(path, {"wnid": str})
        with pytest.raises(UserError, match=r": run `dvc repro`$"):
            read_csv(path, {"wnid": str}, remedy="run `dvc repro`")
