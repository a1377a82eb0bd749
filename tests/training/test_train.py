"""Real trainings of a small stand-in on the digits, a second each, and two in fresh processes."""

import math
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from standin import packed_digits, small_recipe

from tiny_imagenet.backend import runtime
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.recipe import PAPER_AUGMENTATION, PRESETS, Optimizer
from tiny_imagenet.input_pipeline.augmentation import epoch_order

ROOT = Path(__file__).parents[2]
COLUMNS = ["epoch", "accuracy", "val_accuracy", "loss", "val_loss", "learning_rate"]
CHANCE = 0.1
NO_STEP = {"name": "sgd", "learning_rate": 1e-12}
"""So small a step that no weight changes: nothing ever improves."""


@pytest.fixture(scope="module")
def packed():
    return packed_digits()


@pytest.fixture(scope="module")
def train(keras, packed):
    """Train a small recipe with some values changed."""
    from tiny_imagenet.training import train as training

    def train_small(*, callbacks: Any = (), **changes: Any) -> Any:
        keras.utils.set_random_seed(1)
        return training.train(small_recipe(**changes), packed, seed=1, callbacks=callbacks)

    return train_small


@pytest.fixture(scope="module")
def witness(keras):
    """Return a callback that writes down the figures of each epoch, the learning rate before it, and the batches."""

    class Witness(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.epochs: list[int] = []
            self.figures: list[dict[str, float]] = []
            self.rates: list[float] = []
            self.batches: list[int] = []

        def on_epoch_begin(self, epoch, logs=None):
            self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))
            self.batches.append(0)

        def on_train_batch_end(self, batch, logs=None):
            self.batches[-1] += 1

        def on_epoch_end(self, epoch, logs=None):
            self.epochs.append(epoch)
            self.figures.append(dict(logs))

    return Witness


@pytest.fixture(scope="module")
def observed(train, witness):
    """Return what four epochs gave, a witness of them, and what was printed."""
    seen, printed = witness(), StringIO()
    with redirect_stdout(printed):
        result = train(callbacks=[seen])
    return result, seen, printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def trained(observed):
    return observed[:2]


@pytest.fixture(scope="module")
def rich(train, witness):
    """Return two epochs of a recipe that measures all that can be measured, a witness, and how each pass was loaded."""
    seen = witness()
    with pytest.MonkeyPatch.context() as patch:
        tuned = watch_loading(patch)
        result = train(
            callbacks=[seen], epochs=2, augmentation=PAPER_AUGMENTATION, label_smoothing=0.2, batches_per_epoch=3,
            holdout_per_class=5, paper_protocol_every_epoch=True,
        )  # fmt: skip
    return result, seen, tuned


def watch_loading(patch: pytest.MonkeyPatch) -> list[bool]:
    """Return the list to which each pass over a tf.data pipeline adds whether TensorFlow's tuner is on."""
    tuned: list[bool] = []
    if os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow":
        import tensorflow

        begin = tensorflow.data.Dataset.__iter__

        def watching(dataset: Any) -> Any:
            tuned.append(dataset.options().autotune.enabled)
            return begin(dataset)

        patch.setattr(tensorflow.data.Dataset, "__iter__", watching)
    return tuned


def spoil(keras: Any, epoch: int) -> Any:
    """Return a callback that ruins the weights as an epoch begins, so that this and later epochs are not the best."""

    def ruin(now: int, logs: Any = None) -> None:
        if now + 1 == epoch:
            callback.model.set_weights([-50 * weight for weight in callback.model.get_weights()])

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=ruin)
    return callback


def val_accuracy(model: Any, packed: Any) -> float:
    return float((model.predict_on_batch(packed.val.images).argmax(1) == packed.val.labels).mean())


def test_it_learns(trained):
    history = trained[0].history
    assert history["val_accuracy"].iloc[-1] > 5 * CHANCE
    assert history["accuracy"].iloc[-1] > history["accuracy"].iloc[0]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0] <= 1.5 * math.log(10)


def test_history_has_a_row_per_epoch_and_exactly_its_columns(trained):
    history = trained[0].history
    assert list(history.columns) == COLUMNS
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert history.notna().all(axis=None)


def test_history_on_disk_keeps_every_digit_and_has_unix_line_ends(trained, tmp_path):
    from tiny_imagenet.training import train as training

    history = trained[0].history
    training.write_history(history, tmp_path / "history.csv")
    read = pd.read_csv(tmp_path / "history.csv", dtype=str).map(float)  # Python's own reading, exact to the last bit
    assert read.to_numpy().tolist() == history.to_numpy().tolist()
    written = (tmp_path / "history.csv").read_bytes()
    assert written.startswith(b"epoch,accuracy,val_accuracy,loss,val_loss,learning_rate\n")
    assert b"\r" not in written


def test_callbacks_see_all_figures_of_each_epoch(trained):
    result, seen = trained
    assert seen.epochs == [0, 1, 2, 3]
    frame = pd.DataFrame(seen.figures)[COLUMNS[1:]]
    pd.testing.assert_frame_equal(frame, result.history[COLUMNS[1:]])


def test_every_image_is_visited_in_every_epoch(trained):
    assert trained[1].batches == [10, 10, 10, 10]  # 200 images in batches of 20


def test_the_last_batch_may_be_smaller_and_more_batches_than_there_are_means_all(train, witness):
    seen = witness()
    train(callbacks=[seen], epochs=1, batch_size=64, batches_per_epoch=1000)
    assert seen.batches == [4]


def test_validation_figures_are_of_the_clean_validation_images_with_the_losss_label_smoothing(keras, packed, rich):
    result = rich[0]
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    shares = np.eye(10, dtype=np.float32)[packed.val.labels]
    expected = float(loss(shares, result.model.predict_on_batch(packed.val.images)))
    assert result.history["val_loss"].iloc[-1] == pytest.approx(expected, rel=1e-4)
    assert result.history["val_accuracy"].iloc[-1] == pytest.approx(val_accuracy(result.model, packed))


def test_the_loss_has_the_penalty_in_it(train):
    build = {"filters": [4, 4], "dense_units": 16, "l2": 100.0}
    history = train(epochs=1, optimizer=NO_STEP, build=build).history.iloc[0]
    assert history["loss"] > 10 * math.log(10)
    assert history["val_loss"] > 10 * math.log(10)


def test_an_epoch_may_be_limited_to_some_batches(rich):
    result, seen, _ = rich
    assert seen.batches == [3, 3]
    assert len(result.history) == 2


def test_every_epoch_is_timed(trained):
    result = trained[0]
    assert len(result.epoch_seconds) == 4
    assert all(seconds > 0 for seconds in result.epoch_seconds)
    assert result.images_per_second > 200 / max(result.epoch_seconds)


def test_a_line_per_epoch_is_printed_and_once_what_the_whole_will_take(observed):
    lines = observed[2]
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/4", "2/4", "3/4", "4/4"]
    assert all("val_accuracy" in line and "learning_rate" in line for line in epochs)
    assert sum(line.startswith("expected: ") for line in lines) == 1


@pytest.mark.parametrize("name", get_args(Optimizer.model_fields["name"].annotation))
def test_every_optimizer_that_params_may_name_is_keras_own(name, keras):
    from tiny_imagenet.training.build import build_model

    recipe = small_recipe(optimizer={"name": name, "learning_rate": 0.25})
    model = build_model(recipe, num_classes=10, weights_file=None)
    assert type(model.optimizer) is type(keras.optimizers.get(name))
    assert float(model.optimizer.learning_rate) == 0.25


def test_the_batch_normalization_momentum_of_the_recipe_is_the_models(keras):
    from tiny_imagenet.training.build import build_model

    recipe = small_recipe(
        architecture="deep_conv_dropout", build={"filters": [2], "dense_units": 2}, batch_normalization_momentum=0.25
    )
    model = build_model(recipe, num_classes=10, weights_file=None)
    assert {layer.momentum for layer in model.layers if hasattr(layer, "momentum")} == {0.25}


# --- schedules and stops ---


def test_on_a_plateau_the_learning_rate_falls_as_in_keras(train, witness):
    seen = witness()
    plateau = {"monitor": "val_accuracy", "factor": 0.5, "patience": 2}
    result = train(callbacks=[seen], epochs=6, optimizer=NO_STEP, reduce_learning_rate=plateau)
    # Epoch 1 sets the mark; 2 and 3 do not pass it, so 4 has half; 4 and 5 do not either, so 6 has a quarter.
    expected = np.array([1, 1, 1, 0.5, 0.5, 0.25]) * 1e-12
    np.testing.assert_allclose(result.history["learning_rate"], expected, rtol=1e-6)
    assert result.history["learning_rate"].tolist() == seen.rates


def test_without_a_schedule_the_learning_rate_stays(trained):
    result, seen = trained
    assert set(result.history["learning_rate"]) == {np.float32(0.01)}
    assert seen.rates == result.history["learning_rate"].tolist()


def test_training_stops_after_so_many_epochs_without_improvement_as_in_keras(train):
    stop = {"monitor": "val_accuracy", "patience": 3, "restore_best_weights": False}
    assert len(train(epochs=6, optimizer=NO_STEP, early_stopping=stop).history) == 4  # epoch 1 sets the mark


def test_training_goes_on_while_it_improves(train):
    stop = {"monitor": "loss", "patience": 0, "restore_best_weights": True}
    assert len(train(epochs=3, early_stopping=stop).history) == 3


# --- which figure is watched ---

# Five epochs in which the two sets of images disagree: held-out images improve until the third epoch, validation images
# until the first, and then from the third on.
HOLDOUT, VALIDATION = [0.5, 0.4, 0.3, 0.6, 0.7], [0.2, 0.9, 0.8, 0.1, 0.05]


@pytest.mark.parametrize(("holdout_per_class", "watched"), [(8, HOLDOUT), (0, VALIDATION)])
@pytest.mark.parametrize("quantity", ["loss", "accuracy"])
def test_stops_schedules_and_the_kept_epoch_watch_held_out_images_where_there_are_any(
    keras, quantity, holdout_per_class, watched
):
    """Keras's own callbacks, given the metrics of five epochs and weights that tell the epoch; nothing is trained."""
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
    # An epoch without an improvement halves the rate; patience 1 means that one is enough.
    lows = np.minimum.accumulate(watched)
    improved = [True, *(lows[1:] < lows[:-1])]
    np.testing.assert_allclose(rates, 0.5 ** np.cumsum(np.logical_not(improved)))


# --- which epoch's weights are kept ---

RESTORE = {"monitor": "val_loss", "patience": 9, "restore_best_weights": True}
KEEP = RESTORE | {"restore_best_weights": False}


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        pytest.param({}, True, id="no early stopping"),
        pytest.param({"reported_epoch": "last", "early_stopping": KEEP}, True, id="last, early stopping"),
        pytest.param({"early_stopping": RESTORE}, False, id="best loss restored"),
        pytest.param(
            {"early_stopping": RESTORE | {"monitor": "val_accuracy"}}, False, id="best validation accuracy restored"
        ),
        pytest.param({"early_stopping": RESTORE | {"patience": 1}}, False, id="stopped before the end"),
        pytest.param({"reported_epoch": "best"}, False, id="best"),
        pytest.param(
            {"reported_epoch": "best", "early_stopping": KEEP | {"patience": 1}}, False, id="best, stopped early"
        ),
    ],
)
def test_the_weights_are_those_of_the_best_epoch_that_training_records(changes, last, train, keras, packed):
    result = train(callbacks=[spoil(keras, epoch=3)], epochs=4, **changes)
    history, kept = result.history, result.best_epoch
    assert (kept == len(history)) == last
    accuracy = history["val_accuracy"]
    assert accuracy[kept - 1] != accuracy[1 if last else len(history) - 1]  # or else nothing could be told
    assert val_accuracy(result.model, packed) == pytest.approx(accuracy[kept - 1], abs=1e-6)


# --- what else a recipe may say ---


def build(**changes: Any) -> Any:
    from tiny_imagenet.training.build import build_model

    return build_model(small_recipe(**changes), num_classes=10, weights_file=None, steps_per_epoch=100)


def test_what_the_optimizer_section_says_is_in_keras_optimizer():
    chosen = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0005,
              "clip_norm": 2.0, "ema_momentum": 0.99}  # fmt: skip
    found = build(optimizer=chosen).optimizer.get_config()
    expected = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0005, "global_clipnorm": 2.0, "use_ema": True,
                "ema_momentum": 0.99}  # fmt: skip
    assert {key: found[key] for key in expected} == expected


def test_what_is_left_out_is_keras_default(keras):
    ours = build(optimizer={"name": "adamw", "learning_rate": 0.1}).optimizer.get_config()
    theirs = keras.optimizers.AdamW(learning_rate=0.1).get_config()
    for numbered in (ours, theirs):
        del numbered["name"]
    assert ours == theirs


def test_weight_decay_shrinks_kernels_and_leaves_biases_and_batch_normalization(keras):
    """Without a gradient, a step leaves (1 - learning rate x decay) of a weight."""
    model = build(
        architecture="deep_conv_dropout",
        build={"filters": [2], "dense_units": 2},
        optimizer={"name": "sgd", "learning_rate": 0.1, "weight_decay": 0.5},
    )
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    model.optimizer.apply([keras.ops.zeros_like(weight) for weight in model.trainable_weights], model.trainable_weights)
    for weight in model.trainable_weights:
        expected = 0.95 if weight.path.endswith("kernel") else 1.0
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 4 epochs of 100 steps; the rate after each epoch
        ({"decay": "cosine"}, [(1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(1, 5)]),
        (
            {"decay": "cosine", "warmup_epochs": 2, "final_fraction": 0.1},
            [0.5, 1.0, 0.1 + 0.9 * 0.5, 0.1],
        ),
        ({"decay": "none", "warmup_epochs": 2}, [0.5, 1.0, 1.0, 1.0]),
    ],
)
def test_the_learning_rate_follows_its_schedule_step_by_step(keras, schedule, expected):
    optimizer = build(optimizer={"name": "sgd", "learning_rate": 0.01}, learning_rate_schedule=schedule).optimizer
    rates = []
    for steps in (100, 200, 300, 400):
        optimizer.iterations.assign(steps)
        rates.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
    np.testing.assert_allclose(rates, 0.01 * np.array(expected), rtol=1e-4, atol=1e-9)


def test_a_training_takes_the_steps_of_its_own_epochs_from_the_schedule(train):
    optimizer, schedule = {"name": "sgd", "learning_rate": 0.01}, {"decay": "cosine", "warmup_epochs": 2}
    history = train(optimizer=optimizer, learning_rate_schedule=schedule).history  # 4 epochs of 10 steps
    np.testing.assert_allclose(history["learning_rate"], [0.005, 0.01, 0.005, 0.0], rtol=1e-4, atol=1e-9)


def test_labels_as_shares_give_the_same_training_as_class_numbers(train, trained):
    """Label smoothing so small that it changes nothing: only the form of the labels differs."""
    np.testing.assert_allclose(train(label_smoothing=1e-12).history, trained[0].history, rtol=1e-4)


@pytest.mark.parametrize("preset", ["crop_flip", "modern"])
def test_it_learns_under_the_modern_augmentations_too(preset, train):
    result = train(augmentation=PRESETS[preset].model_copy(update={"horizontal_flip": False}), epochs=10)
    assert result.history["val_accuracy"].iloc[-1] > 2 * CHANCE
    assert result.history["val_loss"].iloc[-1] < math.log(10) - 0.2


@pytest.mark.parametrize("precision", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_half_and_keeps_weights_and_probabilities_in_single(precision, keras, train):
    result = train(precision=precision, epochs=2)
    half = precision.removeprefix("mixed_")
    convolution = next(layer for layer in result.model.layers if type(layer).__name__ == "Conv2D")
    assert (convolution.compute_dtype, convolution.kernel.dtype) == (half, "float32")
    assert result.model.output.dtype == "float32"
    assert (type(result.model.optimizer).__name__ == "LossScaleOptimizer") == (precision == "mixed_float16")
    assert result.history["loss"].iloc[1] < result.history["loss"].iloc[0]
    assert keras.config.dtype_policy().name == "float32"  # for whatever is built next


def test_with_the_head_alone_trainable_the_backbone_stays_as_it_is():
    model = build(architecture="resnet50", build={"dense_units": 4, "dropout": 0.0}, trainable="head")
    assert [weight.path.split("/")[-1] for weight in model.trainable_weights] == ["kernel", "bias"] * 2
    assert [weight.shape for weight in model.trainable_weights] == [(2048, 4), (4,), (4, 10), (10,)]


def test_training_the_head_leaves_weights_and_averages_of_the_backbone_alone(packed):
    model = build(architecture="resnet50", build={"dense_units": 4, "dropout": 0.0}, trainable="head")
    backbone = next(layer for layer in model.layers if layer.name == "resnet50")
    before, head = backbone.get_weights(), model.layers[-1].get_weights()
    model.train_on_batch(packed.train.images[:8], packed.train.labels[:8])
    assert all((old == new).all() for old, new in zip(before, backbone.get_weights(), strict=True))
    assert (head[0] != model.layers[-1].get_weights()[0]).any()


def test_a_warm_up_of_all_but_a_fraction_of_a_step_is_no_error(train):
    schedule = {"decay": "cosine", "warmup_epochs": 3.99}
    assert len(train(learning_rate_schedule=schedule).history) == 4


def test_each_epoch_draws_by_its_seed_and_number_alone(keras):
    from tiny_imagenet.training.callbacks import SeedEpoch

    def drawn(seed: int, epoch: int) -> float:
        keras.utils.set_random_seed(99)
        SeedEpoch(seed).on_epoch_begin(epoch)
        return float(np.random.random())  # noqa: NPY002 - the global generator is what is seeded

    assert drawn(1, 2) == drawn(1, 2)
    assert len({drawn(1, 2), drawn(1, 3), drawn(2, 2)}) == 3


def test_averaged_weights_are_what_is_validated_and_kept(keras, packed, train):
    averaged = {"name": "sgd", "learning_rate": 0.05, "ema_momentum": 0.9}
    plain = {"name": "sgd", "learning_rate": 0.05}
    ours, theirs = train(optimizer=averaged), train(optimizer=plain)
    np.testing.assert_allclose(ours.history["loss"], theirs.history["loss"], rtol=1e-5)  # the steps are the same
    assert ours.history["val_loss"].tolist() != theirs.history["val_loss"].tolist()
    losses = keras.losses.sparse_categorical_crossentropy(
        packed.val.labels, ours.model.predict_on_batch(packed.val.images)
    )
    assert float(keras.ops.mean(losses)) == pytest.approx(ours.history["val_loss"].iloc[-1], rel=1e-4)


def test_averaged_weights_are_kept_after_an_early_stop_too(keras, packed, train):
    stop = {"monitor": "loss", "patience": 0, "restore_best_weights": False}
    averaged = {"name": "sgd", "learning_rate": 0.05, "ema_momentum": 0.5}
    result = train(callbacks=[spoil(keras, epoch=3)], optimizer=averaged, early_stopping=stop, epochs=6)
    assert len(result.history) < 6
    losses = keras.losses.sparse_categorical_crossentropy(
        packed.val.labels, result.model.predict_on_batch(packed.val.images)
    )
    assert float(keras.ops.mean(losses)) == pytest.approx(result.history["val_loss"].iloc[-1], rel=1e-4)


# --- smaller images, and batch normalization for the full size ---

RESNET = {"architecture": "resnet9", "build": {"filters": [4, 6, 6], "residual_blocks": [1, 0]}}
AVERAGED = {"optimizer": {"name": "sgd", "learning_rate": 0.05, "ema_momentum": 0.9}}


def test_a_schedule_of_sizes_trains_on_smaller_images_and_validates_and_saves_at_full_size(train, packed, tmp_path):
    from tiny_imagenet.models.saved_model import load_model, save_model

    schedule = {"image_size_schedule": [{"epochs": 1, "size": 16}, {"epochs": 2, "size": 48}]}
    result, plain = train(**RESNET, **schedule), train(**RESNET)
    assert (result.history["loss"] != plain.history["loss"]).all()
    assert val_accuracy(result.model, packed) == pytest.approx(result.history["val_accuracy"].iloc[-1])
    for one, name in ((result, "with.keras"), (plain, "without.keras")):
        save_model(one.model, tmp_path / name, wnids=["d"] * 10, class_names=["d"] * 10)
    ours, theirs = (load_model(tmp_path / name) for name in ("with.keras", "without.keras"))
    numbered = re.compile(r"_\d+")  # Keras numbers the layers of a process through
    assert numbered.sub("", ours.to_json()) == numbered.sub("", theirs.to_json())
    with pytest.raises(ValueError, match="expected shape"):
        ours.predict_on_batch(packed.val.images[:, :32, :32])
    predicted = [model.predict_on_batch(packed.val.images) for model in (ours, result.model)]
    np.testing.assert_array_equal(*predicted)


def test_the_expected_time_of_smaller_images_counts_pixels(train, capsys):
    train(**RESNET, image_size_schedule=[{"epochs": 1, "size": 32}], epochs=3)
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("expected: ")]
    per_epoch, all_epochs = (float(number) for number in re.findall(r"([0-9.]+) s", line))
    assert all_epochs == pytest.approx((1 + 4 + 4) * per_epoch, abs=0.5)  # both are rounded to 0.1 s
    assert "for 3 epochs" in line


@pytest.mark.parametrize(
    "changes",
    [
        {},  # its dense layer has a weight for each pixel
        RESNET | {"build": {"filters": [4] * 6, "residual_blocks": [0] * 5}},  # 16 pixels are halved six times
    ],
)
def test_a_model_that_does_not_take_smaller_images_is_refused(changes, train):
    with pytest.raises(UserError, match=r"image_size_schedule: \w+ cannot take images of 16 pixels.*global average"):
        train(**changes, image_size_schedule=[{"epochs": 1, "size": 16}])


def normalizations(keras, model, images) -> Any:
    """Yield the moving averages of each batch normalization, and mean and variance of what reaches it in inference."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            inputs = keras.Model(model.inputs, layer.input).predict(images, verbose=0).astype(float)
            averages = [keras.ops.convert_to_numpy(one) for one in (layer.moving_mean, layer.moving_variance)]
            yield averages, [inputs.mean((0, 1, 2)), inputs.var((0, 1, 2))]


def assert_close(averages, moments) -> None:
    for one, other in zip(averages, moments, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-5)


def test_batch_normalization_is_re_estimated_on_clean_images_of_full_size_with_the_final_weights(keras, train, packed):
    result = train(
        **RESNET, **AVERAGED, augmentation=PAPER_AUGMENTATION, image_size_schedule=[{"epochs": 3, "size": 32}],
        batch_size=200, reestimate_batch_normalization=200, epochs=3,
    )  # fmt: skip
    layers = list(normalizations(keras, result.model, packed.train.images))
    assert len(layers) == 5
    for averages, moments in layers:  # one batch has all images, so even the last layer has seen what it sees later
        assert_close(averages, moments)
    assert val_accuracy(result.model, packed) == pytest.approx(result.history["val_accuracy"].iloc[-1])
    assert {layer.momentum for layer in result.model.layers if hasattr(layer, "moving_mean")} == {0.99}


@pytest.mark.parametrize(("asked", "held_out"), [(50, 0), (1000, 5)], ids=["some images", "all that are not held out"])
def test_statistics_of_several_batches_are_those_of_all_their_images(asked, held_out, keras, train, packed):
    from tiny_imagenet.input_pipeline.batches import hold_out

    result = train(**RESNET, **AVERAGED, holdout_per_class=held_out, reestimate_batch_normalization=asked, epochs=2)
    trained, _ = hold_out(packed.train, held_out)
    used = trained[epoch_order(seed=1, epoch=0, num_images=len(trained))[:asked]]  # of 50, the last batch has 10
    averages, moments = next(normalizations(keras, result.model, packed.train.images[used]))
    assert_close(averages, moments)


def test_frozen_batch_normalization_keeps_its_averages(keras, packed):
    from tiny_imagenet.input_pipeline.batches import OrderedBatches
    from tiny_imagenet.training.callbacks import NormalizationStatistics

    frozen, trained = keras.layers.BatchNormalization(trainable=False), keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((64, 64, 3)), frozen, trained])
    statistics = NormalizationStatistics(OrderedBatches(packed.val, batch_size=30))
    statistics.set_model(model)
    statistics.on_test_begin()
    assert keras.ops.convert_to_numpy(frozen.moving_mean).tolist() == [0, 0, 0]
    pixels = packed.val.images / np.sqrt(1 + frozen.epsilon)
    np.testing.assert_allclose(trained.moving_mean, pixels.mean((0, 1, 2)), rtol=1e-3)
    np.testing.assert_allclose(trained.moving_variance, pixels.var((0, 1, 2)), rtol=1e-3)
    frozen.trainable, trained.trainable = True, False
    statistics.on_test_begin()
    np.testing.assert_allclose(trained.moving_mean, pixels.mean((0, 1, 2)), rtol=1e-3)


def test_without_batch_normalization_there_is_nothing_to_re_estimate(train):
    with pytest.raises(UserError, match="two_conv has no batch normalization; remove `reestimate_batch_normalization`"):
        train(reestimate_batch_normalization=10)


# --- images held out ---


def test_held_out_images_train_nothing_and_are_what_the_stop_watches(train, witness, packed):
    seen = witness()
    stop = {"monitor": "val_accuracy", "patience": 1, "restore_best_weights": False}
    result = train(
        callbacks=[seen], holdout_per_class=8, early_stopping=stop, optimizer=NO_STEP, batches_per_epoch=1000, epochs=6
    )
    assert seen.batches == [6, 6]  # 200 - 10 x 8 images in batches of 20; the second epoch brings no improvement
    assert {"holdout_accuracy", "holdout_loss"} < set(result.history.columns)
    assert list(result.history.columns)[:6] == COLUMNS
    held = np.concatenate([np.flatnonzero(packed.train.labels == label)[-8:] for label in range(10)])
    predicted = result.model.predict_on_batch(packed.train.images[held]).argmax(1)
    expected = float((predicted == packed.train.labels[held]).mean())
    assert result.history["holdout_accuracy"].iloc[-1] == pytest.approx(expected)


def test_with_images_held_out_the_best_epoch_is_theirs(train, packed):
    result = train(holdout_per_class=5, reported_epoch="best", epochs=5)
    best = int(result.history["holdout_accuracy"].argmax())
    assert result.best_epoch == best + 1
    assert val_accuracy(result.model, packed) == pytest.approx(result.history["val_accuracy"][best])


def test_a_class_without_an_image_left_is_refused(train):
    with pytest.raises(UserError, match="holdout_per_class"):
        train(holdout_per_class=50)


def test_the_paper_protocol_is_measured_after_every_epoch_where_asked_for(packed, rich):
    from tiny_imagenet.evaluation.evaluate import predict

    result = rich[0]
    accuracies = result.history["val_accuracy_paper_protocol"]
    augmented = predict(result.model, packed.val, "", PAPER_AUGMENTATION).argmax(1)
    assert accuracies.iloc[-1] == pytest.approx(float((augmented == packed.val.labels).mean()))
    assert accuracies.tolist() != result.history["val_accuracy"].tolist()


# --- the same seed, the same bits ---


def test_tensorflow_tunes_none_of_the_loading(keras, rich):
    """Its tuner lets epochs begin late: docs/decisions/0028-tf-data-does-not-tune-itself.md."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends do not load through tf.data")
    tuned = rich[2]
    assert len(tuned) >= 4  # training, validation, held-out images, paper protocol
    assert set(tuned) == {False}


def train_into(folder: Path) -> None:
    """Train with everything that draws numbers: augmentation, dropout, batch normalization, order; seed Keras before.

    Writes `model.keras` and `history.csv`.
    """
    from tiny_imagenet.models import saved_model
    from tiny_imagenet.training import train as training

    recipe = small_recipe(
        architecture="deep_conv_dropout",
        build={"filters": [4, 4, 4], "dense_units": 16},
        epochs=3,
        augmentation=PAPER_AUGMENTATION,
        early_stopping=RESTORE,
        reduce_learning_rate={"factor": 0.5, "patience": 0},
        batch_normalization_momentum=0.9,
    )
    packed = packed_digits()
    result = training.train(recipe, packed, seed=7)
    wnids = packed.classes["wnid"].tolist()
    saved_model.save_model(result.model, folder / "model.keras", wnids=wnids, class_names=packed.class_names)
    training.write_history(result.history, folder / "history.csv")


@pytest.mark.slow
def test_two_trainings_with_one_seed_give_the_same_bytes_in_a_fresh_process_and_in_one_that_trained_before(
    keras, tmp_path
):
    script = (
        "import pathlib, sys; sys.path += [sys.argv[2], sys.argv[2] + '/training']; import test_train\n"
        "from tiny_imagenet.backend import runtime; runtime.prepare(7)\n"
        "test_train.train_into(pathlib.Path(sys.argv[1]))"
    )
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script, str(one), str(ROOT / "tests")],
        env=os.environ | {"PYTHONHASHSEED": "123"},  # what differs between two processes anyway, for certain
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    keras.backend.clear_session()  # layers are numbered through, and their names are in the file
    keras.utils.set_random_seed(7)
    train_into(two)
    assert {file.name for file in one.iterdir()} == {"model.keras", "history.csv"}
    for name in ("history.csv", "model.keras"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_training_that_diverges_stops_with_the_epoch_and_the_way_out(train):
    with pytest.raises(UserError, match=r"loss is (nan|inf) in epoch \d+, batch \d+: .*lower its learning rate"):
        train(optimizer={"name": "sgd", "learning_rate": 10.0}, preprocessing="caffe", epochs=20)


def test_weights_that_are_no_numbers_are_named_whatever_the_loss_says(keras):
    """Some of oneDNN's kernels turn NaN into 0, and the loss of such a model is a number."""
    from tiny_imagenet.training.callbacks import StopAtNaN

    callback = StopAtNaN()
    callback.set_model(keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(4, "relu", name="hidden")]))
    callback.on_epoch_begin(1)
    callback.on_epoch_end(1, {"loss": 1.1})
    with pytest.raises(UserError, match=r"^val_loss is nan in epoch 2: .*lower its learning rate"):
        callback.on_epoch_end(1, {"loss": 1.1, "val_loss": float("nan")})
    callback.model.layers[0].kernel.assign(np.full((3, 4), np.inf))
    with pytest.raises(UserError, match=r"^not all of .*hidden/kernel are finite numbers after epoch 2: .* diverged"):
        callback.on_epoch_end(1, {"loss": 1.1})


def test_a_cpu_is_never_left_to_xla(keras, monkeypatch):
    """Keras would choose it where `determinism` is `fast`."""
    from tiny_imagenet.training.build import build_model

    told = []
    compiled = keras.Model.compile
    monkeypatch.setattr(
        keras.Model, "compile", lambda *args, **options: (told.append(options), compiled(*args, **options))
    )
    build_model(small_recipe(), num_classes=10, weights_file=None)
    if runtime.device().kind == "cpu":
        assert [options["jit_compile"] for options in told] == [False]
