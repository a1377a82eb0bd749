"""Which epoch's weights the callbacks of a recipe keep, epoch by epoch, without a training."""

from types import SimpleNamespace
from typing import Any

import pytest
from standin import small_recipe

EPOCHS = [
    {"accuracy": 0.1, "val_accuracy": 0.1, "loss": 4.0, "val_loss": 4.0},
    {"accuracy": 0.2, "val_accuracy": 0.5, "loss": 3.0, "val_loss": 2.0},
    {"accuracy": 0.4, "val_accuracy": 0.5, "loss": 1.0, "val_loss": 2.0},
    {"accuracy": 0.3, "val_accuracy": 0.4, "loss": 2.0, "val_loss": 3.0},
]


def stopping(**changes: Any) -> dict[str, Any]:
    return {"early_stopping": {"patience": 3, "restore_best_weights": True} | changes}


def follow(changes: dict[str, Any], *, first_epoch: int = 0) -> tuple[int, int, int]:
    """Return how many epochs run, the epoch whose weights are kept at the end, and the epoch that is recorded."""
    from tiny_imagenet.training.callbacks import kept_epoch, schedules_and_stops

    epoch = 0
    model = SimpleNamespace(
        stop_training=False,
        weights=None,
        get_weights=lambda: epoch + 1,
        set_weights=lambda weights: setattr(model, "weights", weights),
        optimizer=SimpleNamespace(learning_rate=0.1),
    )
    callbacks = schedules_and_stops(small_recipe(epochs=len(EPOCHS), **changes))
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    for epoch in range(first_epoch, len(EPOCHS)):
        for callback in callbacks:
            callback.on_epoch_end(epoch, dict(EPOCHS[epoch]))
        if model.stop_training:
            break
    for callback in callbacks:
        callback.on_train_end()
    return epoch + 1, model.weights or epoch + 1, kept_epoch(callbacks, epoch + 1)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, 4),
        ({"reported_epoch": "last"}, 4),
        ({"reported_epoch": "best"}, 2),  # the first of two equal epochs
        (stopping(), 2),
        (stopping(monitor="loss"), 3),
        (stopping(monitor="accuracy"), 3),
        (stopping(monitor="val_accuracy"), 2),
        (stopping(restore_best_weights=False), 4),
        (stopping(restore_best_weights=False) | {"reported_epoch": "last"}, 4),
        (stopping(monitor="loss") | {"reported_epoch": "best"}, 2),
    ],
)
def test_the_recorded_epoch_is_the_one_whose_weights_the_recipe_keeps(keras, changes, kept):
    assert follow(changes) == (4, kept, kept)


@pytest.mark.parametrize(
    ("changes", "epochs", "kept"),
    [
        (stopping(patience=1), 3, 2),
        (stopping(patience=1, restore_best_weights=False), 3, 3),
        (stopping(patience=1, monitor="val_accuracy") | {"reported_epoch": "best"}, 3, 2),
    ],
)
def test_after_an_early_stop_the_recorded_epoch_is_the_restored_or_the_last(keras, changes, epochs, kept):
    assert follow(changes) == (epochs, kept, kept)


@pytest.mark.parametrize(
    ("changes", "kept"),
    [({}, 4), (stopping(), 3), (stopping(monitor="val_accuracy"), 3), ({"reported_epoch": "best"}, 3)],
)
def test_of_two_phases_it_is_an_epoch_of_the_second(keras, changes, kept):
    assert follow(changes, first_epoch=2) == (4, kept, kept)
