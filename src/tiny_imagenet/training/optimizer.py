"""Make the optimizer of a phase, with its learning-rate schedule."""

from typing import Any

import keras

from tiny_imagenet.config.recipe import LearningRateSchedule
from tiny_imagenet.training.phases import Phase

_OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
    "rmsprop": keras.optimizers.RMSprop,
}


def make_optimizer(phase: Phase, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Return a new optimizer for a phase; `steps_per_epoch` converts the epochs of its schedule to steps."""
    settings = phase.optimizer
    learning_rate = _cosine_decay(phase, phase.schedule, steps_per_epoch) if phase.schedule else settings.learning_rate
    options: dict[str, Any] = {"learning_rate": learning_rate, "global_clipnorm": settings.clip_norm}
    if settings.weight_decay is not None:
        options["weight_decay"] = settings.weight_decay
    if settings.ema_momentum is not None:
        options |= {"use_ema": True, "ema_momentum": settings.ema_momentum}
    if settings.name == "sgd":
        options |= {"momentum": settings.momentum or 0.0, "nesterov": settings.nesterov}
    optimizer = _OPTIMIZERS[settings.name](**options)
    # The layer scales of ConvNeXt have no names of their own; Keras calls them "variable", "variable_1" and so on.
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma", "^variable"])
    return optimizer


def _cosine_decay(
    phase: Phase, schedule: LearningRateSchedule, steps_per_epoch: int
) -> keras.optimizers.schedules.CosineDecay:
    learning_rate = phase.optimizer.learning_rate
    steps = (phase.end_epoch - phase.first_epoch) * steps_per_epoch
    warmup_steps = min(round(schedule.warmup_epochs * steps_per_epoch), steps - 1)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else learning_rate,
        decay_steps=steps - warmup_steps,
        alpha=1.0 if schedule.decay == "none" else schedule.final_fraction,
        warmup_target=learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )
