"""A run that is being written: its epochs, its model, and its end.

A training does not stop because MLflow's server does. Epochs that could not be logged are retried with the next epoch;
`tracking.complete` adds what is missing in the end.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.common.signals import HeldInterrupt, interrupts_held
from tiny_imagenet.repository.dvc import repository_root
from tiny_imagenet.repository.provenance import run_tags
from tiny_imagenet.repository.records import TrainingSetup
from tiny_imagenet.repository.workspace import workspace_id
from tiny_imagenet.tracking.additions import add_dataset, add_model, add_params, add_points, now, points
from tiny_imagenet.tracking.store import (
    client,
    connected,
    experiment_id,
    is_missing,
    mlflow,
    public,
    reason,
    store_errors,
)

if TYPE_CHECKING:
    import keras

SYSTEM_METRICS_SECONDS = 5
_PATIENCE = 10  # times the duration of a failed call until the next: it costs a training at most a tenth of its time
Answer = TypeVar("Answer")


@dataclass
class Run:
    """An MLflow run that is being written.

    If the store is away, nothing is raised: epochs are retried, and all else is left to `tracking.complete`.
    """

    run_id: str
    tracking_uri: str
    """Without a password."""
    artifact_uri: str
    is_resumed: bool = False
    repeats: bool = False
    """Whether epochs may be repeated that the run has: then its metrics are read before each is logged."""
    _interrupt: HeldInterrupt = field(default_factory=HeldInterrupt)
    _unsent: list[Any] = field(default_factory=list)
    _may_have_been_sent: bool = False
    _is_away: bool = False
    _not_before: float = 0.0

    def __post_init__(self) -> None:
        self._may_have_been_sent = self.is_resumed

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log what the run lacks of an epoch's metrics; steps count from 1, as in history.csv."""
        self._unsent += points(epoch, metrics, now())
        self._try(self._send)

    def log_history(self, history: Sequence[Mapping[str, float]]) -> None:
        """Log what the run lacks of completed epochs: the last, if it was killed between saving and logging."""
        for epoch, metrics in enumerate(history, start=1):
            self._unsent += points(epoch, metrics, now())
        self._try(self._send)

    def _send(self) -> None:
        add_points(self.run_id, self._unsent, is_new=not self._may_have_been_sent)
        self._unsent.clear()
        self._may_have_been_sent = self.repeats
        if self._is_away:
            print("MLflow's store is back, and has the epochs that it missed", file=sys.stderr)  # noqa: T201 - user
        self._is_away = False

    def epoch_callback(self) -> "keras.callbacks.Callback":
        """Return the Keras callback that logs each epoch, and raises a held Ctrl-C after a batch."""
        import keras

        def check(batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG001 - Keras names them
            self._interrupt.check()

        return keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self.log_epoch(epoch + 1, logs),
            on_train_batch_end=check,
            on_test_batch_end=check,
        )

    def log_dataset(self, setup: TrainingSetup) -> None:
        """Log the images of the training as the run's input."""
        self._try(add_dataset, self.run_id, setup)

    def log_model(
        self,
        model: "keras.Model",
        file: Path,
        requirements: list[str],
        classes: Mapping[str, list[str]],
        example: NDArray[np.uint8],
    ) -> str | None:
        """Log the model, as `add_model` does, and return its address; None if the store is away."""
        return self._try(add_model, self.run_id, model, file, requirements, classes, example)

    def log_artifact(self, path: Path) -> None:
        """Log a file beside the run."""
        self._try(lambda: client().log_artifact(self.run_id, str(path)))

    def log_text(self, text: str, name: str) -> None:
        """Log a text as a file beside the run."""
        self._try(lambda: client().log_text(self.run_id, text, name))

    def end(self, status: str) -> bool:
        """End a run of `tracking.open_run` as FINISHED, FAILED or KILLED; return whether the store has all of it."""

        def end() -> bool:
            self._send()
            client().set_terminated(self.run_id, status)
            return True

        return bool(self._try(end))

    def _try(self, call: Callable[..., Answer], *arguments: Any) -> Answer | None:
        """Call MLflow; on failure, warn, and skip further calls for ten times the duration of this one."""
        began = time.monotonic()
        if began < self._not_before:
            return None
        try:
            return call(*arguments)
        except store_errors() as error:
            self._not_before = time.monotonic() + _PATIENCE * (time.monotonic() - began)
            if not self._is_away:
                print(  # noqa: T201 - for the user
                    f"warning: MLflow's store {self.tracking_uri} cannot be used ({reason(error)}): the training "
                    "continues. What the run lacks is logged when the store is back, or when the command is rerun",
                    file=sys.stderr,
                )
            self._is_away = self._may_have_been_sent = True
            return None


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
    """Start a run and end it with the block: as finished, killed by Ctrl-C, or failed if the block raises.

    Under `mlflow run`, whose run id is in the environment, the new run becomes its child.

    Args:
        root: the repository.
        experiment: created if it is missing.
        name: of the run.
        params: logged as the run's parameters.
        tags: of the run.
        resume: id of a run to resume; if the store does not have it, a new one is started.

    Raises:
        UserError: the store cannot be reached at the start.
    """
    parent = os.environ.pop("MLFLOW_RUN_ID", None)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    module = mlflow()
    with interrupts_held() as interrupt:
        with connected(root) as uri:
            module.set_experiment(experiment_id=experiment_id(experiment, root))
            module.set_system_metrics_sampling_interval(SYSTEM_METRICS_SECONDS)
            live = resume if resume and is_live(resume) else None
            active = module.start_run(
                run_id=live,
                run_name=name,
                tags=dict(tags) | ({"mlflow.parentRunId": parent} if parent else {}),
                log_system_metrics=True,
            )
        run = Run(
            active.info.run_id, public(uri), public(active.info.artifact_uri), live is not None, _interrupt=interrupt
        )
        status = "FAILED"
        try:
            with connected(root):
                add_params(run.run_id, params)
            yield run
            interrupt.check()
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            with suppress(*store_errors()):
                module.end_run(status)


@contextmanager
def training_run(
    setup: TrainingSetup, name: str, *, resume: str | None, history: Sequence[Mapping[str, float]]
) -> Iterator[Run]:
    """Start the run of a training as `start_run` does, and log what is known before its next epoch.

    Runs of this name and working directory that still seem to be running are dead, and are marked as killed: call this
    only while the training's lock is held.

    Args:
        setup: of the training.
        name: of the run.
        resume: id of the run of a training that was stopped.
        history: the epochs that it has completed.
    """
    root, here = repository_root(), {"workspace": workspace_id()}
    mark_killed(root, name=name, tags=here, but=resume)
    tags = run_tags(setup) | here
    with start_run(root, experiment=setup.experiment, name=name, params=setup.params, tags=tags, resume=resume) as run:
        run.log_history(history)
        run.log_dataset(setup)
        if setup.git.dirty:
            run.log_text(setup.git.diff, "git.diff")
        yield run


def is_live(run_id: str) -> bool:
    """Return whether the store has the run, not deleted."""
    try:
        return bool(client().get_run(run_id).info.lifecycle_stage == "active")
    except mlflow().exceptions.MlflowException as error:
        if is_missing(error):
            return False
        raise


def mark_killed(root: Path, *, name: str, tags: Mapping[str, str], but: str | None = None) -> list[str]:
    """Mark runs that still seem to be running as killed: those of this name and with these tags, `but` one.

    Returns:
        The ids of those that were marked.

    Raises:
        UserError: the store cannot be reached.
    """
    marked = []
    with connected(root):
        experiments = [experiment.experiment_id for experiment in client().search_experiments()]
        filters = [f'tags.`{key}` = "{value}"' for key, value in (dict(tags) | {"mlflow.runName": name}).items()]
        for run in client().search_runs(experiments, " and ".join(["attributes.status = 'RUNNING'", *filters])):
            if run.info.run_id != but:
                client().set_terminated(run.info.run_id, "KILLED")
                marked.append(run.info.run_id)
    return marked
