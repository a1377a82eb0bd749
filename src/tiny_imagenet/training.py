"""Compile and fit one model by its recipe. Knows nothing of MLflow or DVC: it takes callbacks."""

import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import pandas as pd
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tiny_imagenet import runtime
from tiny_imagenet.dataset.arrays import SIDE, PackedDataset
from tiny_imagenet.dataset.batches import OrderedBatches, TrainingBatches
from tiny_imagenet.errors import UserError
from tiny_imagenet.files import require_free, write_text
from tiny_imagenet.models import build_classifier
from tiny_imagenet.params import Recipe

HISTORY_COLUMNS = ["epoch", "accuracy", "val_accuracy", "loss", "val_loss", "learning_rate"]
_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
}


@dataclass(frozen=True)
class Trained:
    """A fitted model, and how the fit went."""

    model: keras.Model
    history: pd.DataFrame
    """A row per epoch, columns HISTORY_COLUMNS."""
    epoch_seconds: list[float]
    """Wall time of each epoch, validation included."""
    images_per_second: float
    """Median over the epochs, validation not counted, and not the first epoch where there are more."""


def build_model(recipe: Recipe, *, num_classes: int, weights_file: Path | None) -> keras.Model:
    """Return the compiled model of a recipe; `weights_file` holds its pretrained weights, where it has any."""
    model = build_classifier(
        recipe.architecture,
        input_shape=(SIDE, SIDE, 3),
        num_classes=num_classes,
        preprocessing=recipe.preprocessing,
        weights=str(weights_file) if weights_file else None,
        batch_normalization_momentum=recipe.batch_normalization_momentum,
        **recipe.build,
    )
    model.compile(
        optimizer=_OPTIMIZERS[recipe.optimizer.name](learning_rate=recipe.optimizer.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile="auto" if runtime.device().kind == "gpu" else False,  # XLA is several times slower on a CPU
    )
    return model


def train(
    recipe: Recipe,
    packed: PackedDataset,
    *,
    seed: int,
    weights_file: Path | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Trained:
    """Train a model by its recipe and return it with the weights that the recipe keeps.

    Args:
        recipe: architecture, optimizer, epochs and the rest, as `Params.recipe` gives it.
        packed: training and validation images; `val_accuracy` of each epoch is on clean validation images.
        seed: of the order of images and of their augmentation. `runtime.prepare` seeds weights and dropout.
        weights_file: pretrained weights for the backbone.
        callbacks: called last, so that they see all of an epoch's figures.

    Raises:
        UserError: the training has diverged, or its disk is too small for the model.
    """
    model = build_model(recipe, num_classes=packed.num_classes, weights_file=weights_file)
    # Written thrice: by Keras, as model.keras with a fixed date, and by MLflow.
    require_free(Path.cwd(), 3 * 4 * model.count_params(), f"saving {model.count_params():,} parameters")
    batches = TrainingBatches(
        packed.train,
        batch_size=recipe.batch_size,
        augmentation=recipe.augmentation,
        seed=seed,
        batches_per_epoch=None if recipe.batches_per_epoch == "all" else recipe.batches_per_epoch,
    )
    clock = _Clock(batches.images_per_epoch)
    history = model.fit(
        batches,
        validation_data=OrderedBatches(packed.val, batch_size=recipe.batch_size),
        epochs=recipe.epochs,
        shuffle=False,
        verbose=0,
        callbacks=[
            _StopAtNaN(),
            _LearningRate(),
            *recipe_callbacks(recipe),
            clock,
            _Console(recipe.epochs, len(batches), clock),
            *callbacks,
        ],
    ).history
    frame = pd.DataFrame({"epoch": range(1, len(history["loss"]) + 1)} | history)[HISTORY_COLUMNS]
    return Trained(model, frame, clock.epoch_seconds, clock.images_per_second)


def recipe_callbacks(recipe: Recipe) -> list[keras.callbacks.Callback]:
    """Return Keras's callbacks for the schedules and stops that a recipe names."""
    callbacks: list[keras.callbacks.Callback] = []
    if recipe.reduce_learning_rate:
        plateau = recipe.reduce_learning_rate
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(monitor=plateau.monitor, factor=plateau.factor, patience=plateau.patience)
        )
    if recipe.early_stopping:
        stop = recipe.early_stopping
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=stop.monitor,
                patience=stop.patience,
                restore_best_weights=stop.restore_best_weights and recipe.reported_epoch == "recipe",
            )
        )
    if recipe.reported_epoch == "best":
        # With so much patience it never stops; at the end it brings the best weights back.
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor="val_accuracy", mode="max", patience=recipe.epochs, restore_best_weights=True
            )
        )
    return callbacks


def write_history(history: pd.DataFrame, path: Path) -> None:
    """Write `history.csv` with every digit, so that equal trainings give equal bytes."""
    write_text(path, history.to_csv(index=False))


def write_json(values: dict[str, Any], path: Path) -> None:
    """Write `run.json`."""
    write_text(path, json.dumps(values, indent=2) + "\n")


class _StopAtNaN(keras.callbacks.Callback):  # type: ignore[misc] # Keras publishes no types
    """Ends a training that has diverged, with a message instead of fifteen epochs of nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._check(logs, f"epoch {self._epoch}, batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._check(logs, f"epoch {self._epoch}")

    def _check(self, logs: dict[str, float] | None, where: str) -> None:
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                raise UserError(f"{name} is {value} in {where}: the training has diverged; lower its learning rate")


class _LearningRate(keras.callbacks.Callback):  # type: ignore[misc] # Keras publishes no types
    """Adds the learning rate that an epoch used to its figures, before a schedule changes it."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class _Clock(keras.callbacks.Callback):  # type: ignore[misc] # Keras publishes no types
    """Times the epochs: all of each, and its training part alone."""

    def __init__(self, images_per_epoch: int):
        super().__init__()
        self.images_per_epoch = images_per_epoch
        self.epoch_seconds: list[float] = []
        self._training_seconds: list[float] = []
        self._start = self._last_batch = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._start = self._last_batch = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._last_batch = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch_seconds.append(round(time.perf_counter() - self._start, 3))
        self._training_seconds.append(self._last_batch - self._start)

    @property
    def images_per_second(self) -> float:
        seconds = self._training_seconds[1:] or self._training_seconds
        return round(self.images_per_epoch / statistics.median(seconds), 1) if seconds else math.nan


class _Console(keras.callbacks.Callback):  # type: ignore[misc] # Keras publishes no types
    """A line per epoch, a bar on a terminal, and early on what the whole will take."""

    _WARM_UP_BATCHES = 3
    """The first batches compile the step, and say nothing of the next."""
    _SECONDS_BEFORE_ESTIMATE = 2.0

    def __init__(self, epochs: int, num_batches: int, clock: _Clock):
        super().__init__()
        self._epochs = epochs
        self._num_batches = num_batches
        self._clock = clock
        self._estimated = False
        self._warm = 0.0
        self._bar: Progress | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(f"epoch {epoch + 1}/{self._epochs}", total=self._num_batches)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self._bar:
            self._bar.advance(self._task)
        if self._estimated:
            return
        if batch + 1 == self._WARM_UP_BATCHES:
            self._warm = time.perf_counter()
        measured = batch + 1 - self._WARM_UP_BATCHES
        elapsed = time.perf_counter() - self._warm
        if measured > 0 and (elapsed > self._SECONDS_BEFORE_ESTIMATE or batch + 1 == self._num_batches):
            self._estimated = True
            epoch = elapsed / measured * self._num_batches
            self._say(
                f"expected: {_duration(epoch)} per epoch, {_duration(epoch * self._epochs)} for {self._epochs} "
                "epochs, validation not counted"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._close()
        figures = logs or {}
        self._say(
            f"epoch {epoch + 1:>2}/{self._epochs}  "
            f"accuracy {figures['accuracy']:6.2%}  val_accuracy {figures['val_accuracy']:6.2%}  "
            f"loss {figures['loss']:.4f}  val_loss {figures['val_loss']:.4f}  "
            f"learning_rate {figures['learning_rate']:.3g}  {_duration(self._clock.epoch_seconds[-1])}"
        )

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _say(self, line: str) -> None:
        if self._bar:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)  # noqa: T201 - the line per epoch is this callback's purpose


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
