"""A training that is stopped and resumed gives the same bits as one that was not stopped."""

import errno
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_zips import DAMAGE, with_header
from standin import STANDINS, TWO_PHASES, packed_digits, small_backbone, small_recipe

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.recipe import PAPER_AUGMENTATION, PRESETS

EPOCHS = 4
KEY = "0123456789abcdef"
pytestmark = pytest.mark.slow
RICH = {
    "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.001,
                  "clip_norm": 1.0, "ema_momentum": 0.9},
    "learning_rate_schedule": {"decay": "cosine", "warmup_epochs": 1.5},
    "label_smoothing": 0.1,
    "augmentation": PRESETS["modern"],
    "holdout_per_class": 2,
    "early_stopping": {"monitor": "val_loss", "patience": 1, "restore_best_weights": True},
    "paper_protocol_every_epoch": True,
}  # fmt: skip
SIZES = {
    "architecture": "resnet9",
    "build": {"filters": [4, 4], "residual_blocks": [1]},
    "image_size_schedule": [{"epochs": 2, "size": 32}, {"epochs": 1, "size": 48}],
    "reestimate_batch_normalization": 50,
    "optimizer": {"name": "sgd", "learning_rate": 0.05, "momentum": 0.9, "ema_momentum": 0.9},
}
"""Stopped in epoch 3, it resumes at another size."""
OTHERS: dict[str, dict[str, Any]] = {
    "everything at once": RICH,
    "image sizes and statistics of batch normalization": SIZES,
    "averages, stopped early, last kept": RICH
    | {
        "optimizer": {"name": "adamw", "learning_rate": 0.01, "ema_momentum": 0.5},
        "learning_rate_schedule": None,
        "early_stopping": {"monitor": "val_accuracy", "patience": 1, "restore_best_weights": False},
    },
    "a plateau that is under way": {
        "optimizer": {"name": "sgd", "learning_rate": 1e-12},
        "reduce_learning_rate": {"monitor": "val_accuracy", "factor": 0.5, "patience": 2},
    },
    "best epoch": {"reported_epoch": "best", "optimizer": {"name": "rmsprop", "learning_rate": 0.01}},
    "half precision": {"precision": "mixed_float16"},
}


MARKS = {"model_1": pytest.mark.e2e, "model_3": pytest.mark.e2e, "model_5": pytest.mark.faults}
"""The models that `make test` leaves out: the others have all that these have but ResNet50."""


class Stopped(BaseException):
    """Raised by a test to stop a training."""


@pytest.fixture(scope="module")
def packed():
    return packed_digits()


@pytest.fixture(scope="module")
def train_into(keras, packed):
    """Train with a checkpoint in a folder; stop in the middle of epoch `stop_in`, if it is given."""
    from tiny_imagenet.training import train as training
    from tiny_imagenet.training.checkpoint import Checkpoint

    def train_and_stop(
        folder: Path, changes: Any, *, stop_in: int | None, seed: int = 1, key: str = KEY, more: Any = ()
    ) -> Any:
        epoch = [0]

        def begin(now: int, logs: Any) -> None:
            epoch[0] = now + 1

        def stop(batch: int, logs: Any) -> None:
            if epoch[0] == stop_in and batch == 1:
                raise Stopped

        keras.utils.set_random_seed(seed)
        recipe = small_recipe(**{"epochs": EPOCHS, "augmentation": PAPER_AUGMENTATION} | changes)
        callback = keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_train_batch_end=stop)
        return training.train(recipe, packed, seed=1, checkpoint=Checkpoint(folder, key), callbacks=[callback, *more])

    return train_and_stop


@pytest.fixture
def train(train_into, tmp_path):
    return lambda changes, *, folder="kept", **options: train_into(tmp_path / folder, changes, **options)


@pytest.fixture(scope="module")
def whole_training(train_into, tmp_path_factory):
    """Return the uninterrupted training of a recipe and the folder of its checkpoint; several tests share them."""
    trained: dict[str, tuple[Any, Path]] = {}

    def of_recipe(changes: dict[str, Any]) -> tuple[Any, Path]:
        if str(changes) not in trained:
            folder = tmp_path_factory.mktemp("whole")
            trained[str(changes)] = train_into(folder, changes, stop_in=None), folder
        return trained[str(changes)]

    return of_recipe


@pytest.fixture(scope="module")
def checkpoint_of_two_epochs(train_into, tmp_path_factory):
    """Return the checkpoint of a training that was stopped in epoch 3."""
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.raises(Stopped):
        train_into(folder, {}, stop_in=3)
    return (folder / f"{KEY}.checkpoint").read_bytes()


@pytest.fixture
def stopped(checkpoint_of_two_epochs, tmp_path):
    """Return the file of such a checkpoint, in the folder of `train`."""
    file = tmp_path / "kept" / f"{KEY}.checkpoint"
    file.parent.mkdir()
    file.write_bytes(checkpoint_of_two_epochs)
    return file


def everything(trained: Any) -> list[np.ndarray]:
    """Return the weights and the variables of the optimizer."""
    import keras

    variables = [*trained.model.weights, *trained.model.optimizer.variables]
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def assert_same_bits(resumed: Any, whole: Any) -> None:
    assert resumed.history.to_csv() == whole.history.to_csv()
    assert resumed.best_epoch == whole.best_epoch
    ours, theirs = everything(resumed), everything(whole)
    assert len(ours) == len(theirs)
    assert all((one == two).all() for one, two in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "changes",
    [
        *(pytest.param(changes, id=model, marks=MARKS.get(model, [])) for model, changes in STANDINS.items()),
        *(
            pytest.param(changes, id=name, marks=[] if changes in (RICH, SIZES) else [pytest.mark.e2e])
            for name, changes in OTHERS.items()
        ),
    ],
)
def test_a_stopped_training_resumes_to_the_same_bits(train, whole_training, changes):
    whole, _ = whole_training(changes)
    epochs = len(whole.history)
    stops = [2, epochs] if changes is RICH else [min(3, epochs)]
    for number, epoch in enumerate(stops):
        with pytest.raises(Stopped):
            train(changes, stop_in=epoch, seed=1 if number == 0 else 2)
    resumed = train(changes, stop_in=None, seed=3)  # another seed: no random number may be drawn again
    assert_same_bits(resumed, whole)
    assert resumed.resumed_from == [epoch - 1 for epoch in stops]
    assert len(resumed.epoch_seconds) == epochs
    assert whole.resumed_from == []


PHASES: dict[str, dict[str, Any]] = {
    "two phases and everything at once": TWO_PHASES | RICH | {"holdout_per_class": 1},
    "two phases, plateau, part of the backbone": TWO_PHASES
    | {
        "fine_tuning": TWO_PHASES["fine_tuning"] | {"backbone_share": 0.5, "batch_normalization": "trained"},
        "reduce_learning_rate": {"monitor": "val_accuracy", "factor": 0.5, "patience": 1},
        "reported_epoch": "best",
    },
}


@pytest.mark.parametrize(
    ("phases", "stops"),
    [
        ("two phases and everything at once", (2, 3, 4)),  # in the first phase, between the phases, in the second
        pytest.param("two phases, plateau, part of the backbone", (3, 4), marks=pytest.mark.e2e),
    ],
)
def test_a_training_stopped_in_each_phase_and_between_them_resumes_to_the_same_bits(
    train, keras, phases, stops, monkeypatch
):
    changes = PHASES[phases]
    monkeypatch.setattr(keras.applications, "VGG16", small_backbone)
    whole = train(changes, stop_in=None, folder="whole")
    assert len(whole.history) > 3  # it has all epochs below, also if it stopped early
    for seed, epoch in enumerate(stops, start=1):
        with pytest.raises(Stopped):
            train(changes, stop_in=epoch, seed=seed)
    resumed = train(changes, stop_in=None, seed=9)
    assert_same_bits(resumed, whole)
    assert resumed.resumed_from == [epoch - 1 for epoch in stops]
    assert len(resumed.epoch_seconds) == len(whole.history)


def test_a_training_stopped_in_the_first_epoch_starts_from_scratch(train, whole_training):
    whole, _ = whole_training(STANDINS["model_2"])
    with pytest.raises(Stopped):
        train(STANDINS["model_2"], stop_in=1)
    again = train(STANDINS["model_2"], stop_in=None)
    assert_same_bits(again, whole)
    assert again.resumed_from == []


@pytest.mark.parametrize("name", ["model_2", "averages, stopped early, last kept"])
def test_a_training_stopped_after_the_last_epoch_trains_no_further_epoch(train, whole_training, tmp_path, name):
    changes = (STANDINS | OTHERS)[name]
    whole, checkpoint = whole_training(changes)
    shutil.copytree(checkpoint, tmp_path / "kept")
    resumed = train(changes, stop_in=None, seed=2)
    assert_same_bits(resumed, whole)
    assert resumed.resumed_from == [len(whole.history)]
    assert resumed.epoch_seconds == whole.epoch_seconds


def test_with_another_key_nothing_is_resumed(train, stopped):
    assert train({}, stop_in=None, key="f" * 16).resumed_from == []


def test_a_full_disk_leaves_the_last_complete_checkpoint_and_no_partial_file(train, tmp_path, monkeypatch):
    writes = [0]
    write = np.lib.format.write_array

    def fill_the_disk(stream: Any, array: Any, **options: Any) -> None:
        writes[0] += 1
        if writes[0] == 60:  # in the middle of the third checkpoint; each has about 26 arrays
            raise OSError(errno.ENOSPC, "No space left on device")
        write(stream, array, **options)

    monkeypatch.setattr(np.lib.format, "write_array", fill_the_disk)
    with pytest.raises(OSError, match="No space"):
        train({}, stop_in=None)
    monkeypatch.undo()
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [f"{KEY}.checkpoint"]
    assert train({}, stop_in=None).resumed_from == [2]


def test_a_diverged_epoch_is_not_saved(train, keras, tmp_path):
    from tiny_imagenet.training.checkpoint import Checkpoint

    class Diverging(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 0 and self.model.optimizer.iterations > 0:  # in the second epoch
                kernel = self.model.get_layer("probabilities").kernel
                kernel.assign(np.full(kernel.shape, np.nan))

    with pytest.raises(UserError, match="in epoch 2, batch 1: the training has diverged"):
        train({"epochs": 3}, stop_in=None, more=[Diverging()])
    [metrics] = Checkpoint(tmp_path / "kept", KEY).history()
    assert np.isfinite(list(metrics.values())).all()


def test_an_epoch_with_weights_that_are_not_finite_is_not_saved(train, keras, tmp_path, monkeypatch):
    """The weights become NaN at the end of an epoch; its metrics are finite."""
    from tiny_imagenet.training import callbacks
    from tiny_imagenet.training.checkpoint import Checkpoint

    def spoil(self, epoch, logs=None):
        logs["learning_rate"] = 0.1
        if epoch == 1:
            kernel = self.model.get_layer("probabilities").kernel
            kernel.assign(np.full(kernel.shape, np.nan))

    monkeypatch.setattr(callbacks.LearningRate, "on_epoch_end", spoil)
    with pytest.raises(UserError, match=r"NaN or infinite values after epoch 2: the training has diverged"):
        train({"epochs": 3}, stop_in=None)
    assert len(Checkpoint(tmp_path / "kept", KEY).history()) == 1


@pytest.mark.parametrize("keep", [0.001, 0.5, 0.9])
def test_a_truncated_checkpoint_is_refused_with_a_remedy(train, stopped, keep):
    content = stopped.read_bytes()
    stopped.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match=rf"checkpoint .*{KEY}.* is damaged .*; `rm .*{KEY}\.run`"):
        train({}, stop_in=None)


def test_a_checkpoint_with_a_changed_byte_is_refused(train, stopped):
    content = bytearray(stopped.read_bytes())
    content[len(content) // 2] ^= 1
    stopped.write_bytes(content)
    with pytest.raises(UserError, match="is damaged"):
        train({}, stop_in=None)


# --- the MLflow run of a checkpoint, and which files are kept ---


@pytest.fixture
def checkpoint(keras, tmp_path):
    from tiny_imagenet.training.checkpoint import Checkpoint

    return lambda key: Checkpoint(tmp_path / "model", key)


def test_the_run_of_a_stopped_training_is_found_by_its_key(checkpoint):
    assert checkpoint("a").run_id is None
    checkpoint("a").begin("run of a")
    assert checkpoint("a").run_id == "run of a"
    assert checkpoint("b").run_id is None


def test_a_training_with_another_key_keeps_the_files_of_the_previous_one(checkpoint, tmp_path):
    checkpoint("a").begin("run of a")
    checkpoint("a").write({"history": [{"loss": 0.1}]}, iter([("model/0.npy", np.zeros(3))]))
    (tmp_path / "model" / "b.checkpoint.partial").write_text("half")
    assert checkpoint("a").other is None
    assert checkpoint("b").other == tmp_path / "model" / "a.checkpoint"
    checkpoint("b").begin("run of b")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"a.run", "a.checkpoint", "b.run"}
    assert (checkpoint("a").run_id, checkpoint("a").history()) == ("run of a", [{"loss": 0.1}])


def test_only_the_newest_checkpoint_of_other_trainings_is_kept(checkpoint, tmp_path):
    for age, key in enumerate("cba"):
        checkpoint(key).begin(f"run of {key}")
        checkpoint(key).write({"history": []}, iter([]))
        os.utime(tmp_path / "model" / f"{key}.checkpoint", (age, age))
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"a.run", "a.checkpoint", "b.run", "b.checkpoint"}


@pytest.mark.parametrize(("field", "value"), DAMAGE)
def test_a_checkpoint_with_a_damaged_directory_is_refused(checkpoint, tmp_path, field, value):
    checkpoint("a").write({"history": []}, iter([("x/0.npy", np.zeros(3))]))
    for member in ("state.json", "0.npy"):
        with_header(tmp_path / "model" / "a.checkpoint", member, field, value)
    with pytest.raises(UserError, match="is damaged"):
        checkpoint("a").read_state()
    with pytest.raises(UserError, match="is damaged"):
        checkpoint("a").read_array("x/0.npy")


@pytest.mark.parametrize("state", ["[1]", "[]", "{}", "null"])
def test_a_checkpoint_without_a_history_is_refused(checkpoint, tmp_path, state):
    checkpoint("a").write({"history": []}, iter([]))
    with zipfile.ZipFile(tmp_path / "model" / "a.checkpoint", "w") as archive:
        archive.writestr("state.json", state)
    with pytest.raises(UserError, match="is damaged"):
        checkpoint("a").read_state()


def test_a_checkpoint_survives_a_round_trip(checkpoint):
    arrays = {"x/0.npy": np.arange(5, dtype=np.uint32), "x/1.npy": np.full((2, 3), np.pi, np.float32)}
    checkpoint("a").write({"history": [{"loss": 0.1}]}, iter(arrays.items()))
    assert checkpoint("a").history() == [{"loss": 0.1}]
    for name, array in arrays.items():
        read = checkpoint("a").read_array(name)
        assert read.dtype == array.dtype
        assert (read == array).all()
