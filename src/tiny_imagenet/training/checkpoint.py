"""Exact resume: all that a training needs to go on after its last whole epoch, bit for bit as if it had not stopped.

Keras's `BackupAndRestore` forgets dropout's seeds and the counters of schedules and stops; here they stand beside the
weights, the optimizer and the history. One file per training, in a folder that neither DVC nor git knows, named by a
fingerprint of everything that decides the result: after a change of params, data or code it is not found.
"""

import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import replaced, write_text
from tiny_imagenet.training.callbacks import AveragedWeights, Clock

_STATE = "state.json"
_BEST_WEIGHTS = "best_weights"
_REMEMBERED: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("wait", "best", "best_epoch", _BEST_WEIGHTS),
    keras.callbacks.ReduceLROnPlateau: ("wait", "best"),
    AveragedWeights: ("_ema_weights_in_model",),
    Clock: ("epoch_seconds", "training_seconds"),
}
"""What callbacks know from one epoch to the next and act upon. Keras sets it back as a training begins."""


class Checkpoint:
    """The one checkpoint of a training, and the MLflow run that it belongs to.

    Args:
        folder: the model's own; other trainings of the same model leave their files there when they are stopped.
            `finished.drop` removes it.
        key: a fingerprint of what decides the result.
        read_only: write nothing: another process of the same training does.
    """

    def __init__(self, folder: Path, key: str, *, read_only: bool = False):
        self._read_only = read_only
        self._folder = folder
        self._file = folder / f"{key}.checkpoint"
        self._run_file = folder / f"{key}.run"

    @property
    def run_id(self) -> str | None:
        """The MLflow run of a training with this key that was stopped, or None."""
        return self._run_file.read_text(encoding="utf-8").strip() if self._run_file.is_file() else None

    @property
    def other(self) -> Path | None:
        """The newest file of a training with another key; None where there is none."""
        others = [path for path in self._folder.glob(f"*{self._file.suffix}") if path != self._file]
        return max(others, key=lambda path: path.stat().st_mtime) if others else None

    def begin(self, run_id: str) -> None:
        """Note the run, so that it is found again from the first step on; of other trainings keep `other` alone."""
        other = self.other
        write_text(self._run_file, f"{run_id}\n")
        kept = {f"{file.stem}{suffix}" for file in (self._file, other) if file for suffix in (".checkpoint", ".run")}
        for path in self._folder.iterdir():
            if path.name not in kept:
                path.unlink()

    @property
    def bytes(self) -> int:
        """How much of the disk the last one takes."""
        return self._file.stat().st_size if self._file.is_file() else 0

    def read_state(self) -> dict[str, Any] | None:
        """Return what was saved beside the arrays, or None where nothing was.

        Keys: `stopped` (before the last epoch), `history` (a mapping per epoch), `resumed_from`, `callbacks`.

        Raises:
            UserError: the file is broken, which a stopped training cannot have done.
        """
        if not self._file.is_file():
            return None
        try:
            with zipfile.ZipFile(self._file) as archive:
                state: dict[str, Any] = json.loads(archive.read(_STATE))
                return state
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise self._broken(error) from None

    def history(self) -> list[dict[str, float]]:
        """Return the figures of the epochs that are done."""
        state = self.read_state()
        return state["history"] if state else []

    def read_array(self, name: str) -> NDArray[Any]:
        """Return a saved array; raises UserError where the file is broken."""
        try:
            with zipfile.ZipFile(self._file) as archive, archive.open(name) as stream:
                array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
                return array
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> UserError:
        files = f"{self._file} {self._run_file}"
        return UserError(f"the checkpoint {self._file} is broken ({error}); `rm {files}` to train from the start")

    def write(self, state: dict[str, Any], arrays: Iterator[tuple[str, NDArray[Any]]]) -> None:
        """Write a checkpoint over the last one, whole or not at all."""
        if self._read_only:
            return
        with replaced(self._file) as partial, zipfile.ZipFile(partial, "w") as archive:
            archive.writestr(_STATE, json.dumps(state))
            for name, array in arrays:
                with archive.open(name, "w", force_zip64=True) as stream:
                    np.lib.format.write_array(stream, array, allow_pickle=False)


class KeepHistory(keras.callbacks.Callback):  # type: ignore[misc] # Keras publishes no types
    """Collects the history; with a checkpoint, saves after every epoch, and takes up what it finds.

    It has to come after the callbacks whose state it saves.

    Args:
        checkpoint: None to keep nothing on disk.
        others: the callbacks that act in the training.

    Raises:
        UserError: the checkpoint is broken.
    """

    def __init__(self, checkpoint: Checkpoint | None, others: Sequence[keras.callbacks.Callback]):
        super().__init__()
        self._checkpoint = checkpoint
        self._others = others
        self._found = checkpoint.read_state() if checkpoint else None
        self.is_complete = bool(self._found and self._found["stopped"])
        """Whether the training that is taken up had stopped early, so that no epoch is to follow."""
        self.phase_begins = 0
        """The first epoch of the phase that is trained next, from 0. Its optimizer and callbacks begin afresh."""
        self.history: list[dict[str, float]] = self._found["history"] if self._found else []
        self.resumed_from: list[int] = [*self._found["resumed_from"], len(self.history)] if self._found else []

    @property
    def epochs_done(self) -> int:
        """How many epochs the history has."""
        return len(self.history)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        found, self._found = self._found, None  # a second phase finds what the first one has left in memory
        if self._checkpoint is None or found is None:
            return
        if not self.model.optimizer.built:
            self.model.optimizer.build(self.model.trainable_variables)
        between_phases = 0 < self.phase_begins == len(self.history)
        for name, variable in self._variables(with_optimizer=not between_phases):
            variable.assign(self._checkpoint.read_array(name))
        for place, (callback, values) in enumerate(zip(self._remembering(), found["callbacks"], strict=True)):
            if between_phases and not isinstance(callback, Clock):
                continue
            for attribute, value in values.items():
                if attribute == _BEST_WEIGHTS and value is not None:
                    value = [self._checkpoint.read_array(_best_name(place, index)) for index in range(value)]
                setattr(callback, attribute, value)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.history.append({name: float(value) for name, value in (logs or {}).items()})
        if self._checkpoint is None:
            return
        state = {
            "stopped": bool(self.model.stop_training),
            "history": self.history,
            "resumed_from": self.resumed_from,
            "callbacks": [
                {
                    attribute: len(value) if attribute == _BEST_WEIGHTS and value is not None else value
                    for attribute, value in ((name, getattr(callback, name, None)) for name in _remembered(callback))
                }
                for callback in self._remembering()
            ],
        }
        self._checkpoint.write(state, self._arrays())

    def _remembering(self) -> list[keras.callbacks.Callback]:
        return [callback for callback in self._others if _remembered(callback)]

    def _variables(self, *, with_optimizer: bool = True) -> Iterator[tuple[str, keras.Variable]]:
        """Yield weights, dropout's seeds, and the optimizer's moments, counter and learning rate."""
        metrics = {id(variable) for variable in self.model.metrics_variables}
        model = [variable for variable in self.model.variables if id(variable) not in metrics]
        optimizer = self.model.optimizer.variables if with_optimizer else []
        for kind, variables in (("model", model), ("optimizer", optimizer)):
            for index, variable in enumerate(variables):
                yield f"{kind}/{index}.npy", variable

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        for name, variable in self._variables():
            yield name, keras.ops.convert_to_numpy(variable)
        for place, callback in enumerate(self._remembering()):
            for index, array in enumerate(getattr(callback, _BEST_WEIGHTS, None) or []):
                yield _best_name(place, index), array


def _remembered(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    return next((names for kind, names in _REMEMBERED.items() if isinstance(callback, kind)), ())


def _best_name(place: int, index: int) -> str:
    return f"{_BEST_WEIGHTS}/{place}/{index}.npy"
