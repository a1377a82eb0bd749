"""Write a run: its epochs, its model, and its end.

A training continues without MLflow's server. Epochs that could not be logged are retried with the next epoch, and
`results.complete` adds what is still missing.
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
    experiment_ids,
    find_live,
    mlflow,
    public,
    reason,
    search_runs,
    store_errors,
)

if TYPE_CHECKING:
    import keras

SYSTEM_METRICS_SECONDS = 5
_PATIENCE = 10  # pause after a failed call, in durations of that call: a training loses at most 1/10 of its time
Answer = TypeVar("Answer")


@dataclass
class Run:
    """An MLflow run that is being written.

    Errors of the store are not raised: epochs are retried, and `results.complete` adds all else.
    """

    run_id: str
    tracking_uri: str
    """Without a password."""
    artifact_uri: str
    may_have_been_sent: bool = False
    """Whether the run may already have the next epoch. Its metrics are then read before the epoch is logged."""
    repeats: bool = False
    """Whether each epoch may be logged twice, not only the first one."""
    _interrupt: HeldInterrupt = field(default_factory=HeldInterrupt)
    _unsent: list[Any] = field(default_factory=list)
    _is_away: bool = False
    _not_before: float = 0.0

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of an epoch, counted from 1 as in history.csv, unless the run has them."""
        self._unsent += points(epoch, metrics, now())
        self._try(self._send)

    def log_history(self, history: Sequence[Mapping[str, float]]) -> None:
        """Log completed epochs that the run lacks: if it was killed between saving and logging, the last one."""
        for epoch, metrics in enumerate(history, start=1):
            self._unsent += points(epoch, metrics, now())
        self._try(self._send)

    def _send(self) -> None:
        add_points(self.run_id, self._unsent, is_new=not self.may_have_been_sent)
        self._unsent.clear()
        self.may_have_been_sent = self.repeats
        if self._is_away:
            print("MLflow's store is back; the missing epochs are logged", file=sys.stderr)  # noqa: T201 - user
        self._is_away = False

    def epoch_callback(self) -> "keras.callbacks.Callback":
        """Return the Keras callback that logs each epoch, and raises a delayed Ctrl-C after a batch."""
        import keras

        def check(batch: int, logs: Mapping[str, float] | None = None) -> None:  # noqa: ARG001 - Keras passes them by name
            self._interrupt.check()

        return keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: self.log_epoch(epoch + 1, logs),
            on_train_batch_end=check,
            on_test_batch_end=check,
        )

    def log_dataset(self, setup: TrainingSetup) -> None:
        """Log the dataset of the training as the run's input."""
        self._try(add_dataset, self.run_id, setup)

    def log_model(
        self,
        model: "keras.Model",
        file: Path,
        requirements: list[str],
        classes: Mapping[str, list[str]],
        example: NDArray[np.uint8],
    ) -> str | None:
        """Log the model, like `add_model`; return its address, or None if the store cannot be reached."""
        return self._try(add_model, self.run_id, model, file, requirements, classes, example)

    def log_artifact(self, path: Path) -> None:
        """Log a file to the run."""
        self._try(lambda: client().log_artifact(self.run_id, str(path)))

    def log_text(self, text: str, name: str) -> None:
        """Log a text to the run, as a file."""
        self._try(lambda: client().log_text(self.run_id, text, name))

    def end(self, status: str) -> bool:
        """End a run of `sweeps.open_run` as FINISHED, FAILED or KILLED; return whether the store has all of it."""

        def end() -> bool:
            self._send()
            client().set_terminated(self.run_id, status)
            return True

        return bool(self._try(end))

    def _try(self, call: Callable[..., Answer], *arguments: Any) -> Answer | None:
        """Call MLflow. On failure, warn, and skip all calls for ten times the duration of this one."""
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
                    "continues. Missing data is logged when the store is back, or when the command is rerun",
                    file=sys.stderr,
                )
            self._is_away = self.may_have_been_sent = True
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
    """Start a run, and end it after the block: as KILLED on Ctrl-C, as FAILED on another error, else as FINISHED.

    A missing experiment is created. If the store does not have the run `resume`, a new one is started. Under
    `mlflow run`, which sets its run id in the environment, the new run becomes a child of that run. Raise UserError if
    the store cannot be reached at the start.
    """
    parent = os.environ.pop("MLFLOW_RUN_ID", None)
    os.environ.pop("MLFLOW_EXPERIMENT_ID", None)
    module = mlflow()
    with interrupts_held() as interrupt:
        with connected(root) as uri:
            module.set_experiment(experiment_id=experiment_id(experiment, root))
            module.set_system_metrics_sampling_interval(SYSTEM_METRICS_SECONDS)
            resumed = find_live(resume) is not None
            active = module.start_run(
                run_id=resume if resumed else None,
                run_name=name,
                tags=dict(tags) | ({"mlflow.parentRunId": parent} if parent else {}),
                log_system_metrics=True,
            )
        run = Run(active.info.run_id, public(uri), public(active.info.artifact_uri), resumed, _interrupt=interrupt)
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
    """Start the run of a training, like `start_run`, and log what is known before its next epoch.

    Mark other runs of this name and working directory that are still RUNNING as killed. Call this only while the lock
    of the training is held: those runs have no process any more. `resume` is the id of the run of a stopped training,
    `history` has its completed epochs.
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


def mark_killed(root: Path, *, name: str, tags: Mapping[str, str], but: str | None = None) -> list[str]:
    """Mark RUNNING runs with this name and these tags, except for `but`, as killed; return their ids.

    Raise UserError if the store cannot be reached.
    """
    marked = []
    with connected(root):
        for run in search_runs(experiment_ids(), "RUNNING", name, tags):
            if run.info.run_id != but:
                client().set_terminated(run.info.run_id, "KILLED")
                marked.append(run.info.run_id)
    return marked
