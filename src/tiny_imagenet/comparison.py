"""The results table: a row per active model, our figures beside the paper's and the authors' own logs.

Reads what `train` and `evaluate` wrote, by the names in params.yaml and never by what lies on disk, so that a model
that was removed leaves the table.
"""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from textwrap import shorten
from typing import Any

import pandas as pd

from tiny_imagenet.files import fingerprint, read_json
from tiny_imagenet.params import Params
from tiny_imagenet.report import FROM_SCRATCH, PAPER, PRETRAINED

COLUMNS = [
    "model", "architecture", "parameters", "parameters_200_classes", "parameters_paper",
    "train_accuracy_paper", "val_accuracy_paper", "train_accuracy_authors_log", "val_accuracy_authors_log",
    "train_accuracy", "val_accuracy", "val_accuracy_low", "val_accuracy_high", "val_accuracy_paper_protocol",
    "val_top5_accuracy", "epochs", "best_epoch", "seconds", "images_per_second", "device", "backend", "weights",
    "seed", "profile", "dataset", "run_id",
]  # fmt: skip
SPREAD = ["val_accuracy_mean", "val_accuracy_std", "num_seeds"]
"""Three more columns where params.yaml asks for replicates."""
PUBLISHED = "_as_published"
"""The end of the name of a block that does what the authors' run did; the paper's figures stand in its row, too."""
_RUN = ("images_per_second", "device", "backend", "seed", "profile", "run_id", "dataset", "weights", "epoch_seconds")
_COUNTS = ["parameters", "parameters_200_classes", "parameters_paper", "epochs", "best_epoch", "seed", "num_seeds"]
_CHECKPOINTS = Path("checkpoints")


def _reference(name: str) -> pd.DataFrame:
    with resources.files("tiny_imagenet").joinpath("reference", name).open(encoding="utf-8") as stream:
        return pd.read_csv(stream)


def paper_table() -> pd.DataFrame:
    """Return the paper's two tables (figures 9 and 10), by model."""
    return _reference("paper.csv").set_index("model")


def authors_logs() -> pd.DataFrame:
    """Return the authors' published training logs: a row per model and epoch."""
    return _reference("authors_logs.csv")


def results_table(params: Params, models: Path, results: Path) -> pd.DataFrame:
    """Return the table, columns COLUMNS, a row per active model; with replicates, columns SPREAD, too.

    Accuracies are fractions. `*_authors_log` are of the last epoch that the authors logged. A model without results
    has a row with its name and the paper's figures alone, and `table.attrs["status"]` maps it to the reason.
    `table.attrs["group"]` maps each model to the table of the report that it belongs to. The spread is over the seeds
    that have results, the model's own among them; the standard deviation is the sample's.
    """
    paper, logs = paper_table(), authors_logs().groupby("model").last()
    rows: list[dict[str, Any]] = []
    status: dict[str, str] = {}
    for model in params.active:
        row: dict[str, Any] = {"model": model, "architecture": params.models[model].architecture}
        base = model.removesuffix(PUBLISHED)
        if base in paper.index:
            published = paper.loc[base]
            row["parameters_paper"] = published["parameters"]
            row["train_accuracy_paper"] = published["train_accuracy"]
            row["val_accuracy_paper"] = published["val_accuracy"]
        if base in logs.index:
            row["train_accuracy_authors_log"] = logs.loc[base, "accuracy"]
            row["val_accuracy_authors_log"] = logs.loc[base, "val_accuracy"]
        run, metrics, architecture = (
            _read_json(models / model / "run.json", _RUN),
            _read_json(results / model / "metrics.json"),
            _read_json(results / model / "architecture.json"),
        )
        if run and metrics and architecture and _is_of_another_model(run, architecture):
            status[model] = "trained anew, and not evaluated since"
        elif run and metrics and architecture:
            row |= {key: metrics[key] for key in COLUMNS if key in metrics}
            row |= {key: architecture[key] for key in ("parameters", "parameters_200_classes")}
            row |= {key: run[key] for key in _RUN if key in COLUMNS}
            row["weights"] = run["weights"] or "random"
            row["seconds"] = round(sum(run["epoch_seconds"]), 1)
            row |= _spread(params, model, metrics, results)
        else:
            status[model] = "trained, but not evaluated" if run else _why_not_trained(model)
        rows.append(row)
    columns = COLUMNS + (SPREAD if params.replicated else [])
    table = pd.DataFrame(rows, columns=columns).astype({name: "Int64" for name in _COUNTS if name in columns})
    table.attrs["status"] = status
    table.attrs["group"] = {model: _group(params, model) for model in params.active}
    return table


def _is_of_another_model(run: Mapping[str, Any], architecture: Mapping[str, Any]) -> bool:
    """Return whether another model was evaluated than the one that is there: `evaluate` has failed, or was left out."""
    trained, evaluated = run.get("model_md5"), architecture.get("model_md5")
    return bool(trained and evaluated and trained != evaluated)


def _group(params: Params, model: str) -> str:
    """Return which table of the report a model belongs to: the paper's own, or one by where its weights begin."""
    if model.removesuffix(PUBLISHED) in paper_table().index:
        return PAPER
    return PRETRAINED if params.recipe(model).weights else FROM_SCRATCH


def _spread(params: Params, model: str, metrics: Mapping[str, Any], results: Path) -> dict[str, Any]:
    """Return SPREAD of a model, from its own result and those of its replicates that there are."""
    replicates = [name for name, (of, _) in params.replicated.items() if of == model]
    found = [_read_json(results / name / "metrics.json", ("val_accuracy",)) for name in replicates]
    accuracies = pd.Series([metrics["val_accuracy"], *(one["val_accuracy"] for one in found if one)])
    return dict(zip(SPREAD, (accuracies.mean(), accuracies.std(), len(accuracies)), strict=True))


def _why_not_trained(model: str) -> str:
    """Return why a model has not been trained, in a line: the message of a training that failed, if one did."""
    failure = _CHECKPOINTS / f"{model}.failed"
    if failure.is_file():
        message = shorten(failure.read_text(encoding="utf-8", errors="replace"), 300, placeholder=" ...")
        return f"failed: {message}" if message else "failed"
    return "training not finished" if (_CHECKPOINTS / model).is_dir() else "not trained yet"


def read_histories(params: Params, models: Path) -> dict[str, pd.DataFrame]:
    """Return model -> history.csv, for the active models that have one."""
    paths = {model: models / model / "history.csv" for model in params.active}
    return {model: pd.read_csv(path) for model, path in paths.items() if path.is_file()}


def without_batch_normalization(params: Params, results: Path) -> list[str]:
    """Return the active models that have no batch normalization, as `evaluate` found."""
    architectures = {model: _read_json(results / model / "architecture.json") for model in params.active}
    return [model for model, found in architectures.items() if found and not found["batch_normalization_layers"]]


def determinism(params: Params, models: Path, path: Path) -> dict[str, str]:
    """Return what double runs showed, by model: those with the params, data, code and versions of the run shown."""
    outcomes = _read_json(path) or {}
    shown = {}
    for model in params.active:
        outcome, run = outcomes.get(model), _read_json(models / model / "run.json")
        if not outcome or not run:
            continue
        found = tuple(outcome.get(key) for key in ("params", "dependencies", "versions"))
        if found == (params.fingerprint(model), fingerprint(run["dependencies"]), run["versions"]):
            answer = "yes" if outcome["same"] else "NO"
            how = f"{outcome['epochs']} epochs of {outcome['batches']} batches on {outcome['device']}"
            shown[model] = f"{answer}, {how}"
    return shown


def _read_json(path: Path, needed: Sequence[str] = ()) -> dict[str, Any] | None:
    return read_json(path, needed) if path.is_file() else None
