"""Real trainings of a small stand-in on the digits, a second each, and two in fresh processes."""

import math
import os
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

from tiny_imagenet.errors import UserError
from tiny_imagenet.params import PAPER_AUGMENTATION, Optimizer

ROOT = Path(__file__).parents[1]
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
    from tiny_imagenet import training

    def train_small(*, callbacks: Any = (), **changes: Any) -> Any:
        keras.utils.set_random_seed(1)
        return training.train(small_recipe(**changes), packed, seed=1, callbacks=callbacks)

    return train_small


@pytest.fixture(scope="module")
def witness(keras):
    """Return a callback that writes down the figures of each epoch, the learning rate before it, and the batches."""

    class Witness(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
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
    from tiny_imagenet import training

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


def test_validation_figures_are_of_the_clean_validation_images(keras, packed, train):
    result = train(epochs=1, augmentation=PAPER_AUGMENTATION)
    losses = keras.losses.sparse_categorical_crossentropy(
        packed.val.labels, result.model.predict_on_batch(packed.val.images)
    )
    assert val_accuracy(result.model, packed) == pytest.approx(result.history["val_accuracy"].iloc[0])
    assert float(keras.ops.mean(losses)) == pytest.approx(result.history["val_loss"].iloc[0], rel=1e-4)


def test_the_loss_has_the_penalty_in_it(train):
    build = {"filters": [4, 4], "dense_units": 16, "l2": 100.0}
    history = train(epochs=1, optimizer=NO_STEP, build=build).history.iloc[0]
    assert history["loss"] > 10 * math.log(10)
    assert history["val_loss"] > 10 * math.log(10)


def test_an_epoch_may_be_limited_to_some_batches(train, witness):
    seen = witness()
    result = train(callbacks=[seen], batches_per_epoch=3, epochs=2)
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
    from tiny_imagenet import training

    recipe = small_recipe(optimizer={"name": name, "learning_rate": 0.25})
    model = training.build_model(recipe, num_classes=10, weights_file=None)
    assert type(model.optimizer) is type(keras.optimizers.get(name))
    assert float(model.optimizer.learning_rate) == 0.25


def test_the_batch_normalization_momentum_of_the_recipe_is_the_models(keras):
    from tiny_imagenet import training

    recipe = small_recipe(
        architecture="deep_conv_dropout", build={"filters": [2], "dense_units": 2}, batch_normalization_momentum=0.25
    )
    model = training.build_model(recipe, num_classes=10, weights_file=None)
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
def test_the_weights_are_those_of_the_epoch_that_evaluation_names(changes, last, train, keras, packed):
    from tiny_imagenet.evaluation import kept_epoch

    result = train(callbacks=[spoil(keras, epoch=3)], epochs=4, **changes)
    history = result.history
    kept = kept_epoch(history, small_recipe(epochs=4, **changes))
    assert (kept == len(history)) == last
    accuracy = history["val_accuracy"]
    assert accuracy[kept - 1] != accuracy[1 if last else len(history) - 1]  # or else nothing could be told
    assert val_accuracy(result.model, packed) == pytest.approx(accuracy[kept - 1], abs=1e-6)


# --- the same seed, the same bits ---


def train_into(folder: Path) -> None:
    """Train with everything that draws numbers: augmentation, dropout, batch normalization, order. For a fresh process.

    Writes `model.keras` and `history.csv`.
    """
    from tiny_imagenet import runtime

    runtime.prepare(7)
    from tiny_imagenet import model_file, training

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
    model_file.save_model(result.model, folder / "model.keras", wnids=wnids, class_names=packed.class_names)
    training.write_history(result.history, folder / "history.csv")


@pytest.mark.slow
def test_two_trainings_with_one_seed_in_fresh_processes_give_the_same_bytes(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    script = (
        "import pathlib, sys; sys.path.append(sys.argv[2]); import test_training\n"
        "test_training.train_into(pathlib.Path(sys.argv[1]))"
    )
    processes = []
    for number, folder in enumerate(folders):
        # What differs between two processes anyway, made to differ for certain.
        environment = os.environ | {"PYTHONHASHSEED": str(number)}
        folder.mkdir()
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", script, str(folder), str(ROOT / "tests")],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    one, two = ({file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders)
    assert set(one) == {"model.keras", "history.csv"}
    assert one["history.csv"] == two["history.csv"]
    assert one["model.keras"] == two["model.keras"]


def test_a_training_that_diverges_stops_with_the_epoch_and_the_way_out(train):
    with pytest.raises(UserError, match=r"loss is (nan|inf) in epoch \d+, batch \d+: .*lower its learning rate"):
        train(optimizer={"name": "sgd", "learning_rate": 10.0}, preprocessing="caffe", epochs=20)
