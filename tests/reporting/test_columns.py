"""The one table of columns behind all renderings of the results."""

import pandas as pd

from tiny_imagenet.reporting.columns import _COLUMNS, columns, markdown_rows
from tiny_imagenet.reporting.table import COLUMNS, SPREAD

ROW = dict.fromkeys([*COLUMNS, *SPREAD]) | {
    "model": "model_1", "val_accuracy": 0.3861, "val_accuracy_low": 0.3766, "val_accuracy_high": 0.3957,
    "val_accuracy_mean": 0.38, "val_accuracy_std": 0.004, "num_seeds": 3, "epochs": 15, "best_epoch": 12,
    "seconds": 90.0,
}  # fmt: skip
EXTRA = {"determinism", "verdict"}  # which results.md and README add to each row


def test_each_column_shows_a_column_of_the_results_table_under_its_own_title():
    assert {column.key for column in _COLUMNS.values()} <= {*COLUMNS, *SPREAD, *EXTRA}
    titles = [column.title for column in _COLUMNS.values()]
    assert len(set(titles)) == len(titles)


def test_a_note_follows_its_value_or_is_separate():
    val, seeds, epochs = columns("val", "val_seeds", "epochs_kept")
    assert [column.text(ROW) for column in (val, seeds, epochs)] == [
        "38.61 (37.7-39.6)", "38.00 (± 0.40 (3))", "15 (12)"
    ]  # fmt: skip
    assert (val.value(ROW), val.note_of(ROW)) == ("38.61", "37.7-39.6")


def test_a_missing_value_is_a_dash_without_a_note_and_a_missing_result_says_so():
    for row in (dict.fromkeys(ROW), dict.fromkeys(ROW, float("nan")), dict.fromkeys(ROW, pd.NA)):
        for name, column in _COLUMNS.items():
            if column.key not in EXTRA:
                assert column.text(row) == ("no results" if name == "val" else "-")
                assert column.value(row) == "-"
                assert column.note_of(row) == ""


def test_markdown_has_the_titles_and_texts_of_the_chosen_columns():
    assert markdown_rows(columns("model", "val", "minutes"), [ROW]).splitlines() == [
        "| model | val (95 % interval) | minutes |",
        "| --- | --- | --- |",
        "| model_1 | 38.61 (37.7-39.6) | 1.5 |",
    ]
