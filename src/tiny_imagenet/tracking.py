"""MLflow: one run per trained model, in one experiment per profile. The only file that imports it.

The store is `mlflow.db` and `mlruns/` in the repository's root, which plain `mlflow ui` there finds, unless
MLFLOW_TRACKING_URI says otherwise.
"""

import logging
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from sqlalchemy.exc import SQLAlchemyError

from tiny_imagenet.errors import UserError

if TYPE_CHECKING:
    import keras

_DATABASE = "mlflow.db"
_SYSTEM_METRICS_SECONDS = 10
_ARTIFACT_PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


class _HeldInterrupt:
    """Ctrl-C, held back until a safe moment; the second one is not.

    Raised anywhere, it may leave the lock of Python's logging taken, and MLflow's thread would wait for it for ever.
    """

    def __init__(self) -> None:
        self._asked = False

    def hold(self, _signal: int, _frame: FrameType | None) -> None:
        """Note that a stop was asked for; what `signal.signal` takes."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def check(self) -> None:
        """Raise what was held back."""
        if self._asked:
            raise KeyboardInterrupt


@contextmanager
def _interrupts_held() -> Iterator[_HeldInterrupt]:
    held = _HeldInterrupt()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before = signal.signal(signal.SIGINT, held.hold)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class Run:
    """An MLflow run that is being written."""

    run_id: str
    tracking_uri: str
    is_resumed: bool = False
    _interrupt: _HeldInterrupt = field(default_factory=_HeldInterrupt)
    _steps: dict[str, set[int]] = field(default_factory=dict)
    """Of a run that is gone on with: the steps of each metric that are there."""

    def log_epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Log what the run lacks of an epoch's figures; steps count from 1, as in history.csv."""
        missing = {name: float(value) for name, value in figures.items() if epoch not in self._logged_steps(name)}
        if missing:
            _mlflow().log_metrics(missing, step=epoch)

    def _logged_steps(self, name: str) -> set[int]:
        if self.is_resumed and name not in self._steps:
            points = _mlflow().MlflowClient().get_metric_history(self.run_id, name)
            self._steps[name] = {point.step for point in points}
        return self._steps.get(name, set())

    def log_history(self, history: Sequence[Mapping[str, float]]) -> None:
        """Log what the run lacks of the epochs that are done: killed between saving and logging, it lacks the last."""
        for epoch, figures in enumerate(history, start=1):
            self.log_epoch(epoch, figures)

    def epoch_callback(self) -> "keras.callbacks.Callback":
        """Return the Keras callback that logs every epoch, and lets Ctrl-C through after a batch."""
        import keras

        def check(batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG001 - Keras names them
            self._interrupt.check()

        return keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self.log_epoch(epoch + 1, logs),
            on_train_batch_end=check,
            on_test_batch_end=check,
        )

    def log_model(self, model: "keras.Model", requirements: list[str], class_names: list[str]) -> None:
        """Log the model with its signature (plain uint8 RGB images in, class probabilities out) and class names."""
        client = _mlflow().MlflowClient()
        if self.is_resumed:  # killed after it had logged the model, or while it did
            experiment = client.get_run(self.run_id).info.experiment_id
            for logged in client.search_logged_models([experiment], f"source_run_id = '{self.run_id}'"):
                if logged.status == "READY":
                    return
                client.delete_logged_model(logged.model_id)
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec

        signature = ModelSignature(
            Schema([TensorSpec(np.dtype(np.uint8), (-1, *model.input_shape[1:]))]),
            Schema([TensorSpec(np.dtype(np.float32), (-1, *model.output_shape[1:]))]),
        )
        with redirect_stdout(StringIO()):  # Keras's summary of the model
            _mlflow().keras.log_model(
                model,
                name="model",
                signature=signature,
                pip_requirements=requirements,
                save_exported_model=False,
                metadata={"class_names": class_names},
            )

    def log_artifact(self, path: Path) -> None:
        """Log a file beside the run."""
        _mlflow().log_artifact(str(path))


def _mlflow() -> Any:
    """Return the module mlflow, imported late: telemetry is switched off before, and it takes seconds."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    for chatty in ("mlflow.store.db.utils", "mlflow.system_metrics", "alembic.runtime.migration"):
        logging.getLogger(chatty).setLevel(logging.WARNING)

    return mlflow


def _store_errors() -> tuple[type[Exception], ...]:
    """Return what MLflow raises where its store is missing, broken or away."""
    return (_mlflow().exceptions.MlflowException, SQLAlchemyError, sqlite3.Error)


def tracking_uri(root: Path) -> str:
    """Return the address of the store: MLFLOW_TRACKING_URI, or the database in the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / _DATABASE}"


def connect(root: Path) -> str:
    """Point MLflow at the store, make the database where it is missing, and return the address.

    Several processes may do this at once: two that create one SQLite file together would break it, so one does, under
    a lock and a temporary name.
    """
    mlflow = _mlflow()
    uri = tracking_uri(root)
    database = root / _DATABASE
    if uri == f"sqlite:///{database}":
        with FileLock(root / f"{_DATABASE}.lock"):
            if not database.exists():
                _create_database(database, root / "mlruns")
            else:
                _follow_move(database, root / "mlruns")
    mlflow.set_tracking_uri(uri)
    return uri


def _follow_move(database: Path, artifacts: Path) -> None:
    """Point the database to `artifacts`, which moved along with it: MLflow keeps absolute paths.

    Only what is there is followed: an experiment whose folder is not in `artifacts` keeps its place.
    """
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        rows = connection.execute("SELECT artifact_location FROM experiments").fetchall()
        for old in {Path(location).parent for (location,) in rows if location and location.startswith("/")}:
            moved = [location for (location,) in rows if location and Path(location).parent == old]
            if old == artifacts or not any((artifacts / Path(location).name).is_dir() for location in moved):
                continue
            for table, column in _ARTIFACT_PATHS:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} LIKE ? || '/%'",  # noqa: S608 - fixed names
                    (str(artifacts), len(str(old)) + 1, str(old)),
                )


def _create_database(database: Path, artifacts: Path) -> None:
    _mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    partial = database.with_name(database.name + ".partial")
    for leftover in database.parent.glob(partial.name + "*"):
        leftover.unlink()
    store: Any = SqlAlchemyStore(f"sqlite:///{partial}", str(artifacts))  # type: ignore[no-untyped-call] # MLflow has none
    store.engine.dispose()
    partial.replace(database)


@contextmanager
def start_run(
    root: Path,
    *,
    experiment: str,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    resume: str | None = None,
) -> Iterator[Run]:
    """Start a run and end it with the block: finished, killed by Ctrl-C, or failed where the block raises.

    Under `mlflow run`, whose run id stands in the environment, the new run becomes its child.

    Args:
        root: the repository.
        experiment: made where it is missing.
        name: of the run.
        params: what is logged as the run's parameters.
        tags: and as its tags.
        resume: a run to go on with; where the store does not have it (any more), a new one is started.

    Raises:
        UserError: the store cannot be reached.
    """
    parent = os.environ.pop("MLFLOW_RUN_ID", None)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    mlflow = _mlflow()
    with _interrupts_held() as interrupt:
        try:
            uri = connect(root)
            mlflow.set_experiment(experiment_id=_experiment_id(experiment, root))
            mlflow.set_system_metrics_sampling_interval(_SYSTEM_METRICS_SECONDS)
            all_tags = dict(tags) | ({"mlflow.parentRunId": parent} if parent else {})
            live = resume if resume and _is_live(resume) else None
            active = mlflow.start_run(
                run_id=live,
                run_name=name,
                tags=all_tags,
                log_system_metrics=True,
            )
        except _store_errors() as error:
            raise _unusable(root, error) from None
        status = "FAILED"
        try:
            logged = mlflow.get_run(live).data.params if live else {}
            mlflow.log_params({key: str(value) for key, value in params.items() if key not in logged})
            yield Run(active.info.run_id, uri, is_resumed=live is not None, _interrupt=interrupt)
            interrupt.check()
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        except _store_errors() as error:
            raise _unusable(root, error) from None
        finally:
            with suppress(*_store_errors()):
                mlflow.end_run(status)


def _is_live(run_id: str) -> bool:
    mlflow = _mlflow()
    try:
        return bool(mlflow.get_run(run_id).info.lifecycle_stage == "active")
    except mlflow.exceptions.MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def mark_killed(root: Path, *, name: str, tags: Mapping[str, str], but: str | None = None) -> None:
    """Mark the runs of that name and with these tags as killed that still seem to be running, `but` one.

    Raises:
        UserError: the store cannot be reached.
    """
    mlflow = _mlflow()
    try:
        connect(root)
        client = mlflow.MlflowClient()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        asked = [f'tags.`{key}` = "{value}"' for key, value in (dict(tags) | {"mlflow.runName": name}).items()]
        for run in client.search_runs(experiments, " and ".join(["attributes.status = 'RUNNING'", *asked])):
            if run.info.run_id != but:
                client.set_terminated(run.info.run_id, "KILLED")
    except _store_errors() as error:
        raise _unusable(root, error) from None


def _unusable(root: Path, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0]
    return UserError(
        f"MLflow's store {tracking_uri(root)} cannot be used: {reason}\n"
        "Start its server, correct MLFLOW_TRACKING_URI, or move a broken mlflow.db away: a new one is made."
    )


def _experiment_id(name: str, root: Path) -> str:
    """Return the id of an experiment, made where it is missing; another process may make it at the same time."""
    mlflow = _mlflow()
    client = mlflow.MlflowClient()
    found = client.get_experiment_by_name(name)
    if found is None:
        local = tracking_uri(root).startswith("sqlite:")
        location = str(root / "mlruns" / name) if local else None
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except mlflow.exceptions.MlflowException:
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        raise UserError(
            f"the MLflow experiment '{name}' was deleted; restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    return str(found.experiment_id)


def add_results(root: Path, run_id: str, metrics: Mapping[str, float], folder: Path | None = None) -> bool:
    """Add the final metrics to a run that has ended, and the files of a folder; return whether the run was found.

    Metrics that the run already has, with the same value, are not logged again.

    Raises:
        UserError: the store cannot be reached.
    """
    mlflow = _mlflow()
    try:
        connect(root)
        client = mlflow.MlflowClient()
        logged = client.get_run(run_id).data.metrics
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise _unusable(root, error) from None
    except mlflow.exceptions.MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise _unusable(root, error) from None
    for name, value in metrics.items():
        final = f"final_{name}"
        if logged.get(final) != value:
            client.log_metric(run_id, final, float(value))
    if folder is not None:
        client.log_artifacts(run_id, str(folder), "results")
    return True


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one: {"optimizer": {"name": "adam"}} -> {"optimizer.name": "adam"}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
