"""The results table: a row per active model, our figures beside the paper's and the authors' own logs.

Reads what `train` and `evaluate` wrote, by the names in params.yaml and never by what lies on disk, so that a model
that was removed leaves the table.
"""

import json
from collections.abc import Mapping
from importlib import resources
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveInt, ValidationError

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import fingerprint, read_csv, read_json
from tiny_imagenet.config.params import Params
from tiny_imagenet.models.weights import IMAGENET
from tiny_imagenet.reporting.wording import FROM_SCRATCH, PAPER, PRETRAINED
from tiny_imagenet.repository.paths import CACHE
from tiny_imagenet.repository.workspace import why_not_trained

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
_HISTORY = ("epoch", "accuracy", "val_accuracy", "loss", "val_loss")
NOT_OF_NOW = "trained with other params or on other images than those of now"
"""Why a model that was trained has no results."""
_COUNTS = ["parameters", "parameters_200_classes", "parameters_paper", "epochs", "best_epoch", "seed", "num_seeds"]


_Share = Annotated[float, Field(ge=0, le=1)]


class _Images(BaseModel):
    """What is needed of the report of the images."""

    model_config = ConfigDict(strict=True)
    profile: str
    dataset: str
    classes: PositiveInt
    in_archive: dict[str, int]
    unlabelled: int
    used: dict[str, int]
    per_class: dict[str, dict[str, int]]
    duplicates: dict[str, Any]


class _Run(BaseModel):
    """What is needed of run.json."""

    model_config = ConfigDict(strict=True)
    run_id: str
    profile: str
    dataset: str
    seed: int
    weights: str | None
    device: str
    backend: str
    images_per_second: float  # NaN where no epoch was timed
    epoch_seconds: list[NonNegativeFloat]
    dependencies: dict[str, str]
    hashes: dict[str, str]
    versions: dict[str, str]


class _Metrics(BaseModel):
    """What is needed of metrics.json; whatever else it has are numbers, too."""

    model_config = ConfigDict(strict=True, extra="allow")
    __pydantic_extra__: dict[str, float]
    train_accuracy: _Share
    train_accuracy_low: _Share
    train_accuracy_high: _Share
    train_accuracy_clean: _Share
    val_accuracy: _Share
    val_accuracy_low: _Share
    val_accuracy_high: _Share
    val_accuracy_paper_protocol: _Share
    val_accuracy_paper_protocol_low: _Share
    val_accuracy_paper_protocol_high: _Share
    val_top5_accuracy: _Share
    epochs: PositiveInt
    best_epoch: PositiveInt


class _Architecture(BaseModel):
    """What is needed of architecture.json."""

    model_config = ConfigDict(strict=True)
    parameters: PositiveInt
    parameters_200_classes: PositiveInt
    layers: list[dict[str, Any]]


def _reference(name: str) -> str:
    return resources.files("tiny_imagenet.reporting").joinpath("reference", name).read_text(encoding="utf-8")


def paper_table() -> pd.DataFrame:
    """Return the paper's two tables (figures 9 and 10), by model."""
    return pd.read_csv(StringIO(_reference("paper.csv"))).set_index("model")


def authors_logs() -> pd.DataFrame:
    """Return the authors' published training logs: a row per model and epoch."""
    return pd.read_csv(StringIO(_reference("authors_logs.csv")))


def changes_of_recipe(params: Params, model: str, table: pd.DataFrame) -> list[str]:
    """Return the keys in which what runs for one of the paper's models differs from the paper's recipe.

    By its block, by what all models share, or by the profile. `table`, of `results_table`, says what is no difference
    for what the model has: a momentum of batch normalization without any, and the path of Keras's own weights file.
    """
    recipe = params.recipe(model).model_dump(mode="json")
    recipes: dict[str, dict[str, Any]] = json.loads(_reference("recipes.json"))
    published = recipes.get(model) or recipes[model.removesuffix(PUBLISHED)]
    unconcerned = {"paper_protocol_every_epoch", "keeps"}  # one figure more; where a value comes from
    if model in table.attrs["without_batch_normalization"]:
        unconcerned.add("batch_normalization_momentum")
    if table.set_index("model")["weights"].get(model) == "imagenet":
        unconcerned.add("weights")
    return [key for key in recipe if recipe[key] != published.get(key) and key not in unconcerned]


def images_report(params: Params, cache: Path) -> dict[str, Any]:
    """Return the report of the images in `cache`, which the stage of that name wrote.

    Raises:
        UserError: the report is missing or broken, or the images are others than params.yaml asks for.
    """
    report = _record(cache / "report.json", _Images, "`dvc repro cache`")
    if report["profile"] != params.profile:
        raise UserError(
            f"{cache} has the images of the profile {report['profile']}, and params.yaml asks for {params.profile}: "
            "`dvc repro cache`"
        )
    if report["dataset"] != params.dataset.fingerprint:
        raise UserError(
            f"{cache} is of another `dataset` than params.yaml has now in the profile {params.profile}: "
            "`dvc repro cache`"
        )
    return report


def results_table(params: Params, models: Path, results: Path, images: str | None = None) -> pd.DataFrame:
    """Return the table, columns COLUMNS, a row per active model; with replicates, columns SPREAD, too.

    Accuracies are fractions. `*_authors_log` are of the last epoch that the authors logged. A model without results
    has a row with its name and the paper's figures alone, and `table.attrs["status"]` maps it to the reason; results
    of other params than those of now are none, nor are those of other images than `images`, the hash of the cache in
    dvc.lock, if it is known. `table.attrs["group"]` maps each model to the table of the report that it belongs to. The spread is over
    the seeds that have results, the model's own among them; the standard deviation is the sample's.
    `table.attrs["missing_replicates"]` maps each of the others to the reason, and
    `table.attrs["without_batch_normalization"]` lists the models that have none, as `evaluate` found, and those
    of which nothing is known.

    Raises:
        UserError: a file of a model is broken.
    """
    paper, logs = paper_table(), authors_logs().groupby("model").last()
    rows: list[dict[str, Any]] = []
    status: dict[str, str] = {}
    plain: list[str] = []
    replicates = {
        job.name: _why_no_results(params, job.name, models, results, images) for job in params.jobs if job.is_replicate
    }
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
        status[model] = _why_no_results(params, model, models, results, images)
        if not status[model]:
            run = read_json(models / model / "run.json")
            metrics, architecture = _evaluated(model, results)
            row |= {key: metrics[key] for key in COLUMNS if key in metrics}
            row |= {key: architecture[key] for key in ("parameters", "parameters_200_classes")}
            row |= {key: run[key] for key in _Run.model_fields if key in COLUMNS}
            if architecture.get("batch_normalization_layers") == 0:
                plain.append(model)
            row["weights"] = _weights(run, params.models[model].architecture)
            row["seconds"] = round(sum(run["epoch_seconds"]), 1)
            row |= _spread(params, model, replicates, results)
        rows.append(row)
    columns = COLUMNS + (SPREAD if replicates else [])
    table = pd.DataFrame(rows, columns=columns).astype({name: "Int64" for name in _COUNTS if name in columns})
    table.attrs["status"] = {model: reason for model, reason in status.items() if reason}
    table.attrs["without_batch_normalization"] = [*plain, *table.attrs["status"]]
    table.attrs["missing_replicates"] = {name: reason for name, reason in replicates.items() if reason}
    recipes = {model: params.recipe(model) for model in params.active}
    table.attrs["group"] = {name: group_of(name, pretrained=bool(one.weights)) for name, one in recipes.items()}
    return table


def _weights(run: Mapping[str, Any], architecture: str) -> str:
    """Return where the weights of a run began: `random`, a path, or `imagenet`.

    That, too, where a path leads to Keras's file, if Keras publishes its MD5.
    """
    published = IMAGENET.get(architecture)
    by_path = published and run["hashes"].get("weights") == published.digest
    return "imagenet" if by_path else run["weights"] or "random"


def _why_no_results(params: Params, name: str, models: Path, results: Path, images: str | None) -> str:
    """Return why a model or a replicate has no results, in a line; nothing where it has."""
    path = models / name / "run.json"
    if not path.is_file():
        return why_not_trained(name)
    run = _record(path, _Run)
    if _is_of_other_params(params, name, run) or _is_of_other_images(run, images):
        return NOT_OF_NOW
    if not all((results / name / file).is_file() for file in ("metrics.json", "architecture.json")):
        return "trained, but not evaluated"
    _, architecture = _evaluated(name, results)
    trained, evaluated = run.get("model_md5"), architecture.get("model_md5")
    another = trained and evaluated and trained != evaluated  # `evaluate` has failed, or was left out
    return "trained anew, and not evaluated since" if another else ""


def _is_of_other_params(params: Params, name: str, run: Mapping[str, Any]) -> bool:
    """Return whether a run is of other params than those of now, and was not trained anew."""
    found = run["hashes"].get("params")
    return bool(found) and (run["profile"], found) != (params.profile, params.job(name).fingerprint)


def _is_of_other_images(run: Mapping[str, Any], images: str | None) -> bool:
    """Return whether a run is of other images than those of now."""
    return images is not None and run["dependencies"].get(CACHE.as_posix(), images) != images


def _evaluated(name: str, results: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return metrics.json and architecture.json of a model."""
    folder = results / name
    return _record(folder / "metrics.json", _Metrics), _record(folder / "architecture.json", _Architecture)


def _record(path: Path, shape: type[BaseModel], remedy: str = "") -> dict[str, Any]:
    """Return what a JSON file holds.

    Raises:
        UserError: it cannot be read, or a value is not of its kind; with the `remedy`, if any.
    """
    values = read_json(path, tuple(shape.model_fields), remedy=remedy)
    try:
        shape.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path} cannot be read ({where}: {first['msg']}): "
            + (remedy or f"`rm -f {path}` and `dvc checkout {path}` bring it back")
        ) from None
    return values


def group_of(model: str, *, pretrained: bool) -> str:
    """Return which table of the report a model belongs to: the paper's own, or one by where its weights begin."""
    if model.removesuffix(PUBLISHED) in paper_table().index:
        return PAPER
    return PRETRAINED if pretrained else FROM_SCRATCH


def _spread(params: Params, model: str, missing: Mapping[str, str], results: Path) -> dict[str, Any]:
    """Return SPREAD of a model, from its own result and those of its replicates; `missing`: why one has none, or ""."""
    replicates = [job.name for job in params.replicates_of(model) if not missing[job.name]]
    accuracies = pd.Series([_evaluated(name, results)[0]["val_accuracy"] for name in (model, *replicates)])
    return dict(zip(SPREAD, (accuracies.mean(), accuracies.std(), len(accuracies)), strict=True))


def read_histories(table: pd.DataFrame, models: Path) -> dict[str, pd.DataFrame]:
    """Return model -> history.csv, for the models of the table that have results."""
    with_results = table.dropna(subset="val_accuracy")["model"]
    numbers = {name: int if name == "epoch" else float for name in _HISTORY}
    return {model: read_csv(models / model / "history.csv", _HISTORY, dtype=numbers) for model in with_results}


def determinism(params: Params, models: Path, path: Path) -> dict[str, str]:
    """Return what double runs showed, by model: those with the params, data, code and versions of the run shown."""
    outcomes = _read_json(path) or {}
    shown = {}
    for model in params.active:
        outcome, run = outcomes.get(model), _read_json(models / model / "run.json")
        if not outcome or not run:
            continue
        found = tuple(outcome.get(key) for key in ("params", "dependencies", "versions"))
        if found == (params.job(model).fingerprint, fingerprint(run["dependencies"]), run["versions"]):
            answer = "yes" if outcome["same"] else "NO"
            how = f"{outcome['epochs']} epochs of {outcome['batches']} batches on {outcome['device']}"
            shown[model] = f"{answer}, {how}"
    return shown


def _read_json(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None
