"""What the page says of one model: gathered from `models/<model>` and `results/<model>`, whatever of it there is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tiny_imagenet.common.files import read_csv, read_json
from tiny_imagenet.common.schema import flatten
from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.html import provenance
from tiny_imagenet.reporting.html.curves import Chart, charts
from tiny_imagenet.reporting.html.formats import count, interval, number, percent, shown
from tiny_imagenet.reporting.html.pictures import Picture, picture
from tiny_imagenet.reporting.table import NOT_OF_NOW

MOST_CONFUSED = 20
_PICTURES = {
    "confusion": "Confusion matrix",
    "classes": "Best and worst classes",
    "gallery": "Right, wrong, and wrong with the most confidence",
    "calibration": "Calibration: confidence against accuracy",
}
_ACCURACIES = {
    "val_accuracy": "validation",
    "val_accuracy_one_view": "validation, without mirror images",
    "val_accuracy_paper_protocol": "validation, paper protocol",
    "val_top5_accuracy": "validation, top-5",
    "val_balanced_accuracy": "validation, balanced",
    "train_accuracy_clean": "training images as they are",
    "train_accuracy": "training, as logged",
}
_PERCENT = {"val_macro_f1": "validation, macro F1", "val_calibration_error": "expected calibration error"}
_NUMBERS = {"val_loss": "validation, cross-entropy"}
_COUNTS = {"epochs": "epochs", "best_epoch": "epoch whose weights are kept", "num_images": "validation images",
           "num_train_images": "training images"}  # fmt: skip

_HISTORY = ("epoch", "accuracy", "val_accuracy", "loss", "val_loss")
_CONFUSION = ("actual", "predicted", "count")
_CLASSES = ("wnid", "name", "precision", "recall", "f1", "support")


@dataclass(frozen=True)
class Figure:
    """One measured value in words: what it is, the value, its interval or unit."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class ModelPage:
    """Everything the page says of one model; what there is not is empty."""

    name: str
    architecture: str
    status: str
    figures: tuple[Figure, ...]
    recipe: dict[str, str]
    changed: dict[str, str]
    layers: list[dict[Any, Any]]
    parameters: int | None
    parameters_200_classes: int | None
    charts: list[Chart]
    history: list[dict[Any, Any]]
    confused: list[dict[Any, Any]]
    per_class: list[dict[Any, Any]]
    pictures: dict[str, Picture]
    facts: dict[str, str]
    hashes: dict[str, dict[str, str]]


def model_page(
    model: str,
    *,
    params: Params,
    status: str,
    models: Path,
    results: Path,
    determinism: Mapping[str, str],
    changed: dict[str, str],
) -> ModelPage:
    """Gather what there is of a model; `status` says why it has no results, or is empty.

    A folder of results that is there all the same is of an earlier training, and is left out; so is a training that is
    not of the params and images of now.
    """
    training = models / ("-" if status == NOT_OF_NOW else model)
    run, history = _json(training / "run.json"), _csv(training / "history.csv", _HISTORY)
    folder = results / (model if not status else "-")  # no model is named so
    metrics, architecture = _json(folder / "metrics.json"), _json(folder / "architecture.json")
    confusion = _csv_with_names(folder / "confusion.csv", _CONFUSION)
    classes = _csv_with_names(folder / "per_class.csv", _CLASSES)
    found = {name: picture(folder, name, f"{caption}, {model}") for name, caption in _PICTURES.items()}
    return ModelPage(
        name=model,
        architecture=params.models[model].architecture,
        status=status,
        figures=_figures(metrics),
        recipe={key: shown(value) for key, value in flatten(params.recipe(model).model_dump()).items()},
        changed=changed,
        layers=[{"shape": _shape(layer.get("output_shape")), **layer} for layer in architecture.get("layers", [])],
        parameters=architecture.get("parameters"),
        parameters_200_classes=architecture.get("parameters_200_classes"),
        charts=[] if history.empty else charts(history, metrics.get("best_epoch")),
        history=history.to_dict("records"),
        confused=_confused(confusion, classes),
        per_class=[] if classes.empty else classes.sort_values("f1", ascending=False, kind="stable").to_dict("records"),
        pictures={name: each for name, each in found.items() if each},
        facts=provenance.facts(run, determinism.get(model)) if run else {},
        hashes=provenance.hashes(run),
    )


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _csv(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    return read_csv(path, needed) if path.is_file() else pd.DataFrame()


def _csv_with_names(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame()
    names = dict.fromkeys(("wnid", "name", "actual", "predicted"), str)
    return read_csv(path, needed, dtype=names, keep_default_na=False)  # a class may be named "NA", or "007"


def _figures(metrics: Mapping[str, Any]) -> tuple[Figure, ...]:
    """Return the metrics that there are, accuracies with their intervals."""
    figures = [
        Figure(label, f"{percent(metrics[key])} %", interval(metrics.get(f"{key}_low"), metrics.get(f"{key}_high")))
        for key, label in _ACCURACIES.items() if key in metrics
    ]  # fmt: skip
    figures += [Figure(label, f"{percent(metrics[key])} %", "") for key, label in _PERCENT.items() if key in metrics]
    figures += [Figure(label, number(metrics[key]), "nats") for key, label in _NUMBERS.items() if key in metrics]
    figures += [Figure(label, count(metrics[key]), "") for key, label in _COUNTS.items() if key in metrics]
    return tuple(figures)


def _confused(confusion: pd.DataFrame, classes: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the largest confusions: actual, predicted, count, and the share of the actual class where it is known."""
    if confusion.empty:
        return []
    # The file begins with each class and itself, in the order of per_class.csv.
    support = dict(zip(confusion["actual"], classes["support"], strict=False)) if not classes.empty else {}
    wrong = confusion[confusion["actual"] != confusion["predicted"]]
    largest = wrong[wrong["count"] > 0].sort_values("count", ascending=False, kind="stable").head(MOST_CONFUSED)
    return [
        row | {"share": row["count"] / support[row["actual"]] if support.get(row["actual"]) else None}
        for row in largest.to_dict("records")
    ]


def _shape(shape: Any) -> str:
    return "" if shape is None else f"({', '.join(['None', *map(str, shape)])})"
