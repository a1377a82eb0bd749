"""Train one model by its recipe. MLflow and DVC are reached through callbacks only."""

import gc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from tiny_imagenet.backend.devices import ALONE, BatchShare
from tiny_imagenet.common.files import require_free, write_text
from tiny_imagenet.config.recipe import PAPER_AUGMENTATION, Recipe
from tiny_imagenet.input_pipeline.augmentation import epoch_order
from tiny_imagenet.input_pipeline.batches import OrderedBatches, TrainingBatches, Untuned, hold_out
from tiny_imagenet.input_pipeline.packed import PackedDataset
from tiny_imagenet.training.build import build_model, compile_model
from tiny_imagenet.training.callbacks import (
    AveragedWeights,
    Clock,
    ConsoleLines,
    ExtraValidation,
    LearningRate,
    NormalizationStatistics,
    SeedEpoch,
    StopAtNaN,
    kept_epoch,
    schedules_and_stops,
)
from tiny_imagenet.training.checkpoint import Checkpoint, EpochRecorder
from tiny_imagenet.training.phases import Phase, phases

HISTORY_COLUMNS = ["epoch", "accuracy", "val_accuracy", "loss", "val_loss", "learning_rate"]


@dataclass(frozen=True)
class Trained:
    """A trained model and the record of its training."""

    model: keras.Model
    history: pd.DataFrame
    """A row per epoch: HISTORY_COLUMNS, further metrics of the recipe, and `phase` (1 or 2) if there are two."""
    epoch_seconds: list[float]
    """Wall time of each epoch, including validation."""
    images_per_second: float
    """Median over the epochs of the last phase, without validation. Its first epoch is omitted if it has more."""
    resumed_from: list[int]
    """The number of completed epochs at each resume."""
    best_epoch: int
    """The epoch, from 1, whose weights the model has."""


def train(
    recipe: Recipe,
    packed: PackedDataset,
    *,
    seed: int,
    weights_file: Path | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    share: BatchShare = ALONE,
) -> Trained:
    """Train a model by its recipe; return it with the weights of the epoch that the recipe keeps.

    `val_accuracy` is measured on the validation images as they are. `seed` is that of the order and the augmentation of
    images; `runtime.prepare` seeds weights and dropout. `checkpoint` saves each epoch, and resumes a stopped training.
    `callbacks` are called last, with all metrics, after the epoch is saved. `share` is from `devices.shared_by`: call
    this function inside its block.

    Raise UserError if the training has diverged, a class has too few images, the devices cannot share the batches, or
    the disk has too little space for the model.
    """
    images = _Images(recipe, packed, seed, share)
    batches = images.training()
    counts = {"training": batches.images_per_epoch, "validation": len(packed.val), "held-out": len(images.held_out)}
    share.check(recipe.batch_size, counts)
    ordered = _Callbacks(recipe, images, seed, len(batches), checkpoint, callbacks)
    recorder = ordered.recorder
    model = build_model(recipe, num_classes=packed.num_classes, weights_file=weights_file, steps_per_epoch=len(batches))
    require_free(Path.cwd(), _bytes_needed(model, checkpoint), f"saving {model.count_params():,} parameters")
    *first, last = phases(recipe)
    for phase in [*(phase for phase in first if phase.end_epoch > recorder.epochs_done), last]:
        if first:
            compile_model(model, recipe, phase, len(batches))
            gc.collect()  # frees the previous optimizer: it refers to itself, and has the moments of all weights
        _fit(model, phase, recipe, images, ordered)
    return Trained(
        model,
        _history_frame(recorder.history, last if first else None),
        ordered.clock.epoch_seconds,
        ordered.clock.images_per_second(batches.images_per_epoch, last.first_epoch),
        recorder.resumed_from,
        kept_epoch(ordered.schedules_and_stops, recorder.epochs_done),
    )


class _Images:
    """The images of a training in batches."""

    def __init__(self, recipe: Recipe, packed: PackedDataset, seed: int, share: BatchShare):
        self._recipe, self._packed, self._seed = recipe, packed, seed
        self._shared: dict[str, Any] = {
            "batch_size": recipe.batch_size,
            "num_classes": packed.num_classes if recipe.soft_labels else None,
            "share": share,
        }
        self._trained, self.held_out = hold_out(packed.train, recipe.holdout_per_class)

    def training(self, first_epoch: int = 0) -> TrainingBatches:
        return TrainingBatches(
            self._packed.train,
            augmentation=self._recipe.augmentation,
            seed=self._seed,
            batches_per_epoch=None if self._recipe.batches_per_epoch == "all" else self._recipe.batches_per_epoch,
            first_epoch=first_epoch,
            indices=self._trained,
            image_sizes=self._recipe.image_sizes,
            **self._shared,
        )

    def clean(self, number: int) -> OrderedBatches:
        """Return the first images of the first epoch's order, without augmentation, for each process all of them."""
        order = epoch_order(seed=self._seed, epoch=0, num_images=len(self._trained))
        return OrderedBatches(
            self._packed.train, batch_size=self._recipe.batch_size, indices=self._trained[order[:number]]
        )

    def validation(self) -> OrderedBatches:
        return OrderedBatches(self._packed.val, **self._shared)

    def extra_validations(self) -> list[ExtraValidation]:
        """Return a callback for each further set of images that is evaluated after each epoch."""
        extra = []
        if self._recipe.holdout_per_class:
            held_out = OrderedBatches(self._packed.train, indices=self.held_out, **self._shared)
            extra.append(ExtraValidation(held_out, {"accuracy": "holdout_accuracy", "loss": "holdout_loss"}))
        if self._recipe.paper_protocol_every_epoch:
            augmented = OrderedBatches(self._packed.val, augmentation=PAPER_AUGMENTATION, **self._shared)
            extra.append(ExtraValidation(augmented, {"accuracy": "val_accuracy_paper_protocol"}))
        return extra


class _Callbacks:
    """The callbacks of a training, and the order in which Keras calls them."""

    def __init__(
        self,
        recipe: Recipe,
        images: _Images,
        seed: int,
        num_batches: int,
        checkpoint: Checkpoint | None,
        further: Sequence[keras.callbacks.Callback],
    ):
        self._averages_weights = recipe.optimizer.ema_momentum is not None
        self._seed = seed
        clean = recipe.reestimate_batch_normalization
        self._statistics = [NormalizationStatistics(images.clean(clean))] if clean else []
        self._extra_validations = images.extra_validations()
        self.schedules_and_stops = schedules_and_stops(recipe)
        self.clock = Clock()
        self.recorder = EpochRecorder(checkpoint, [*self.schedules_and_stops, self.clock])
        self.lines = ConsoleLines(recipe.epochs, num_batches, self.clock, recipe.image_sizes)
        self._further = further

    def in_order(self, phase: Phase) -> list[keras.callbacks.Callback]:
        """Return the callbacks of a phase."""
        averages = AveragedWeights() if self._averages_weights else None
        self.recorder.begin_phase(phase.first_epoch, averages)
        return [
            *([SeedEpoch(self._seed)] if keras.backend.backend() == "torch" else []),  # before a random number is drawn
            *([averages] if averages else []),  # all callbacks below measure, keep and save the averages
            *self._statistics,  # of the averaged weights, before anything is measured
            LearningRate(),  # before a plateau changes it
            *self._extra_validations,  # before the stops, which may monitor their metrics
            *(self.schedules_and_stops if phase.is_last else []),
            *([averages.keep_on_stop()] if averages else []),  # after the stops, before the weights are saved
            self.clock,  # after all computation
            StopAtNaN(),  # after all callbacks that add metrics, before the epoch is saved
            self.recorder,  # after all callbacks whose state it saves
            self.lines,  # after the recorder: a printed epoch is saved
            *self._further,  # last, for the same reason
        ]


def _fit(model: keras.Model, phase: Phase, recipe: Recipe, images: _Images, callbacks: _Callbacks) -> None:
    """Train the remaining epochs of a phase; none if the resumed training had stopped early."""
    epochs_done = callbacks.recorder.epochs_done
    try:
        model.fit(
            Untuned(images.training(epochs_done)),
            validation_data=Untuned(images.validation()),
            initial_epoch=recipe.epochs if callbacks.recorder.is_complete else epochs_done,
            epochs=phase.end_epoch,
            verbose=0,
            callbacks=callbacks.in_order(phase),
        )
    finally:
        callbacks.lines.close()


def _history_frame(history: list[dict[str, float]], last_of_two: Phase | None) -> pd.DataFrame:
    """Return a row per epoch; if there are two phases, with a column `phase` (1 or 2)."""
    frame = pd.DataFrame({"epoch": range(1, len(history) + 1)}).join(pd.DataFrame(history))
    if last_of_two:
        frame["phase"] = 1 + (frame["epoch"] > last_of_two.first_epoch)
    return frame[[*HISTORY_COLUMNS, *(name for name in frame.columns if name not in HISTORY_COLUMNS)]]


def _bytes_needed(model: keras.Model, checkpoint: Checkpoint | None) -> int:
    """Return the number of bytes that training and saving will add to the disk.

    The model is written three times: by Keras, as model.keras with a fixed date, and by MLflow. A checkpoint has the
    weights, the best weights and the moments of the optimizer. Two exist while one is replaced.
    """
    weights: int = 4 * model.count_params()
    if checkpoint is None:
        return 3 * weights
    model.optimizer.build(model.trainable_variables)
    moments: int = sum(4 * math.prod(variable.shape) for variable in model.optimizer.variables)
    return 3 * weights + 2 * (2 * weights + moments) - checkpoint.bytes


def write_history(history: pd.DataFrame, path: Path) -> None:
    """Write `history.csv` with all digits, so that equal trainings give equal bytes."""
    write_text(path, history.to_csv(index=False))
