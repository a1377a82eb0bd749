"""The stages read the same values from params.yaml as DVC, which uses them to find what is out of date."""

import math

import pytest
from dvc.utils.serialize import parse_yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.schema import read_yaml, yaml_text

# What YAML 1.1 and 1.2, or two libraries, read differently: octal, sexagesimal, booleans, underscores, exponents.
SCALARS = [
    "010",
    "0777",
    "08",
    "0o10",
    "0x1F",
    "0b11",
    "1_000",
    "1__0",
    "0.1_0",
    "1:30",
    "1:30:00",
    "1:30.5",
    "1e5",
    "1e-3",
    "1E5",
    "1.e3",
    ".5",
    "-.5e3",
    "+1",
    "-0",
    "1.",
    ".inf",
    "-.inf",
    ".NaN",
    "yes",
    "no",
    "on",
    "off",
    "y",
    "n",
    "Yes",
    "NO",
    "True",
    "TRUE",
    "true",
    "False",
    "null",
    "Null",
    "NULL",
    "~",
    "2024-01-01",
    "2024-01-01T10:00:00",
    '"010"',
    "'1e5'",
    "!!str",
    "1",
]
CHARACTERS = st.text("0123456789+-_.:eExXobtTrRuUnNyYsfFaAlL~", min_size=1, max_size=8)


def both(tmp_path_factory, scalar: str) -> tuple[object, object]:
    text = f"value: {scalar}\n"
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(text)
    read = []
    for reader in (lambda: read_yaml(path), lambda: parse_yaml(text, "params.yaml")):
        try:
            read.append(reader()["value"])
        except Exception:  # which of them, is DVC's and our own affair
            read.append("refused")
    return read[0], read[1]


def is_same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("scalar", SCALARS)
def test_a_scalar_is_what_dvc_reads(scalar, tmp_path_factory):
    one, other = both(tmp_path_factory, scalar)
    assert is_same(one, other), (one, other)


@settings(max_examples=300, deadline=None)
@given(scalar=CHARACTERS)
def test_any_scalar_is_what_dvc_reads(scalar, tmp_path_factory):
    one, other = both(tmp_path_factory, scalar)
    assert is_same(one, other), (one, other)


def test_a_seed_with_leading_zeros_is_decimal(tmp_path):
    (tmp_path / "params.yaml").write_text("seed: 010\n")
    assert read_yaml(tmp_path / "params.yaml") == {"seed": 10}


@pytest.mark.parametrize(
    "text", ["a: 1\n---\nb: 2\n", "- 1\n", "a: *b\n", "a: [1\n", "\tb: 1\n", "a: !!python/name:os.system x\n"]
)
def test_text_without_a_mapping_is_one_message(text, tmp_path):
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=r"params\.yaml"):
        read_yaml(tmp_path / "params.yaml")


@settings(max_examples=100, deadline=None)
@given(value=CHARACTERS | st.floats(allow_nan=False) | st.integers() | st.booleans() | st.none())
def test_what_is_written_is_read_back_as_the_same(value, tmp_path_factory):
    path = tmp_path_factory.mktemp("params") / "params.yaml"
    path.write_text(yaml_text({"b": value, "a": [value]}, width=100))
    assert list(read_yaml(path)) == ["b", "a"]
    for read in (read_yaml(path)["b"], read_yaml(path)["a"][0]):
        assert is_same(read, value), (read, value)


@pytest.mark.parametrize("text", [scalar for scalar in SCALARS if scalar[0] not in "'\"!"])
def test_text_that_looks_like_a_number_stays_text_when_it_is_written(text, tmp_path):
    """Another library writes `1e5` without quotes."""
    (tmp_path / "params.yaml").write_text(yaml_text({"value": text}, width=100))
    assert read_yaml(tmp_path / "params.yaml") == {"value": text}
