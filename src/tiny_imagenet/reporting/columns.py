"""The columns of the results as people see them: heading, value and note, defined once.

The terminal, results.md, results.tex, results.html, MLflow and README choose columns by name. Define a new column here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tiny_imagenet.reporting.formats import count, limits, markdown_table, missing, percent, plain

Row = Mapping[Any, Any]
"""A row of the results table: column -> value."""


@dataclass(frozen=True)
class Column:
    """A column of a rendered table."""

    key: str
    """The column of the results table with the value. results.html sorts by it."""
    heading: str
    qualifier: str = ""
    """Shown below the heading, or after it in parentheses."""
    show: Callable[[Any], str] = percent
    note: Callable[[Row], str] | None = None
    """Shown below the value, or after it in parentheses; may be empty."""
    missing: str = "-"
    """Shown for a missing value."""
    numeric: bool = True
    width: int = 5
    """Least number of characters on a terminal."""

    @property
    def title(self) -> str:
        """Heading and qualifier in one line."""
        return f"{self.heading} ({self.qualifier})" if self.qualifier else self.heading

    def value(self, row: Row) -> str:
        """Return a row's value without its note; "-" if it is missing."""
        return self.show(row[self.key])

    def text(self, row: Row) -> str:
        """Return a row's value and note in one line."""
        if missing(row[self.key]):
            return self.missing
        note = self.note_of(row)
        return f"{self.value(row)} ({note})" if note else self.value(row)

    def note_of(self, row: Row) -> str:
        """Return a row's note."""
        return self.note(row) if self.note else ""


def _val_interval(row: Row) -> str:
    return limits(row["val_accuracy_low"], row["val_accuracy_high"])


def _spread(row: Row) -> str:
    return (
        "" if missing(row["val_accuracy_std"]) else f"± {percent(row['val_accuracy_std'])} ({count(row['num_seeds'])})"
    )


def _best_epoch(row: Row) -> str:
    return "" if missing(row["best_epoch"]) else count(row["best_epoch"])


def _minutes(seconds: Any) -> str:
    return plain(seconds) if missing(seconds) else f"{seconds / 60:.1f}"


_COLUMNS = {
    "model": Column("model", "model", show=plain, numeric=False),
    "architecture": Column("architecture", "architecture", show=plain, numeric=False),
    "weights": Column("weights", "weights", show=plain, numeric=False),
    "parameters": Column("parameters_200_classes", "parameters", "200 classes", show=count, width=11),
    "parameters_paper": Column("parameters_paper", "parameters", "paper", show=count),
    "train": Column("train_accuracy", "train"),
    "train_paper": Column("train_accuracy_paper", "train", "paper"),
    "train_log": Column("train_accuracy_authors_log", "train", "authors' log"),
    "val": Column("val_accuracy", "val", "95 % interval", note=_val_interval, missing="no results", width=18),
    "val_paper": Column("val_accuracy_paper", "val", "paper"),
    "val_log": Column("val_accuracy_authors_log", "val", "authors' log"),
    "val_protocol": Column("val_accuracy_paper_protocol", "val", "paper protocol", width=8),
    "verdict": Column("verdict", "verdict", show=plain, numeric=False),
    "val_top5": Column("val_top5_accuracy", "val", "top-5", width=6),
    "val_seeds": Column("val_accuracy_mean", "val, seeds", "mean ± std (n)", note=_spread),
    "epochs": Column("epochs", "epochs", show=count, width=6),
    "best_epoch": Column("best_epoch", "kept epoch", show=count),
    "epochs_kept": Column("epochs", "epochs", "kept", show=count, note=_best_epoch),
    "seconds": Column("seconds", "seconds", show=plain),
    "minutes": Column("seconds", "minutes", show=_minutes),
    "images_per_second": Column("images_per_second", "images/s", show=count, width=6),
    "run_id": Column("run_id", "MLflow run", show=plain, numeric=False),
    "seed": Column("seed", "seed", show=plain),
    "device": Column("device", "device", show=plain, numeric=False),
    "backend": Column("backend", "backend", show=plain, numeric=False),
    "determinism": Column("determinism", "the same bits twice", show=plain, numeric=False),
}
_PUBLISHED = {"parameters_paper", "train_paper", "train_log", "val_paper", "val_log", "verdict"}


def columns(*names: str, with_paper: bool = True) -> list[Column]:
    """Return columns by name; those with published numbers only if `with_paper`."""
    return [_COLUMNS[name] for name in names if with_paper or name not in _PUBLISHED]


def markdown_rows(shown: Sequence[Column], rows: Sequence[Row]) -> str:
    """Return a table in Markdown."""
    return markdown_table([column.title for column in shown], [[column.text(row) for column in shown] for row in rows])
