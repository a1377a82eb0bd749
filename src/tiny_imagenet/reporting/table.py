"""The results table: a row per active model, our metrics beside the paper's and the authors' own logs.

Reads what `train` and `evaluate` wrote, by the names in params.yaml. A model that was removed from params.yaml leaves
the table although its files still exist.
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
"""Three more columns if params.yaml has replicates."""
TYPES: dict[str, ColumnType] = dict.fromkeys(COLUMNS, float) | dict.fromkeys(
    ("model", "architecture", "device", "backend", "weights", "profile", "dataset", "run_id"), str
)
"""Column of results.csv -> type to read it with. A number may be missing."""
PAPER, FROM_SCRATCH, PRETRAINED = "The paper's models", "From scratch", "Pretrained on ImageNet"
"""The groups that a report has a table for, in their order."""
NOT_CURRENT = "trained with other params or on other images than those of now"
"""Why a model that was trained has no results."""
_COUNTS = ["parameters", "parameters_200_classes", "parameters_paper", "epochs", "best_epoch", "seed", "num_seeds"]


@dataclass(frozen=True)
class ResultsTable:
    """A row per active model, and what is known of those without results."""

    frame: pd.DataFrame
    """Columns COLUMNS, and SPREAD if params.yaml has replicates. Accuracies are fractions."""
    status: Mapping[str, str]
    """Model without results -> why."""
    group: Mapping[str, str]
    """Model -> PAPER, FROM_SCRATCH or PRETRAINED."""
    missing_replicates: Mapping[str, str]
    """Replicate without results -> why."""
    comparable: bool
    """Whether the results are of the paper's images, so that its numbers are shown beside them."""
    without_batch_normalization: Sequence[str]
    """Models that have none, and those without results, of which it is not known."""

    @property
    def rows(self) -> list[dict[Any, Any]]:
        """The rows; a row has SPREAD also if there are no replicates."""
        return self.frame.reindex(columns=[*COLUMNS, *SPREAD]).to_dict("records")

    @property
    def rows_of_several_seeds(self) -> list[dict[Any, Any]]:
        """The rows of models that have results of more than one seed; a model without results has none."""
        return [row for row in self.rows if not pd.isna(row["num_seeds"]) and row["num_seeds"] > 1]

    @property
    def with_results(self) -> list[str]:
        """The models that have results."""
        return list(self.frame.dropna(subset="val_accuracy")["model"])

    def groups(self) -> dict[str, list[dict[Any, Any]]]:
        """Return group -> its rows, for the groups that have any."""
        rows = self.rows
        by_group = {
            group: [row for row in rows if self.group[row["model"]] == group]
            for group in (PAPER, FROM_SCRATCH, PRETRAINED)
        }
        return {group: members for group, members in by_group.items() if members}

    def value(self, model: str, column: str) -> Any:
        """Return a value of a model; None if the table does not have the model."""
        return self.frame.set_index("model")[column].get(model)

    def unconcerned(self, model: str) -> set[str]:
        """Return the keys of a recipe that make no difference for a model, by what is known of its training.

        They are a momentum of batch normalization if it has none, and the path of Keras's own weights file.
        """
        keys = {"batch_normalization_momentum"} if model in self.without_batch_normalization else set()
        return keys | ({"weights"} if self.value(model, "weights") == "imagenet" else set())


def data_report(params: Params, overview: Path = OVERVIEW) -> DataReport:
    """Return the report of the packed images.

    Raises:
        UserError: the report is missing or broken, or the images are not those that params.yaml asks for.
    """
    remedy = "`dvc repro cache`"
    report = DataReport.read(overview / "report.json", remedy=remedy)
    if report.profile != params.profile:
        raise UserError(
            f"{overview} has the images of the profile {report.profile}, and params.yaml asks for {params.profile}: "
            f"{remedy}"
        )
    if report.dataset != params.dataset.fingerprint:
        raise UserError(
            f"{overview} is of another `dataset` than params.yaml has now in the profile {params.profile}: {remedy}"
        )
    return report


def results_table(params: Params, root: Path = Path()) -> ResultsTable:
    """Return the table of the active models.

    A model without results has a row with its name and the published metrics. Results do not count if they are of
    other params than those of now, or of other images than those that dvc.lock has. `*_authors_log` are of the last
    epoch that the authors logged. The spread is over the seeds that have results, the model's own among them; the
    standard deviation is the sample's.

    Args:
        params: params.yaml.
        root: the folder with `models/`, `results/` and dvc.lock.

    Raises:
        UserError: a file of a model is broken.
    """
    paper, logs = paper_table(), authors_logs().groupby("model").last()
    images = dvc.locked_images(root)
    status = {job.name: _why_no_results(params, job.name, root, images) for job in params.jobs}
    rows: list[dict[str, Any]] = []
    plain: list[str] = []
    for model in params.active:
        row: dict[str, Any] = {"model": model, "architecture": params.models[model].architecture}
        base = base_of(model)
        if base in paper.index:
            row |= {f"{key}_paper": paper.loc[base, key] for key in ("parameters", "train_accuracy", "val_accuracy")}
        if base in logs.index:
            row["train_accuracy_authors_log"] = logs.loc[base, "accuracy"]
            row["val_accuracy_authors_log"] = logs.loc[base, "val_accuracy"]
        if not status[model]:
            run, architecture = RunRecord.read(root / MODELS / model / "run.json"), _architecture(root, model)
            known = run.as_dict() | _metrics(root, model).as_dict() | architecture.as_dict()
            row |= {key: known[key] for key in COLUMNS if key in known}
            row["weights"] = run.weights or "random"
            row["seconds"] = round(sum(run.epoch_seconds), 1)
            row |= _spread(params, model, status, root)
            if architecture.batch_normalization_layers == 0:
                plain.append(model)
        rows.append(row)
    replicates = [job.name for job in params.jobs if job.is_replicate]
    columns = COLUMNS + (SPREAD if replicates else [])
    without = {name: reason for name, reason in status.items() if reason}
    return ResultsTable(
        frame=pd.DataFrame(rows, columns=columns).astype({name: "Int64" for name in _COUNTS if name in columns}),
        status={name: reason for name, reason in without.items() if name not in replicates},
        group={model: group_of(model, pretrained=bool(params.recipe(model).weights)) for model in params.active},
        missing_replicates={name: reason for name, reason in without.items() if name in replicates},
        comparable=comparable(params),
        without_batch_normalization=[*plain, *(model for model in params.active if model in without)],
    )


def group_of(model: str, *, pretrained: bool) -> str:
    """Return the group of a model: the paper's own, or one by what its weights start from."""
    if is_of_paper(model):
        return PAPER
    return PRETRAINED if pretrained else FROM_SCRATCH


def _metrics(root: Path, name: str) -> Metrics:
    return Metrics.read(root / RESULTS / name / "metrics.json")


def _architecture(root: Path, name: str) -> Architecture:
    return Architecture.read(root / RESULTS / name / "architecture.json")


def _why_no_results(params: Params, name: str, root: Path, images: str | None) -> str:
    """Return why a model or a replicate has no results, in one line; empty if it has."""
    path = root / MODELS / name / "run.json"
    if not path.is_file():
        return why_not_trained(name)
    run = RunRecord.read(path)
    trained_with = run.hashes.get("params")
    if trained_with and (run.profile, trained_with) != (params.profile, params.job(name).fingerprint):
        return NOT_CURRENT
    if images is not None and run.dependencies.get(CACHE.as_posix(), images) != images:
        return NOT_CURRENT
    if not all((root / RESULTS / name / file).is_file() for file in ("metrics.json", "architecture.json")):
        return "trained, but not evaluated"
    _metrics(root, name)  # raises if it is broken
    # They differ if `evaluate` failed or was left out since.
    return "" if run.model_md5 == _architecture(root, name).model_md5 else "trained again, and not evaluated since"


def _spread(params: Params, model: str, status: Mapping[str, str], root: Path) -> dict[str, Any]:
    """Return SPREAD of a model, from its own result and those of its replicates."""
    names = [model, *(job.name for job in params.replicates_of(model) if not status[job.name])]
    accuracies = pd.Series([_metrics(root, name).val_accuracy for name in names])
    return dict(zip(SPREAD, (accuracies.mean(), accuracies.std(), len(accuracies)), strict=True))


def read_histories(models: Sequence[str], root: Path = Path()) -> dict[str, pd.DataFrame]:
    """Return model -> history.csv."""
    return {model: read_history(root / MODELS / model / "history.csv") for model in models}


def concatenated(paths: Mapping[str, Path]) -> pd.DataFrame:
    """Return the tables of several models as one, with a first column `model`.

    Every value stays the text that the file has: a number keeps its digits, and a class may be named "NA" or "007".

    Args:
        paths: model -> a CSV file.
    """
    frames = [read_csv(path, {}).assign(model=model) for model, path in paths.items()]
    if not frames:
        return pd.DataFrame(columns=["model"])
    whole = pd.concat(frames, ignore_index=True)
    return whole[["model", *(column for column in whole if column != "model")]]


def determinism(params: Params, models: Path, path: Path) -> dict[str, str]:
    """Return model -> what a double run showed, if it was of the params, data, code and versions of the model's run.

    Args:
        params: params.yaml.
        models: the folder with `<model>/run.json`.
        path: of the outcomes that `tiny-imagenet verify --determinism` wrote; it may be missing.
    """
    outcomes = read_json(path) if path.is_file() else {}
    shown = {}
    for model in params.active:
        outcome, record = outcomes.get(model), models / model / "run.json"
        if not outcome or not record.is_file():
            continue
        run = RunRecord.read(record)
        wanted = (params.job(model).fingerprint, fingerprint(run.dependencies), run.versions)
        if tuple(outcome.get(key) for key in ("params", "dependencies", "versions")) == wanted:
            answer = "yes" if outcome["same"] else "NO"
            shown[model] = (
                f"{answer}, {outcome['epochs']} epochs of {outcome['batches']} batches on {outcome['device']}"
            )
    return shown
