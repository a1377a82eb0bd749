"""Checkpoint for bit-exact resume after the last completed epoch.

It has the weights, the optimizer, the history, and what Keras's `BackupAndRestore` loses: the seeds of dropout and the
counters of schedules and stops. Each training has one file, in a folder that neither DVC nor git tracks. The file is
named after a fingerprint of everything that decides the result: after a change of params, data or code, a training
starts from scratch.
"""

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.backend import devices
from tiny_imagenet.common.errors import UserError, is_of_the_disk
from tiny_imagenet.common.files import ZIP_ERRORS, replaced, write_text
from tiny_imagenet.common.progress import say
from tiny_imagenet.training.callbacks import AveragedWeights, Clock

_STATE = "state.json"
_BEST_WEIGHTS = "best_weights"
_REMEMBERED: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", _BEST_WEIGHTS),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best"),
    Clock: ("epoch_seconds", "training_seconds"),
}
"""Attributes of callbacks that are saved. Keras resets those of its own callbacks when a training starts.

No checkpoint lacks one of them: a checkpoint of other code has another key.
"""


def open_checkpoint(folder: Path, key: str) -> "Checkpoint":
    """Return the checkpoint of a training, and print whether the training resumes.

    The folder has the name of the training. If several processes share the batches, only the first one writes the
    checkpoint. Raise UserError if it is damaged, or the processes have different keys or checkpoints.
    """
    checkpoint = Checkpoint(folder, key, read_only=devices.process() > 0)
    history = checkpoint.history()
    devices.require_same("params, data, code, versions or processor", key)
    devices.require_same(f"their completed epochs: all of them must share the folder {folder.parent}", str(history))
    if history:
        say(f"{folder.name}: resuming after epoch {len(history)}")
    elif checkpoint.other:
        say(
            f"{folder.name}: starting from scratch; checkpoint {checkpoint.other} (different params, data, code, "
            "versions, processor, threads or environment variables) is kept until this training is complete"
        )
    return checkpoint


class Checkpoint:
    """The checkpoint of a training, and the id of its MLflow run.

    The folder holds the checkpoints of a model, also those of stopped trainings with another key.
    `workspace.drop_finished_checkpoint` removes it. The key is a fingerprint of everything that decides the result.
    If `read_only`, write nothing, because another process of the same training does.
    """

    def __init__(self, folder: Path, key: str, *, read_only: bool = False):
        self._read_only = read_only
        self._folder = folder
        self._file = folder / f"{key}.checkpoint"
        self._run_file = folder / f"{key}.run"

    @property
    def run_id(self) -> str | None:
        """The id of the MLflow run of a stopped training with this key, or None."""
        return self._run_file.read_text(encoding="utf-8").strip() if self._run_file.is_file() else None

    @property
    def other(self) -> Path | None:
        """The newest checkpoint of a training with another key, or None."""
        others = [path for path in self._folder.glob(f"*{self._file.suffix}") if path != self._file]
        return max(others, key=lambda path: path.stat().st_mtime) if others else None

    def begin(self, run_id: str) -> None:
        """Record the MLflow run of the training that starts. Delete the files of all other trainings but `other`."""
        other = self.other
        write_text(self._run_file, f"{run_id}\n")
        kept = {f"{file.stem}{suffix}" for file in (self._file, other) if file for suffix in (".checkpoint", ".run")}
        for path in self._folder.iterdir():
            if path.name not in kept:
                path.unlink()

    @property
    def bytes(self) -> int:
        """Size of the file; 0 if there is none."""
        return self._file.stat().st_size if self._file.is_file() else 0

    def read_state(self) -> dict[str, Any] | None:
        """Return all but the arrays, or None if there is no checkpoint; raise UserError if the file is damaged.

        Keys: `stopped` (before the last epoch), `history` (a mapping per epoch), `resumed_from`, `callbacks`. A stopped
        training does not damage the file: writes are atomic.
        """
        if not self._file.is_file():
            return None
        with self._opened() as archive:
            state = json.loads(archive.read(_STATE))
            if not isinstance(state, dict) or "history" not in state:
                raise ValueError(f"{_STATE} has no history")
            return state

    def history(self) -> list[dict[str, float]]:
        """Return the metrics of the completed epochs."""
        state = self.read_state()
        return state["history"] if state else []

    def read_array(self, name: str) -> NDArray[Any]:
        """Return a saved array; raise UserError if the file is damaged."""
        with self._opened() as archive, archive.open(name) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    @contextmanager
    def _opened(self) -> Iterator[zipfile.ZipFile]:
        try:
            with zipfile.ZipFile(self._file) as archive:
                yield archive
        except (*ZIP_ERRORS, KeyError) as error:
            if is_of_the_disk(error):
                raise
            files = f"{self._file} {self._run_file}"
            raise UserError(
                f"checkpoint {self._file} is damaged ({error}); `rm {files}` to train from scratch"
            ) from None

    def write(self, state: dict[str, Any], arrays: Iterator[tuple[str, NDArray[Any]]]) -> None:
        """Replace the checkpoint atomically."""
        if self._read_only:
            return
        with replaced(self._file) as partial, zipfile.ZipFile(partial, "w") as archive:
            archive.writestr(_STATE, json.dumps(state))
            for name, array in arrays:
                with archive.open(name, "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)


class EpochRecorder(keras.callbacks.Callback):
    """Restore the checkpoint of a stopped training; after each epoch, extend the history and save a checkpoint.

    `others` are the callbacks whose state is saved. They must come before this one. Without a checkpoint, only the
    history is recorded. Raise UserError if the checkpoint is damaged.
    """

    def __init__(self, checkpoint: Checkpoint | None, others: Sequence[keras.callbacks.Callback]):
        super().__init__()
        self._checkpoint = checkpoint
        self._others = others
        self._saved = checkpoint.read_state() if checkpoint else None
        self._first_epoch = 0
        self._averages: AveragedWeights | None = None
        self.is_complete = bool(self._saved and self._saved["stopped"])
        """Whether the training to resume stopped early, so that no epoch follows."""
        self.history: list[dict[str, float]] = self._saved["history"] if self._saved else []
        self.resumed_from: list[int] = [*self._saved["resumed_from"], len(self.history)] if self._saved else []

    @property
    def epochs_done(self) -> int:
        """Number of epochs in the history."""
        return len(self.history)

    def begin_phase(self, first_epoch: int, averages: AveragedWeights | None) -> None:
        """Prepare for the next phase, which has a new optimizer and its own callback for averaged weights, if any."""
        self._first_epoch, self._averages = first_epoch, averages

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        saved, self._saved = self._saved, None  # the second phase continues with the model in memory
        if self._checkpoint is None or saved is None:
            return
        is_between_phases = 0 < self._first_epoch == len(self.history)
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        if self._averages and not is_between_phases:
            self._averages.expect_averages()
        for name, variable in self._variables(with_optimizer=not is_between_phases):
            variable.assign(self._checkpoint.read_array(name))
        for number, (callback, values) in enumerate(zip(self._others, saved["callbacks"], strict=True)):
            if is_between_phases and not isinstance(callback, Clock):
                continue
            for attribute, value in values.items():
                if attribute == _BEST_WEIGHTS and value is not None:
                    value = [self._checkpoint.read_array(_best_name(number, index)) for index in range(value)]
                setattr(callback, attribute, value)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.history.append({name: float(value) for name, value in logs.items()})
        if self._checkpoint is None:
            return
        state = {
            "stopped": bool(self.model.stop_training),
            "history": self.history,
            "resumed_from": self.resumed_from,
            "callbacks": [_state(callback) for callback in self._others],
        }
        self._checkpoint.write(state, self._arrays())

    def _variables(self, *, with_optimizer: bool = True) -> Iterator[tuple[str, keras.Variable]]:
        """Yield the weights, the seeds of dropout, and the moments, counter and learning rate of the optimizer."""
        metrics = {id(variable) for variable in self.model.metrics_variables}
        model = [variable for variable in self.model.variables if id(variable) not in metrics]
        optimizer = self.model.optimizer.variables if with_optimizer else []
        for kind, variables in (("model", model), ("optimizer", optimizer)):
            for index, variable in enumerate(variables):
                yield f"{kind}/{index}.npy", variable

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        for name, variable in self._variables():
            yield name, keras.ops.convert_to_numpy(variable)
        for number, callback in enumerate(self._others):
            for index, array in enumerate(getattr(callback, _BEST_WEIGHTS, None) or []):
                yield _best_name(number, index), array


def _state(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Return the saved attributes of a callback. Of its best weights, return the number of arrays."""
    names = next(names for kind, names in _REMEMBERED.items() if isinstance(callback, kind))
    state: dict[str, Any] = {name: getattr(callback, name, None) for name in names}
    if state.get(_BEST_WEIGHTS) is not None:
        state[_BEST_WEIGHTS] = len(state[_BEST_WEIGHTS])
    return state


def _best_name(number: int, index: int) -> str:
    return f"{_BEST_WEIGHTS}/{number}/{index}.npy"
