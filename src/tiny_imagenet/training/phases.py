"""The phases of a training, one or two: their epochs, trainable weights and learning rate.

The new head is trained first, because its first gradients are large and would destroy what the backbone has learnt
(Howard and Ruder 2018, https://arxiv.org/abs/1801.06146).
"""

from dataclasses import dataclass

import keras

from tiny_imagenet.backend.layers import batch_normalizations
from tiny_imagenet.config.recipe import LearningRateSchedule, Optimizer, Recipe


@dataclass(frozen=True)
class Phase:
    """Consecutive epochs with the same trainable weights and a new optimizer."""

    first_epoch: int
    """Counted from 0, as Keras does."""
    end_epoch: int
    """One past its last epoch."""
    optimizer: Optimizer
    schedule: LearningRateSchedule | None
    is_last: bool
    """Only the last phase reduces its learning rate on a plateau, stops early and chooses the best epoch."""


def phases(recipe: Recipe) -> list[Phase]:
    """Return the phases of a training: one, or with `fine_tuning` two: the head, then the whole model."""
    tuning, optimizer, schedule = recipe.fine_tuning, recipe.optimizer, recipe.learning_rate_schedule
    if tuning is None:
        return [Phase(0, recipe.epochs, optimizer, schedule, True)]
    slower = optimizer.model_copy(update={"learning_rate": tuning.learning_rate})
    return [
        Phase(0, tuning.head_epochs, optimizer, None, False),
        Phase(tuning.head_epochs, recipe.epochs, slower, schedule, True),
    ]


def set_trainable(model: keras.Model, recipe: Recipe, phase: Phase) -> None:
    """Freeze the weights that a phase does not train. Compile the model afterwards.

    Frozen batch normalization uses its moving averages and does not update them. The backbone is the model inside the
    model; a model without a backbone is not changed.
    """
    backbone = next((layer for layer in model.layers if isinstance(layer, keras.Model)), None)
    if backbone is None:
        return
    backbone.trainable = phase.is_last and recipe.trainable == "all"
    tuning = recipe.fine_tuning
    if tuning is None or not backbone.trainable:
        return
    for layer in backbone.layers[: round(len(backbone.layers) * (1 - tuning.backbone_share))]:
        layer.trainable = False
    if tuning.batch_normalization == "frozen":
        for layer in batch_normalizations(backbone):
            layer.trainable = False
