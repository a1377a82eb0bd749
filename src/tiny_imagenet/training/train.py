"""Compile and fit one model by its recipe. Knows nothing of MLflow or DVC: it takes callbacks."""

import gc
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from tiny_imagenet.backend import runtime
from tiny_imagenet.backend.devices import ALONE, Share
from tiny_imagenet.common.files import require_free, write_text
from tiny_imagenet.config.recipe import PAPER_AUGMENTATION, Recipe
from tiny_imagenet.input_pipeline.batches import OrderedBatches, TrainingBatches, Untuned, hold_out
from tiny_imagenet.input_pipeline.packed import SIDE, PackedDataset
from tiny_imagenet.models.registry import build_classifier
from tiny_imagenet.training.callbacks import (
    AveragedWeights,
    Clock,
    ConsoleLines,
    ExtraValidation,
    LearningRate,
    SeedEpoch,
    StopAtNaN,
    kept_epoch,
    schedules_and_stops,
)
from tiny_imagenet.training.checkpoint import Checkpoint, KeepHistory
from tiny_imagenet.training.phases import Phase, phases, set_trainable

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
    """A row per epoch, columns HISTORY_COLUMNS, then what the recipe asks for; of two phases also `phase`, 1 or 2."""
    epoch_seconds: list[float]
    """Wall time of each epoch, validation included."""
    images_per_second: float
    """Median over the epochs of the last phase, validation not counted, and not its first where there are more."""
    resumed_from: list[int]
    """After how many epochs it was resumed, each time that it had been stopped."""
    best_epoch: int
    """The epoch, from 1, whose weights the model has."""


def build_model(
    recipe: Recipe, *, num_classes: int, weights_file: Path | None, steps_per_epoch: int = 1
) -> keras.Model:
    """Return the model of a recipe, compiled for its last phase.

    Args:
        recipe: architecture, precision, optimizer, loss.
        num_classes: how many probabilities come out.
        weights_file: pretrained weights for the backbone, where the recipe has any.
        steps_per_epoch: what turns the epochs of a learning-rate schedule into steps.
    """
    ours = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        model = build_classifier(
            recipe.architecture,
            input_shape=(SIDE, SIDE, 3),
            num_classes=num_classes,
            preprocessing=recipe.preprocessing,
            weights=str(weights_file) if weights_file else None,
            batch_normalization_momentum=recipe.batch_normalization_momentum,
            **recipe.build,
        )
    finally:
        keras.config.set_dtype_policy(ours)
    _compile(model, recipe, phases(recipe)[-1], steps_per_epoch)
    return model


def _compile(model: keras.Model, recipe: Recipe, phase: Phase, steps_per_epoch: int) -> None:
    set_trainable(model, recipe, phase)
    loss = (
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
        if recipe.soft_labels
        else keras.losses.SparseCategoricalCrossentropy()
    )
    model.compile(
        optimizer=_optimizer(phase, steps_per_epoch),
        loss=loss,
        metrics=["accuracy"],
        jit_compile=runtime.jit_compile(),
    )
    runtime.use_fast_kernels(model)


def _optimizer(phase: Phase, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    chosen, schedule = phase.optimizer, phase.schedule
    options: dict[str, Any] = {"learning_rate": chosen.learning_rate, "global_clipnorm": chosen.clip_norm}
    if schedule:
        steps = (phase.end_epoch - phase.first_epoch) * steps_per_epoch
        warmup_steps = min(round(schedule.warmup_epochs * steps_per_epoch), steps - 1)
        options["learning_rate"] = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=0.0 if warmup_steps else chosen.learning_rate,
            decay_steps=steps - warmup_steps,
            alpha=1.0 if schedule.decay == "none" else schedule.final_fraction,
            warmup_target=chosen.learning_rate if warmup_steps else None,
            warmup_steps=warmup_steps,
        )
    if chosen.weight_decay is not None:
        options["weight_decay"] = chosen.weight_decay
    if chosen.ema_momentum is not None:
        options |= {"use_ema": True, "ema_momentum": chosen.ema_momentum}
    if chosen.name == "sgd":
        options |= {"momentum": chosen.momentum or 0.0, "nesterov": chosen.nesterov}
    optimizer = _OPTIMIZERS[chosen.name](**options)
    # ConvNeXt's layer scales have no name of their own: Keras calls them "variable", "variable_1" and so on.
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma", "^variable"])
    return optimizer


def train(
    recipe: Recipe,
    packed: PackedDataset,
    *,
    seed: int,
    weights_file: Path | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    share: Share = ALONE,
) -> Trained:
    """Train a model by its recipe and return it with the weights that the recipe keeps.

    Args:
        recipe: architecture, optimizer, epochs and the rest, as `Params.recipe` gives it.
        packed: training and validation images; `val_accuracy` of each epoch is on clean validation images.
        seed: of the order of images and of their augmentation. `runtime.prepare` seeds weights and dropout.
        weights_file: pretrained weights for the backbone.
        checkpoint: where every epoch is saved, and from where a stopped training goes on; None: neither.
        callbacks: called last, so that they see all of an epoch's figures, after it has been saved.
        share: what `devices.shared_by` gives, in whose block this is then called.

    Raises:
        UserError: the training has diverged, a class has too few images, the devices cannot share the batches, or the
            disk is too small for the model.
    """
    one_hot = packed.num_classes if recipe.soft_labels else None
    training_indices, held_out = hold_out(packed.train.labels, recipe.holdout_per_class)
    clock = Clock()
    acting: list[keras.callbacks.Callback] = []
    averaged = AveragedWeights() if recipe.optimizer.ema_momentum else None
    if averaged:
        acting.append(averaged)
    acting.append(LearningRate())
    if recipe.holdout_per_class:
        kept_aside = OrderedBatches(
            packed.train, batch_size=recipe.batch_size, indices=held_out, num_classes=one_hot, share=share
        )
        acting.append(ExtraValidation(kept_aside, {"accuracy": "holdout_accuracy", "loss": "holdout_loss"}))
    if recipe.paper_protocol_every_epoch:
        augmented = OrderedBatches(
            packed.val,
            batch_size=recipe.batch_size,
            augmentation=PAPER_AUGMENTATION,
            num_classes=one_hot,
            share=share,
        )
        acting.append(ExtraValidation(augmented, {"accuracy": "val_accuracy_paper_protocol"}))
    of_last_phase = schedules_and_stops(recipe)
    acting += of_last_phase
    if averaged:
        acting.append(averaged.settle_on_stop())
    acting.append(clock)
    keeper = KeepHistory(checkpoint, acting)

    def batches_from(epoch: int) -> TrainingBatches:
        return TrainingBatches(
            packed.train,
            batch_size=recipe.batch_size,
            augmentation=recipe.augmentation,
            seed=seed,
            batches_per_epoch=None if recipe.batches_per_epoch == "all" else recipe.batches_per_epoch,
            first_epoch=epoch,
            num_classes=one_hot,
            indices=training_indices,
            share=share,
        )

    batches = batches_from(keeper.epochs_done)
    visited = {"training": batches.images_per_epoch, "validation": len(packed.val), "held-out": len(held_out)}
    share.check(recipe.batch_size, visited)
    model = build_model(recipe, num_classes=packed.num_classes, weights_file=weights_file, steps_per_epoch=len(batches))
    require_free(Path.cwd(), _bytes_needed(model, checkpoint), f"saving {model.count_params():,} parameters")
    lines = ConsoleLines(recipe.epochs, len(batches), clock)
    *first, last = phases(recipe)
    for phase in [*(phase for phase in first if phase.end_epoch > keeper.epochs_done), last]:
        if first:
            _compile(model, recipe, phase, len(batches))
            gc.collect()  # the optimizer before has the moments of all weights, and refers to itself
            keeper.phase_begins = phase.first_epoch
        taking_part = acting if phase.is_last else [each for each in acting if each not in of_last_phase]
        try:
            model.fit(
                Untuned(batches_from(keeper.epochs_done)),
                validation_data=Untuned(
                    OrderedBatches(packed.val, batch_size=recipe.batch_size, num_classes=one_hot, share=share)
                ),
                initial_epoch=recipe.epochs if keeper.is_complete else keeper.epochs_done,
                epochs=phase.end_epoch,
                shuffle=False,
                verbose=0,
                callbacks=[SeedEpoch(seed), *taking_part, StopAtNaN(), keeper, lines, *callbacks],
            )
        finally:
            lines.close()
    frame = pd.DataFrame({"epoch": range(1, keeper.epochs_done + 1)}).join(pd.DataFrame(keeper.history))
    if first:
        frame["phase"] = 1 + (frame["epoch"] > last.first_epoch)
    extra = [name for name in frame.columns if name not in HISTORY_COLUMNS]
    return Trained(
        model,
        frame[[*HISTORY_COLUMNS, *extra]],
        clock.epoch_seconds,
        clock.images_per_second(batches.images_per_epoch, last.first_epoch),
        keeper.resumed_from,
        kept_epoch(of_last_phase, keeper.epochs_done),
    )


def _bytes_needed(model: keras.Model, checkpoint: Checkpoint | None) -> int:
    """Return what training and saving will write beyond what is there.

    The model is written thrice: by Keras, as model.keras with a fixed date, and by MLflow. A checkpoint holds weights,
    best weights and the optimizer's moments, and the next one is written before the last goes.
    """
    weights: int = 4 * model.count_params()
    if checkpoint is None:
        return 3 * weights
    model.optimizer.build(model.trainable_variables)
    moments: int = sum(4 * math.prod(variable.shape) for variable in model.optimizer.variables)
    return 3 * weights + 2 * (2 * weights + moments) - checkpoint.bytes


def write_history(history: pd.DataFrame, path: Path) -> None:
    """Write `history.csv` with every digit, so that equal trainings give equal bytes."""
    write_text(path, history.to_csv(index=False))


def write_json(values: dict[str, Any], path: Path) -> None:
    """Write `run.json`."""
    write_text(path, json.dumps(values, indent=2) + "\n")
