"""Trainings of a small model on the digits: a second each."""

import math
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from standin import packed_digits, small_recipe

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.recipe import PAPER_AUGMENTATION, PRESETS
from tiny_imagenet.input_pipeline.augmentation import epoch_order

ROOT = Path(__file__).parents[2]
COLUMNS = ["epoch", "accuracy", "val_accuracy", "loss", "val_loss", "learning_rate"]
CHANCE = 0.1
NO_STEP = {"name": "sgd", "learning_rate": 1e-12}
"""A learning rate so small that no weight changes and no metric improves."""
pytestmark = pytest.mark.slow


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
    """Return a callback that records metrics, learning rate and number of batches of each epoch."""

    class Witness(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.epochs: list[int] = []
            self.metrics: list[dict[str, float]] = []
            self.rates: list[float] = []
            self.batches: list[int] = []

        def on_epoch_begin(self, epoch, logs=None):
            self.rates.append(float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)))
            self.batches.append(0)

        def on_train_batch_end(self, batch, logs=None):
            self.batches[-1] += 1

        def on_epoch_end(self, epoch, logs=None):
            self.epochs.append(epoch)
            self.metrics.append(dict(logs))

    return Witness


@pytest.fixture(scope="module")
def observed(train, witness):
    """Return a training of four epochs, its witness, and the printed lines."""
    seen, printed = witness(), StringIO()
    with redirect_stdout(printed):
        result = train(callbacks=[seen])
    return result, seen, printed.getvalue().splitlines()


@pytest.fixture(scope="module")
def trained(observed):
    return observed[:2]


@pytest.fixture(scope="module")
def rich(train, witness):
    """Return a training of two epochs with all optional metrics, its witness, and whether each pass was tuned."""
    seen = witness()
    with pytest.MonkeyPatch.context() as patch:
        tuned = watch_loading(patch)
        result = train(
            callbacks=[seen], epochs=2, augmentation=PAPER_AUGMENTATION, label_smoothing=0.2, batches_per_epoch=3,
            holdout_per_class=5, paper_protocol_every_epoch=True,
        )  # fmt: skip
    return result, seen, tuned


def watch_loading(patch: pytest.MonkeyPatch) -> list[bool]:
    """Return a list to which each pass over a tf.data pipeline adds whether TensorFlow's tuner is on."""
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
    """Return a callback that spoils the weights before an epoch, so that no epoch from this one on is the best."""

    def ruin(now: int, logs: Any = None) -> None:
        if now + 1 == epoch:
            callback.model.set_weights([-50 * weight for weight in callback.model.get_weights()])

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=ruin)
    return callback


def val_accuracy(model: Any, packed: Any) -> float:
    probabilities = np.asarray(model(packed.val.images, training=False))  # `predict_on_batch` would trace the model
    return float((probabilities.argmax(1) == packed.val.labels).mean())


def test_a_training_learns(trained):
    history = trained[0].history
    assert history["val_accuracy"].iloc[-1] > 5 * CHANCE
    assert history["accuracy"].iloc[-1] > history["accuracy"].iloc[0]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0] <= 1.5 * math.log(10)


def test_history_has_a_row_per_epoch_and_exactly_the_documented_columns(trained):
    history = trained[0].history
    assert list(history.columns) == COLUMNS
    assert history["epoch"].tolist() == [1, 2, 3, 4]
    assert history.notna().all(axis=None)


def test_history_csv_has_all_digits_and_unix_line_ends(trained, tmp_path):
    from tiny_imagenet.training import train as training

    history = trained[0].history
    training.write_history(history, tmp_path / "history.csv")
    read = pd.read_csv(tmp_path / "history.csv", dtype=str).map(float)  # Python's float() is exact to the last bit
    assert read.to_numpy().tolist() == history.to_numpy().tolist()
    written = (tmp_path / "history.csv").read_bytes()
    assert written.startswith(b"epoch,accuracy,val_accuracy,loss,val_loss,learning_rate\n")
    assert b"\r" not in written


def test_callbacks_receive_all_metrics_of_each_epoch(trained):
    result, seen = trained
    assert seen.epochs == [0, 1, 2, 3]
    frame = pd.DataFrame(seen.metrics)[COLUMNS[1:]]
    pd.testing.assert_frame_equal(frame, result.history[COLUMNS[1:]])


def test_each_image_is_visited_in_each_epoch(trained):
    assert trained[1].batches == [10, 10, 10, 10]  # 200 images in batches of 20


@pytest.fixture(scope="module")
def penalised(train, witness):
    """Return a training of one epoch with a large L2 penalty and batches of 64 images, and its witness."""
    seen = witness()
    build = {"filters": [4, 4], "dense_units": 16, "l2": 100.0}
    result = train(callbacks=[seen], epochs=1, optimizer=NO_STEP, build=build, batch_size=64, batches_per_epoch=1000)
    return result, seen


def test_the_last_batch_may_be_smaller_and_batches_per_epoch_may_exceed_their_number(penalised):
    assert penalised[1].batches == [4]


def test_validation_metrics_are_of_clean_images_with_the_label_smoothing_of_the_loss(keras, packed, rich):
    result = rich[0]
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    shares = np.eye(10, dtype=np.float32)[packed.val.labels]
    expected = float(loss(shares, result.model.predict_on_batch(packed.val.images)))
    assert result.history["val_loss"].iloc[-1] == pytest.approx(expected, rel=1e-4)
    assert result.history["val_accuracy"].iloc[-1] == pytest.approx(val_accuracy(result.model, packed))


def test_the_loss_includes_the_l2_penalty(penalised):
    history = penalised[0].history.iloc[0]
    assert history["loss"] > 10 * math.log(10)
    assert history["val_loss"] > 10 * math.log(10)


def test_batches_per_epoch_limits_an_epoch(rich):
    result, seen, _ = rich
    assert seen.batches == [3, 3]
    assert len(result.history) == 2


def test_each_epoch_is_timed(trained):
    result = trained[0]
    assert len(result.epoch_seconds) == 4
    assert all(seconds > 0 for seconds in result.epoch_seconds)
    assert result.images_per_second > 200 / max(result.epoch_seconds)


def test_a_line_per_epoch_and_once_the_expected_duration_are_printed(observed):
    lines = observed[2]
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert [line.split()[1] for line in epochs] == ["1/4", "2/4", "3/4", "4/4"]
    assert all("val_accuracy" in line and "learning_rate" in line for line in epochs)
    assert [line.split()[0] for line in lines] == ["expected:", *["epoch"] * 4]  # and nothing of Keras


# --- schedules and stops ---


@pytest.fixture(scope="module")
def still(train, witness):
    """Return a training of at most 7 epochs of which only the first improves, and its witness."""
    seen = witness()
    plateau = {"monitor": "val_accuracy", "factor": 0.5, "patience": 2}
    stop = {"monitor": "val_accuracy", "patience": 5, "restore_best_weights": False}
    changes = {"reduce_learning_rate": plateau, "early_stopping": stop}
    return train(callbacks=[seen], epochs=7, optimizer=NO_STEP, **changes), seen


def test_the_learning_rate_is_reduced_on_a_plateau(still):
    result, seen = still
    # No epoch after the first improves: epoch 4 has half of the rate, epoch 6 a quarter.
    expected = np.array([1, 1, 1, 0.5, 0.5, 0.25]) * 1e-12
    np.testing.assert_allclose(result.history["learning_rate"], expected, rtol=1e-6)
    assert result.history["learning_rate"].tolist() == seen.rates


def test_without_a_schedule_the_learning_rate_stays(trained):
    result, seen = trained
    assert set(result.history["learning_rate"]) == {np.float32(0.01)}
    assert seen.rates == result.history["learning_rate"].tolist()


def test_training_stops_after_patience_epochs_without_improvement(still):
    assert len(still[0].history) == 6  # only epoch 1 improves


@pytest.fixture(scope="module")
def soft(train):
    """Return a training with soft labels, which would stop after an epoch whose loss is not lower.

    The label smoothing is too small to change anything: only the form of the labels differs.
    """
    stop = {"monitor": "loss", "patience": 0, "restore_best_weights": True}
    return train(label_smoothing=1e-12, early_stopping=stop)


def test_training_continues_while_it_improves(soft):
    assert len(soft.history) == 4


# --- which epoch's weights are kept ---

RESTORE = {"monitor": "val_loss", "patience": 9, "restore_best_weights": True}
KEEP = RESTORE | {"restore_best_weights": False}


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        pytest.param({}, True, id="no early stopping"),
        pytest.param({"reported_epoch": "last", "early_stopping": KEEP}, True, id="last, early stopping"),
        pytest.param(
            {"early_stopping": RESTORE | {"monitor": "val_accuracy"}}, False, id="best validation accuracy restored"
        ),
        pytest.param({"early_stopping": RESTORE | {"patience": 1}}, False, id="stopped before the end"),
        pytest.param(
            {"reported_epoch": "best", "early_stopping": KEEP | {"patience": 1}}, False, id="best, stopped early"
        ),
    ],
)
def test_the_weights_are_those_of_the_recorded_best_epoch(changes, last, train, keras, packed):
    result = train(callbacks=[spoil(keras, epoch=3)], epochs=4, **changes)
    history, kept = result.history, result.best_epoch
    assert (kept == len(history)) == last
    accuracy = history["val_accuracy"]
    assert accuracy[kept - 1] != accuracy[1 if last else len(history) - 1]  # otherwise nothing is tested
    assert val_accuracy(result.model, packed) == pytest.approx(accuracy[kept - 1], abs=1e-6)


# --- other keys of a recipe ---


def test_a_schedule_covers_the_steps_of_a_training(train):
    optimizer, schedule = {"name": "sgd", "learning_rate": 0.01}, {"decay": "cosine", "warmup_epochs": 2}
    history = train(optimizer=optimizer, learning_rate_schedule=schedule).history  # 4 epochs of 10 steps
    np.testing.assert_allclose(history["learning_rate"], [0.005, 0.01, 0.005, 0.0], rtol=1e-4, atol=1e-9)


def test_soft_labels_give_the_same_training_as_class_numbers(soft, trained):
    np.testing.assert_allclose(soft.history, trained[0].history, rtol=1e-4)


def test_a_training_with_modern_augmentation_learns(train):
    result = train(augmentation=PRESETS["modern"].model_copy(update={"horizontal_flip": False}), epochs=10)
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
    assert keras.config.dtype_policy().name == "float32"  # for the next model


def test_averaged_weights_are_validated_and_kept(keras, packed, train):
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


@pytest.fixture(scope="module")
def sized(train):
    """Return a training on images of three sizes, and what it printed."""
    schedule = {"image_size_schedule": [{"epochs": 1, "size": 32}, {"epochs": 1, "size": 48}]}
    with redirect_stdout(StringIO()) as printed:
        result = train(**RESNET, **schedule, epochs=3)
    return result, printed.getvalue()


def test_a_schedule_of_sizes_trains_on_smaller_images_and_validates_and_saves_at_full_size(
    sized, train, packed, tmp_path
):
    from tiny_imagenet.models.saved_model import load_model, save_model

    result, plain = sized[0], train(**RESNET, epochs=3)
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


def test_the_expected_time_of_smaller_images_counts_pixels(sized):
    [line] = [line for line in sized[1].splitlines() if line.startswith("expected: ")]
    per_epoch, all_epochs = (float(number) for number in re.findall(r"([0-9.]+) s", line))
    expected = (32**2 + 48**2 + 64**2) / 32**2 * per_epoch
    assert all_epochs == pytest.approx(expected, abs=0.5)  # both are rounded to 0.1 s
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


# --- held-out images ---


def test_held_out_images_are_not_trained_on_and_decide_the_early_stop(train, witness, packed):
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


def test_held_out_images_decide_the_best_epoch(train, packed):
    result = train(holdout_per_class=5, reported_epoch="best", epochs=5)
    best = int(result.history["holdout_accuracy"].argmax())
    assert result.best_epoch == best + 1
    assert val_accuracy(result.model, packed) == pytest.approx(result.history["val_accuracy"][best])


def test_holding_out_all_images_of_a_class_is_refused(train):
    with pytest.raises(UserError, match="holdout_per_class"):
        train(holdout_per_class=50)


def test_paper_protocol_every_epoch_adds_its_accuracy_to_the_history(packed, rich):
    from tiny_imagenet.evaluation.evaluate import predict

    result = rich[0]
    accuracies = result.history["val_accuracy_paper_protocol"]
    augmented = predict(result.model, packed.val, "", PAPER_AUGMENTATION).argmax(1)
    assert accuracies.iloc[-1] == pytest.approx(float((augmented == packed.val.labels).mean()))
    assert accuracies.tolist() != result.history["val_accuracy"].tolist()


# --- the same seed, the same bits ---


def test_no_tf_data_pipeline_is_tuned(keras, rich):
    """The tuner delays the start of epochs: docs/decisions/0028-tf-data-does-not-tune-itself.md."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("other backends do not load through tf.data")
    tuned = rich[2]
    assert len(tuned) >= 4  # training, validation, held-out images, paper protocol
    assert set(tuned) == {False}


def train_into(folder: Path) -> None:
    """Train a model with dropout and augmentation, and write `model.keras` and `history.csv`. Seed Keras before."""
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


def test_a_seed_gives_the_same_bytes_in_a_fresh_process_and_in_one_that_trained_before(keras, tmp_path):
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
        env=os.environ | {"PYTHONHASHSEED": "123"},  # differs between two processes by chance; here it always does
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    keras.backend.clear_session()  # Keras numbers the layers of a process, and the file has their names
    keras.utils.set_random_seed(7)
    train_into(two)
    assert {file.name for file in one.iterdir()} == {"model.keras", "history.csv"}
    for name in ("history.csv", "model.keras"):
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_a_training_that_diverges_is_stopped_with_the_batch_and_a_remedy(train):
    with pytest.raises(UserError, match=r"loss is (nan|inf) in epoch \d+, batch \d+: .*lower `learning_rate`"):
        train(optimizer={"name": "sgd", "learning_rate": 10.0}, preprocessing="caffe", epochs=20)


@pytest.mark.parametrize(("name", "moments"), [("adam", 2), ("sgd", 0)])
def test_the_space_that_a_training_needs_is_checked_before_it_starts(
    name, moments, train, packed, monkeypatch, tmp_path
):
    """Three times the weights for the model; twice weights, best weights and moments for a checkpoint."""
    from tiny_imagenet.training import train as training
    from tiny_imagenet.training.checkpoint import Checkpoint

    asked = []

    def refuse(folder: Path, needed: int, purpose: str) -> None:
        asked.append((needed, purpose))
        raise UserError("full")

    def needed(checkpoint: Checkpoint | None) -> int:
        recipe = small_recipe(optimizer={"name": name, "learning_rate": 0.1})
        with pytest.raises(UserError, match="full"):
            training.train(recipe, packed, seed=1, checkpoint=checkpoint)
        return int(asked[-1][0])

    monkeypatch.setattr(training, "require_free", refuse)
    without = needed(None)
    parameters = int(re.search("[0-9,]+", asked[0][1])[0].replace(",", ""))
    assert without == 3 * 4 * parameters
    checkpoint = Checkpoint(tmp_path, "key")
    assert needed(checkpoint) == pytest.approx(without + 2 * 4 * parameters * (2 + moments), abs=100)
    before = needed(checkpoint)
    monkeypatch.setattr(Checkpoint, "bytes", 1_000)
    assert needed(checkpoint) == before - 1_000
