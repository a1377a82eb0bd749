"""Callbacks, called with the metrics of a few epochs. No test trains a model."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from standin import small_recipe

from tiny_imagenet.common.errors import UserError

EPOCHS = [
    {"accuracy": 0.1, "val_accuracy": 0.1, "loss": 4.0, "val_loss": 4.0},
    {"accuracy": 0.2, "val_accuracy": 0.5, "loss": 3.0, "val_loss": 2.0},
    {"accuracy": 0.4, "val_accuracy": 0.5, "loss": 1.0, "val_loss": 2.0},
    {"accuracy": 0.3, "val_accuracy": 0.4, "loss": 2.0, "val_loss": 3.0},
]


def stopping(**changes: Any) -> dict[str, Any]:
    return {"early_stopping": {"patience": 3, "restore_best_weights": True} | changes}


def follow(changes: dict[str, Any], *, first_epoch: int = 0) -> tuple[int, int, int]:
    """Return the number of epochs, the epoch whose weights are kept, and the recorded epoch."""
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
def test_with_two_phases_the_kept_epoch_is_one_of_the_second(keras, changes, kept):
    assert follow(changes, first_epoch=2) == (4, kept, kept)


# Loss of five epochs in which the two sets of images disagree: the best epoch is 3 on held-out images, 5 on validation.
HOLDOUT, VALIDATION = [0.5, 0.4, 0.3, 0.6, 0.7], [0.2, 0.9, 0.8, 0.1, 0.05]


@pytest.mark.parametrize(("holdout_per_class", "watched"), [(8, HOLDOUT), (0, VALIDATION)])
@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_stops_schedules_and_the_kept_epoch_monitor_held_out_images_if_there_are_any(
    keras, quantity, holdout_per_class, watched
):
    """Call Keras's callbacks with the metrics of five epochs. The only weight is the number of the epoch."""
    from tiny_imagenet.training.callbacks import kept_epoch, schedules_and_stops

    monitor = f"val_{quantity}"
    recipe = small_recipe(
        holdout_per_class=holdout_per_class,
        early_stopping={"monitor": monitor, "patience": 9, "restore_best_weights": True},
        reduce_learning_rate={"monitor": monitor, "factor": 0.5, "patience": 1},
    )
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(1.0), "mse")
    callbacks = schedules_and_stops(recipe)
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    rates = []
    for epoch, (holdout, validation) in enumerate(zip(HOLDOUT, VALIDATION, strict=True)):
        model.layers[0].kernel.assign([[epoch + 1.0]])
        logs = {"holdout_loss": holdout, "holdout_accuracy": 1 - holdout, "val_loss": validation,
                "val_accuracy": 1 - validation, "loss": 1.0, "accuracy": 0.1}  # fmt: skip
        for callback in callbacks:
            callback.on_epoch_end(epoch, logs)
        rates.append(float(model.optimizer.learning_rate))
    for callback in callbacks:
        callback.on_train_end()
    best = int(np.argmin(watched)) + 1
    assert kept_epoch(callbacks, 5) == best == {8: 3, 0: 5}[holdout_per_class]
    assert model.get_weights()[0].item() == best
    # Patience 1: each epoch without an improvement halves the learning rate.
    lows = np.minimum.accumulate(watched)
    improved = [True, *(lows[1:] < lows[:-1])]
    np.testing.assert_allclose(rates, 0.5 ** np.cumsum(np.logical_not(improved)))


def test_random_numbers_of_an_epoch_depend_only_on_seed_and_epoch(keras):
    from tiny_imagenet.training.callbacks import SeedEpoch

    def drawn(seed: int, epoch: int) -> float:
        keras.utils.set_random_seed(99)
        SeedEpoch(seed).on_epoch_begin(epoch)
        return float(np.random.random())  # noqa: NPY002 - this is the generator that is seeded

    assert drawn(1, 2) == drawn(1, 2)
    assert len({drawn(1, 2), drawn(1, 3), drawn(2, 2)}) == 3


def test_weights_that_are_not_finite_are_named_even_if_the_loss_is_finite(keras):
    """Some kernels of oneDNN turn NaN into 0, so that the loss is finite."""
    from tiny_imagenet.training.callbacks import StopAtNaN

    callback = StopAtNaN()
    callback.set_model(keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, "relu", name="hidden")]))
    callback.on_epoch_begin(1)
    callback.on_epoch_end(1, {"loss": 1.1})
    with pytest.raises(UserError, match=r"^val_loss is nan in epoch 2: .*lower `learning_rate`"):
        callback.on_epoch_end(1, {"loss": 1.1, "val_loss": float("nan")})
    callback.model.layers[0].kernel.assign(np.full((3, 4), np.inf))
    with pytest.raises(UserError, match=r"hidden/kernel has NaN or infinite values after epoch 2: .* diverged"):
        callback.on_epoch_end(1, {"loss": 1.1})


class TestConsoleLines:
    """What a training prints. Each batch takes half a second, and the time is made up."""

    NUM_BATCHES = 100

    @pytest.fixture
    def printed(self, keras, monkeypatch, capsys):
        """Return a function that runs some epochs and returns the lines."""
        from tiny_imagenet.training import callbacks

        now = 0.0
        monkeypatch.setattr(callbacks, "time", SimpleNamespace(perf_counter=lambda: now))

        def run(epochs: range, *, batches: int = self.NUM_BATCHES, image_sizes: tuple[int, ...] = ()) -> list[str]:
            nonlocal now
            clock = callbacks.Clock()
            lines = callbacks.ConsoleLines(epochs.stop, batches, clock, image_sizes)
            lines.set_params({"epochs": epochs.stop})
            lines.on_train_begin()
            for epoch in epochs:
                for callback in (clock, lines):
                    callback.on_epoch_begin(epoch)
                for batch in range(batches):
                    now += 0.5
                    for callback in (clock, lines):
                        callback.on_train_batch_end(batch)
                now += 60  # validation
                for callback in (clock, lines):
                    callback.on_epoch_end(epoch, EPOCHS[epoch] | {"learning_rate": 0.00012345})
            return capsys.readouterr().out.splitlines()

        return run

    def test_an_epoch_is_a_line_with_its_metrics_and_its_time(self, printed):
        assert printed(range(2))[1:] == [
            "epoch  1/2  accuracy 10.00%  val_accuracy 10.00%  loss 4.0000  val_loss 4.0000  learning_rate 0.000123  "
            "1 min 50 s",
            "epoch  2/2  accuracy 20.00%  val_accuracy 50.00%  loss 3.0000  val_loss 2.0000  learning_rate 0.000123  "
            "1 min 50 s",
        ]

    @pytest.mark.parametrize(
        ("epochs", "image_sizes", "expected"),
        [
            (range(4), (), "50.0 s per epoch, 3 min 20 s for 4 epochs"),
            (range(1, 4), (), "50.0 s per epoch, 2 min 30 s for 3 epochs"),  # resumed
            (range(4), (32, 32), "50.0 s per epoch, 8 min 20 s for 4 epochs"),  # 64 pixels take four times as long
            (range(1, 4), (32, 32), "50.0 s per epoch, 7 min 30 s for 3 epochs"),
        ],
    )
    def test_the_expected_time_is_that_of_the_epochs_to_come(self, epochs, image_sizes, expected, printed):
        lines = printed(epochs, image_sizes=image_sizes)
        assert lines[0] == f"expected: {expected}, validation not counted"
        assert [line.split()[0] for line in lines[1:]] == ["epoch"] * len(epochs)

    @pytest.mark.parametrize("batches", [1, 2, 3])
    def test_no_time_is_expected_of_the_first_three_batches_alone(self, batches, printed):
        assert [line.split()[0] for line in printed(range(2), batches=batches)] == ["epoch", "epoch"]

    @pytest.mark.parametrize("batches", [4, 7])
    def test_a_short_epoch_has_its_expected_time_after_the_last_batch(self, batches, printed):
        assert printed(range(1), batches=batches)[0].startswith(f"expected: {batches / 2:.1f} s per epoch, ")

    def test_a_long_duration_has_hours(self, printed):
        (line, *_) = printed(range(4), batches=10_000)
        assert line == "expected: 1 h 23 min per epoch, 5 h 33 min for 4 epochs, validation not counted"


@pytest.mark.parametrize(("seconds", "speed"), [([9, 2, 4], 25), ([8], 12.5), ([], float("nan"))])
def test_the_speed_is_the_median_of_the_epochs_after_the_first(seconds, speed, keras):
    from tiny_imagenet.training.callbacks import Clock

    clock = Clock()
    clock.training_seconds = seconds
    assert clock.images_per_second(75 if len(seconds) > 1 else 100) == pytest.approx(speed, nan_ok=True)
