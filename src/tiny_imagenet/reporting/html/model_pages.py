"""Gather the section of one model from models/<model> and results/<model>."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from tiny_imagenet.common.schema import flatten
from tiny_imagenet.common.tables import ColumnType, read_csv
from tiny_imagenet.reporting.formats import count, limits, number, percent
from tiny_imagenet.reporting.html import provenance
from tiny_imagenet.reporting.html.charts import charts
from tiny_imagenet.reporting.html.formats import dashed, shown
from tiny_imagenet.reporting.html.pictures import picture
from tiny_imagenet.reporting.inputs import ReportInputs
from tiny_imagenet.reporting.table import NOT_CURRENT
from tiny_imagenet.reporting.wording import overrides
from tiny_imagenet.repository.paths import MODELS, RESULTS
from tiny_imagenet.repository.records import Metrics, read_history

MOST_CONFUSED = 20
_PICTURES = {
    "confusion": "Confusion matrix",
    "classes": "Best and worst classes",
    "gallery": "Right, wrong, and wrong with the most confidence",
    "calibration": "Calibration: confidence against accuracy",
}
_SHARES = {
    "val_accuracy": "validation",
    "val_accuracy_one_view": "validation, without mirror images",
    "val_accuracy_paper_protocol": "validation, paper protocol",
    "val_top5_accuracy": "validation, top-5",
    "val_balanced_accuracy": "validation, balanced",
    "train_accuracy_clean": "training images as they are",
    "train_accuracy": "training, as logged",
    "val_macro_f1": "validation, macro F1",
    "val_calibration_error": "expected calibration error",
}
_COUNTS = {"epochs": "epochs", "best_epoch": "epoch whose weights are kept", "num_images": "validation images",
           "num_train_images": "training images"}  # fmt: skip

_CONFUSION: dict[str, ColumnType] = {"actual": str, "predicted": str, "count": int}
_CLASSES: dict[str, ColumnType] = {
    "wnid": str, "name": str, "precision": float, "recall": float, "f1": float, "support": int
}  # fmt: skip


def model_page(model: str, inputs: ReportInputs, root: Path = Path()) -> dict[str, Any]:
    """Return the section of a model, by the names of the template model.html; unknown parts are empty.

    It has no results if the table has none: an existing folder belongs to an earlier training. It has no training of
    other params or images than the current ones.
    """
    params, table = inputs.params, inputs.table
    status = table.status.get(model, "")
    training = None if status == NOT_CURRENT else root / MODELS / model
    results = None if status else root / RESULTS / model
    run, metrics, architecture = table.runs.get(model), table.metrics.get(model), table.architectures.get(model)
    history = _table(training, "history.csv", read_history)
    confusion = _table(results, "confusion.csv", lambda path: read_csv(path, _CONFUSION))
    classes = _table(results, "per_class.csv", lambda path: read_csv(path, _CLASSES))
    best_first = classes if classes.empty else classes.sort_values("f1", ascending=False, kind="stable")
    pictures = {
        name: picture(results / "figures", name, f"{caption}, {model}") if results else None
        for name, caption in _PICTURES.items()
    }
    return {
        "name": model,
        "architecture": params.models[model].architecture,
        "status": status,
        "metrics": _metric_lines(metrics) if metrics else [],
        "recipe": {key: shown(value) for key, value in flatten(params.recipe(model).model_dump()).items()},
        "changed": overrides(params, model, table.without_batch_normalization),
        "built": architecture,
        "charts": {} if history.empty else charts(model, history, metrics.best_epoch if metrics else None),
        "history": history.to_dict("records"),
        "confused": _confused(confusion, classes),
        "per_class": best_first.to_dict("records"),
        "pictures": {name: shown for name, shown in pictures.items() if shown},
        "facts": provenance.facts(run, inputs.determinism.get(model)) if run else {},
        "hashes": provenance.hashes(run) if run else {},
    }


def _table(folder: Path | None, name: str, read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    """Return a table of a folder; an empty one if the file is missing."""
    return read(folder / name) if folder and (folder / name).is_file() else pd.DataFrame()


def _metric_lines(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Return the label of each metric, its value, its interval or unit."""
    values = metrics.as_dict()
    shares = [
        (label, f"{percent(values[key])} %", dashed(limits(values.get(f"{key}_low"), values.get(f"{key}_high"))))
        for key, label in _SHARES.items()
        if key in values
    ]
    loss = ("validation, cross-entropy", number(metrics.val_loss), "nats")
    return [*shares, loss, *((label, count(values[key]), "") for key, label in _COUNTS.items())]


def _confused(confusion: pd.DataFrame, classes: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the largest confusions: actual, predicted, count, and the share of the actual class if known."""
    if confusion.empty:
        return []
    # The first rows are each class with itself, in the order of per_class.csv.
    support = dict(zip(confusion["actual"], classes["support"], strict=False)) if not classes.empty else {}
    wrong = confusion[confusion["actual"] != confusion["predicted"]]
    largest = wrong[wrong["count"] > 0].sort_values("count", ascending=False, kind="stable").head(MOST_CONFUSED)
    return [
        row | {"share": row["count"] / support[row["actual"]] if support.get(row["actual"]) else None}
        for row in largest.to_dict("records")
    ]
