"""The results table: a row per active model, with our metrics, the paper's and those of the authors' logs.

Reads the files of `train` and `evaluate`, once. A model that was removed from params.yaml is not in the table, even if
its files still exist.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import fingerprint, read_json
from tiny_imagenet.common.tables import ColumnType, read_csv
from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.paper import authors_logs, base_of, comparable, is_of_paper, paper_table
from tiny_imagenet.repository import dvc
from tiny_imagenet.repository.paths import CACHE, MODELS, OVERVIEW, RESULTS
from tiny_imagenet.repository.records import Architecture, DataReport, Metrics, RunRecord, read_history
from tiny_imagenet.repository.workspace import why_not_trained

COLUMNS = [
    "model", "architecture", "parameters", "parameters_200_classes", "parameters_paper",
    "train_accuracy_paper", "val_accuracy_paper", "train_accuracy_authors_log", "val_accuracy_authors_log",
    "train_accuracy", "val_accuracy", "val_accuracy_low", "val_accuracy_high", "val_accuracy_paper_protocol",
    "val_top5_accuracy", "epochs", "best_epoch", "seconds", "images_per_second", "device", "backend", "weights",
    "seed", "profile", "dataset", "run_id",
]  # fmt: skip
SPREAD = ["val_accuracy_mean", "val_accuracy_std", "num_seeds"]
"""Further columns if params.yaml has replicates."""
TYPES: dict[str, ColumnType] = dict.fromkeys(COLUMNS, float) | dict.fromkeys(
    ("model", "architecture", "device", "backend", "weights", "profile", "dataset", "run_id"), str
)
"""Column of results.csv -> its type. A number may be missing."""
PAPER, FROM_SCRATCH, PRETRAINED = "The paper's models", "From scratch", "Pretrained on ImageNet"
"""The groups of models, in the order of their tables in a report."""
NOT_CURRENT = "trained with other params or images than the current ones"
"""Why a trained model may have no results."""
_COUNTS = ["parameters", "parameters_200_classes", "parameters_paper", "epochs", "best_epoch", "seed", "num_seeds"]


@dataclass(frozen=True)
class ResultsTable:
    """A row per active model, and the records that the rows come from."""

    frame: pd.DataFrame
    """Columns COLUMNS, and SPREAD if params.yaml has replicates. Accuracies are fractions."""
    status: Mapping[str, str]
    """Model without results -> why."""
    missing_replicates: Mapping[str, str]
    """Replicate without results -> why."""
    group: Mapping[str, str]
    """Model -> PAPER, FROM_SCRATCH or PRETRAINED."""
    comparable: bool
    """Whether the images are the paper's. If so, the report shows the paper's numbers beside ours."""
    runs: Mapping[str, RunRecord]
    """run.json of each model and replicate that was trained with the current params and images."""
    metrics: Mapping[str, Metrics]
    """metrics.json of each model and replicate with results: models first."""
    architectures: Mapping[str, Architecture]
    """architecture.json, likewise."""

    @property
    def rows(self) -> list[dict[Any, Any]]:
        """The rows, always with SPREAD."""
        return self.frame.reindex(columns=[*COLUMNS, *SPREAD]).to_dict("records")

    @property
    def rows_of_several_seeds(self) -> list[dict[Any, Any]]:
        """The rows of models with results of two seeds or more."""
        return [row for row in self.rows if not pd.isna(row["num_seeds"]) and row["num_seeds"] > 1]

    @property
    def with_results(self) -> list[str]:
        """The models with results."""
        return [model for model in self.frame["model"] if model in self.metrics]

    @property
    def without_batch_normalization(self) -> list[str]:
        """The models without batch normalization, and those without results, for which it is unknown."""
        known = self.architectures
        return [name for name in self.frame["model"] if name not in known or not known[name].batch_normalization_layers]

    def groups(self) -> dict[str, list[dict[Any, Any]]]:
        """Return group -> rows, without empty groups."""
        rows = self.rows
        by_group = {
            group: [row for row in rows if self.group[row["model"]] == group]
            for group in (PAPER, FROM_SCRATCH, PRETRAINED)
        }
        return {group: members for group, members in by_group.items() if members}

    def value(self, model: str, column: str) -> Any:
        """Return a value of a model, or None if the model is not in the table."""
        return self.frame.set_index("model")[column].get(model)

    def unconcerned(self, model: str) -> set[str]:
        """Return the keys of a recipe that make no difference for a model.

        These are the momentum of batch normalization if it has none, and the path of weights that are Keras's own.
        """
        keys = {"batch_normalization_momentum"} if model in self.without_batch_normalization else set()
        return keys | ({"weights"} if self.value(model, "weights") == "imagenet" else set())


def data_report(params: Params, overview: Path = OVERVIEW) -> DataReport:
    """Return report.json of the packed images.

    Raise UserError if it is missing or broken, or belongs to another dataset than params.yaml has.
    """
    remedy = "`dvc repro cache`"
    report = DataReport.read(overview / "report.json", remedy=remedy)
    if report.profile != params.profile:
        raise UserError(
            f"{overview} belongs to the profile {report.profile}, params.yaml has the profile {params.profile}: run "
            f"{remedy}"
        )
    if report.dataset != params.dataset.fingerprint:
        raise UserError(
            f"{overview} belongs to an earlier `dataset` of the profile {params.profile} in params.yaml: run {remedy}"
        )
    return report


def results_table(params: Params, root: Path = Path()) -> ResultsTable:
    """Return the table of the active models, from `models/`, `results/` and dvc.lock below `root`.

    A model without results has a row with its name and the published metrics. Results are left out if they are of
    other params than the current ones, or of other images than those in dvc.lock. `*_authors_log` is the last epoch of
    the authors' log. The spread is over all seeds with results, the model's own included; the standard deviation is
    the sample's. Raise UserError if a file of a model is broken.
    """
    missing, runs, metrics, architectures = _read_records(params, root)
    paper, logs = paper_table(), authors_logs().groupby("model").last()
    rows: list[dict[str, Any]] = []
    for model in params.active:
        row: dict[str, Any] = {"model": model, "architecture": params.models[model].architecture}
        base = base_of(model)
        if base in paper.index:
            row |= {f"{key}_paper": paper.loc[base, key] for key in ("parameters", "train_accuracy", "val_accuracy")}
            row["train_accuracy_authors_log"] = logs.loc[base, "accuracy"]
            row["val_accuracy_authors_log"] = logs.loc[base, "val_accuracy"]
        if model in metrics:
            run = runs[model]
            known = run.as_dict() | metrics[model].as_dict() | architectures[model].as_dict()
            row |= {key: known[key] for key in COLUMNS if key in known}
            row |= {"weights": run.weights or "random", "seconds": round(sum(run.epoch_seconds), 1)}
            names = [model, *(job.name for job in params.replicates_of(model) if job.name in metrics)]
            accuracies = pd.Series([metrics[name].val_accuracy for name in names])
            row |= dict(zip(SPREAD, (accuracies.mean(), accuracies.std(), len(accuracies)), strict=True))
        rows.append(row)
    columns = COLUMNS + (SPREAD if any(job.is_replicate for job in params.jobs) else [])
    return ResultsTable(
        frame=pd.DataFrame(rows, columns=columns).astype({name: "Int64" for name in _COUNTS if name in columns}),
        status={name: reason for name, reason in missing.items() if name in params.active},
        missing_replicates={name: reason for name, reason in missing.items() if name not in params.active},
        group={model: group_of(model, pretrained=bool(params.recipe(model).weights)) for model in params.active},
        comparable=comparable(params),
        runs=runs,
        metrics=metrics,
        architectures=architectures,
    )


def group_of(model: str, *, pretrained: bool) -> str:
    """Return the group of a model."""
    if is_of_paper(model):
        return PAPER
    return PRETRAINED if pretrained else FROM_SCRATCH


def _read_records(
    params: Params, root: Path
) -> tuple[dict[str, str], dict[str, RunRecord], dict[str, Metrics], dict[str, Architecture]]:
    """Return, by model and replicate: why there are no results; then run.json, metrics.json and architecture.json."""
    images = dvc.locked_images(root)
    missing: dict[str, str] = {}
    runs: dict[str, RunRecord] = {}
    metrics: dict[str, Metrics] = {}
    architectures: dict[str, Architecture] = {}
    for job in params.jobs:
        name, record, results = job.name, root / MODELS / job.name / "run.json", root / RESULTS / job.name
        if not record.is_file():
            missing[name] = why_not_trained(name)
            continue
        run = RunRecord.read(record)
        trained_with = run.hashes.get("params")
        other_params = trained_with and (run.profile, trained_with) != (params.profile, job.fingerprint)
        if other_params or (images is not None and run.dependencies.get(CACHE.as_posix(), images) != images):
            missing[name] = NOT_CURRENT
            continue
        runs[name] = run
        if not all((results / file).is_file() for file in ("metrics.json", "architecture.json")):
            missing[name] = "trained, but not evaluated"
            continue
        architecture = Architecture.read(results / "architecture.json")
        if run.model_md5 != architecture.model_md5:  # `evaluate` failed or was left out after a new training
            missing[name] = "trained again, and not evaluated since"
            continue
        metrics[name], architectures[name] = Metrics.read(results / "metrics.json"), architecture
    return missing, runs, metrics, architectures


def read_histories(models: Sequence[str], root: Path = Path()) -> dict[str, pd.DataFrame]:
    """Return model -> history.csv."""
    return {model: read_history(root / MODELS / model / "history.csv") for model in models}


def concatenated(folder: Path, models: Sequence[str], name: str) -> pd.DataFrame:
    """Return the CSV files `<folder>/<model>/<name>` of several models as one table, with `model` as the first column.

    Every value stays text as in the file: a number keeps its digits, and a class may be named "NA" or "007".
    """
    frames = [read_csv(folder / model / name, {}).assign(model=model) for model in models]
    if not frames:
        return pd.DataFrame(columns=["model"])
    whole = pd.concat(frames, ignore_index=True)
    return whole[["model", *(column for column in whole if column != "model")]]


def determinism(params: Params, runs: Mapping[str, RunRecord], path: Path) -> dict[str, str]:
    """Return model -> result of training it twice, if params, data, code and versions were those of the model's run.

    `tiny-imagenet verify --determinism` writes the file at `path`, which may be missing.
    """
    outcomes = read_json(path) if path.is_file() else {}
    shown = {}
    for model in params.active:
        if model not in runs or model not in outcomes:
            continue
        run, outcome = runs[model], outcomes[model]
        expected = (params.job(model).fingerprint, fingerprint(run.dependencies), run.versions)
        if tuple(outcome.get(key) for key in ("params", "dependencies", "versions")) == expected:
            answer = "yes" if outcome["same"] else "NO"
            shown[model] = (
                f"{answer}, {outcome['epochs']} epochs of {outcome['batches']} batches on {outcome['device']}"
            )
    return shown
