"""Log the pipeline's results to MLflow: complete each run, mark the current one, register the champion.

Each function may be repeated at any time, and adds only what is missing. It raises UserError if the store cannot be
reached.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiny_imagenet.common.errors import UserError, is_of_the_disk
from tiny_imagenet.common.files import fingerprint, hashes_below, md5
from tiny_imagenet.repository.paths import MODELS, RESULTS
from tiny_imagenet.repository.provenance import run_tags
from tiny_imagenet.repository.records import Metrics, RunRecord, read_history
from tiny_imagenet.tracking.additions import (
    MODEL_FILE,
    add_dataset,
    add_params,
    add_points,
    add_tags,
    logged_model,
    now,
    points,
)
from tiny_imagenet.tracking.store import (
    client,
    connected,
    experiment_id,
    experiment_ids,
    find_live,
    is_missing,
    local_path,
    mlflow,
    public,
    reason,
    search_runs,
)

REGISTERED_MODEL = "tiny-imagenet"
CHAMPION = "champion"
SUPERSEDED_BY, RESTORED_FROM = "superseded_by", "restored_from"
_NOTE = "mlflow.note.content"
_RESULTS = "results"
_TRAINING = "model"
"""Tag of versions that the pipeline registered. Its value is the name of the training."""


@dataclass(frozen=True)
class TrackedRun:
    """A run in MLflow."""

    run_id: str
    name: str
    status: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    """The last value of each metric."""
    tags: Mapping[str, str]

    @property
    def is_current(self) -> bool:
        """Whether no later run of its model supersedes it."""
        return SUPERSEDED_BY not in self.tags


def find_run(root: Path, run_id: str) -> TrackedRun | None:
    """Return a run, or the run that was restored in its place, or None if the store has neither."""
    with connected(root):
        run = _find(run_id)
    return None if run is None else _tracked(run)


def metric_history(root: Path, run_id: str, name: str) -> list[tuple[int, float]]:
    """Return step and value of each point of a metric."""
    with connected(root):
        return [(point.step, point.value) for point in client().get_metric_history(run_id, name)]


def result_hashes(root: Path, run_id: str) -> dict[str, str]:
    """Return path -> MD5 of the result files of a run in MLflow: `history.csv` and `results/...`."""
    with TemporaryDirectory(prefix="results") as name, connected(root), redirect_stderr(StringIO()):  # a progress bar
        for path in {"history.csv", _RESULTS} & _logged_files(run_id):
            client().download_artifacts(run_id, path, name)
        return hashes_below(Path(name))


def _find(run_id: str) -> Any | None:
    if run := find_live(run_id):
        return run
    restored = client().search_runs(experiment_ids(), f"tags.{RESTORED_FROM} = '{run_id}'", max_results=1)
    return restored[0] if restored else None


def _tracked(run: Any) -> TrackedRun:
    return TrackedRun(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        params=run.data.params,
        metrics=run.data.metrics,
        tags=run.data.tags,
    )


def add_results(root: Path, run_id: str, metrics: Mapping[str, float], folder: Path) -> bool:
    """Add the final metrics and the files of a folder to a run; return whether the store has the run."""
    with connected(root):
        run = _find(run_id)
        if run is not None:
            _add_results(run, metrics, folder)
        return run is not None


def _add_results(run: Any, metrics: Mapping[str, float], folder: Path) -> None:
    run_id, logged = run.info.run_id, run.data.metrics
    final = {f"final_{name}": float(value) for name, value in metrics.items()}
    changed = {name: value for name, value in final.items() if logged.get(name) != value}
    if changed:
        client().log_batch(run_id, metrics=points(0, changed, now()))
    state = fingerprint(hashes_below(folder))
    if run.data.tags.get("results_hash") != state or _RESULTS not in _logged_files(run_id):
        client().log_artifacts(run_id, str(folder), _RESULTS)
        client().set_tag(run_id, "results_hash", state)


def complete(
    root: Path,
    name: str,
    record: RunRecord,
    *,
    tags: Mapping[str, str],
    description: str,
    log_model: Callable[[str], object],
) -> tuple[TrackedRun, bool]:
    """Add to the run of a training what it lacks. If the store does not have the run, restore it from the files.

    A restored run has a tag with the id of the original, by which it is found later, and the further `tags`. The
    history.csv and the results of the training `name` are read in the working directory. `description` is Markdown.
    `log_model` is called with the id of the run if it has no model. Return the run, and whether it was restored.
    """
    file, folder = MODELS / name / "history.csv", RESULTS / name
    history = read_history(file).set_index("epoch")
    metrics = Metrics.read(folder / "metrics.json").as_dict()
    start = datetime.fromisoformat(record.started_at).timestamp()
    ends = [int(1000 * (start + sum(record.epoch_seconds[:epoch]))) for epoch in range(len(history) + 1)]
    with connected(root):
        run = _find(record.run_id)
        restored = run is None
        if run is None:
            run = client().create_run(
                experiment_id(record.experiment, root),
                start_time=ends[0],
                tags=run_tags(record) | dict(tags) | {RESTORED_FROM: record.run_id},
                run_name=name,
            )
        run_id = run.info.run_id
        add_tags(run, run_tags(record))
        add_params(run_id, record.params)
        add_dataset(run_id, record)
        rows: list[dict[str, float]] = history.to_dict("records")  # type: ignore[assignment] # the keys are str
        epochs = (points(epoch, row, ends[epoch]) for epoch, row in enumerate(rows, start=1))
        add_points(run_id, list(itertools.chain.from_iterable(epochs)), is_new=restored)
        _add_results(run, metrics, folder)
        logged = _logged_files(run_id)
        if file.name not in logged:
            client().log_artifact(run_id, str(file))
        if record.git.diff and "git.diff" not in logged:
            client().log_text(run_id, record.git.diff, "git.diff")
        if logged_model(run_id) is None:
            log_model(run_id)
        add_tags(run, {_NOTE: description})
        if client().get_run(run_id).info.status != "FINISHED" or restored:
            client().set_terminated(run_id, "FINISHED", ends[-1])
        return _tracked(client().get_run(run_id)), restored


def _logged_files(run_id: str) -> set[str]:
    """Return the names of the files and folders of a run in MLflow."""
    return {file.path for file in client().list_artifacts(run_id)}


def supersede(root: Path, current: TrackedRun, tags: Mapping[str, str]) -> None:
    """Mark the other finished runs of the same name, experiment and `tags` as superseded; tag the current one."""
    with connected(root):
        this = client().get_run(current.run_id)
        for run in search_runs([this.info.experiment_id], "FINISHED", current.name, tags):
            if run.info.run_id != current.run_id and SUPERSEDED_BY not in run.data.tags:
                client().set_tag(run.info.run_id, SUPERSEDED_BY, current.run_id)
        if not current.is_current:
            client().delete_tag(current.run_id, SUPERSEDED_BY)
        add_tags(this, tags)


def describe_experiment(root: Path, experiment: str, text: str) -> None:
    """Set the description of an experiment, in Markdown."""
    with connected(root):
        number = experiment_id(experiment, root)
        if client().get_experiment(number).tags.get(_NOTE) != text:
            client().set_experiment_tag(number, _NOTE, text)


@dataclass(frozen=True)
class Registration:
    """The result of `register_champion`."""

    version: str
    """The version of the model."""
    other: str | None
    """Another version, with its training, that had the alias before or still has it; None if there is none."""
    is_champion: bool
    """Whether the model now has the alias."""


def register_champion(root: Path, run: TrackedRun, description: str) -> Registration:
    """Give a run's model the alias `champion` of the registered model, and register it if it is not yet.

    The previous champion keeps its version. If a user gave the alias to a version that the pipeline did not register,
    the alias is not moved.
    """
    with connected(root):
        versions = list(client().search_model_versions(f"name = '{REGISTERED_MODEL}'"))
        logged = logged_model(run.run_id)
        if logged is None:
            raise UserError(f"the run {run.run_id} has no model in MLflow: run `tiny-imagenet sync`")
        version = next((version for version in versions if version.source == logged.model_uri), None)
        if version is None:
            if not versions:
                _create_registered_model()
            version = client().create_model_version(
                REGISTERED_MODEL,
                logged.model_uri,
                run.run_id,
                tags={_TRAINING: run.name},
                description=description,
                model_id=logged.model_id,
            )
        if version.tags.get(_TRAINING) != run.name:
            client().set_model_version_tag(REGISTERED_MODEL, version.version, _TRAINING, run.name)
        if version.description != description:
            client().update_model_version(REGISTERED_MODEL, version.version, description)
        champion = _champion()
        if champion is None or str(champion.version) != str(version.version):
            is_ours = champion is None or _TRAINING in champion.tags
            if is_ours:
                client().set_registered_model_alias(REGISTERED_MODEL, CHAMPION, version.version)
            return Registration(str(version.version), champion and _described(champion), is_ours)
        return Registration(str(version.version), None, is_champion=True)


def _champion() -> Any | None:
    """Return the version with the alias `champion`, or None."""
    try:
        return client().get_model_version_by_alias(REGISTERED_MODEL, CHAMPION)
    except mlflow().exceptions.MlflowException as error:
        if not is_missing(error) and error.error_code != "INVALID_PARAMETER_VALUE":  # no model, or no alias
            raise
        return None


def _described(version: Any) -> str:
    return f"version {version.version}, {version.tags.get(_TRAINING, 'not registered by this pipeline')}"


def _create_registered_model() -> None:
    try:
        client().create_registered_model(REGISTERED_MODEL, description="The best model of the table, as `champion`.")
    except mlflow().exceptions.MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


@contextmanager
def champion_file(root: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file of the registered champion, downloaded if it is not on this disk, and its version and training.

    Raise UserError if there is no champion, or it has no file of this pipeline.
    """
    with TemporaryDirectory(prefix="champion") as folder:
        with connected(root):
            version = _champion()
            if version is None:
                raise UserError(
                    f"MLflow has no {REGISTERED_MODEL}@{CHAMPION} yet. `tiny-imagenet sync` registers the best model, "
                    "if `champion.profiles` in params.yaml names the current profile"
                )
            location = client().get_model_version_download_uri(REGISTERED_MODEL, version.version)
            path, problem = None, f"there is no {MODEL_FILE} in {public(location)}"
            try:
                path = _fetched(location, Path(folder))
            except Exception as error:  # others may register any address, and a client of it may raise anything
                if _TRAINING in version.tags or is_of_the_disk(error):
                    raise
                problem = f"{public(location)} cannot be read ({reason(error)})"
            if path is None:
                remedy = "`tiny-imagenet sync` registers the best model again"
                if _TRAINING not in version.tags:
                    remedy = (
                        "give the alias to another version in MLflow, or remove it there and run `tiny-imagenet sync`"
                    )
                raise UserError(f"{REGISTERED_MODEL}@{CHAMPION} is {_described(version)}, but {problem}: {remedy}")
        yield path, _described(version)


def model_md5(root: Path, run_id: str) -> str:
    """Return the MD5 of the file of a run's model in MLflow; raise UserError if there is none."""
    with TemporaryDirectory(prefix="model") as folder, connected(root):
        logged = logged_model(run_id)
        path = logged and _fetched(logged.artifact_location, Path(folder))
        if path is None:
            raise UserError(f"MLflow does not have the model of the run {run_id}: `tiny-imagenet sync` restores it")
        return md5(path)


def _fetched(location: str, folder: Path) -> Path | None:
    """Return the file of a logged model, or None. Download it to `folder` if its `location` is not on this disk."""
    if local := local_path(location):
        return local / MODEL_FILE if (local / MODEL_FILE).is_file() else None
    artifacts = mlflow().artifacts
    files = artifacts.list_artifacts(artifact_uri=f"{location}/{MODEL_FILE.parent.as_posix()}")
    if MODEL_FILE.name not in {Path(file.path).name for file in files}:
        return None
    with redirect_stderr(StringIO()):  # a progress bar
        return Path(artifacts.download_artifacts(f"{location}/{MODEL_FILE.as_posix()}", dst_path=str(folder)))
