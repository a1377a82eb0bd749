"""Fine-tuning in two phases: which weights change in which epoch, learning rates, stops and kept epoch."""

from typing import Any

import numpy as np
import pytest
from standin import TWO_PHASES, packed_digits, small_backbone, small_recipe

HEAD_EPOCHS, EPOCHS = 2, 5
PHASE_OF_EPOCH = [1, 1, 2, 2, 2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def packed():
    return packed_digits()


@pytest.fixture(scope="module", autouse=True)
def backbone(keras):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "VGG16", small_backbone)
        yield


@pytest.fixture(scope="module")
def train(keras, packed):
    """Train a small model in two phases; return the result, and the weights by name after each epoch."""
    from tiny_imagenet.training import train as training

    def train_small(**changes: Any) -> Any:
        keras.utils.set_random_seed(1)
        weights: list[dict[str, np.ndarray]] = []

        def note(epoch: int, logs: Any) -> None:
            weights.append({weight.path: weight.numpy().copy() for weight in callback.model.weights})

        callback = keras.callbacks.LambdaCallback(on_epoch_end=note)
        recipe = small_recipe(**TWO_PHASES | changes)
        return training.train(recipe, packed, seed=1, callbacks=[callback]), weights

    return train_small


@pytest.fixture(scope="module")
def usual(train):
    return train()


@pytest.fixture(scope="module")
def scheduled(train):
    """Return a training with a schedule, of whose backbone the second phase trains the last half."""
    return train(learning_rate_schedule={"decay": "cosine", "warmup_epochs": 1}, **tuning(backbone_share=0.5))


def moved(weights: list[dict[str, np.ndarray]], epoch: int) -> set[str]:
    """Return the names of the weights that an epoch (from 2) has changed."""
    before, after = weights[epoch - 2], weights[epoch - 1]
    return {path for path in after if (after[path] != before[path]).any()}


def tuning(**changes: Any) -> dict[str, Any]:
    return {"fine_tuning": TWO_PHASES["fine_tuning"] | changes}


def test_without_fine_tuning_there_is_one_phase(keras):
    from tiny_imagenet.training.phases import phases

    (only,) = phases(small_recipe(epochs=4))
    assert (only.first_epoch, only.end_epoch, only.is_last) == (0, 4, True)


def test_the_first_phase_changes_the_head_only_and_no_averages_of_the_backbone(usual):
    _, weights = usual
    assert moved(weights, 2) == {"probabilities/kernel", "probabilities/bias"}


def test_the_second_phase_changes_the_backbone_but_not_its_normalization(usual):
    _, weights = usual
    for epoch in (3, 4, 5):
        changed = moved(weights, epoch)
        assert {path for path in changed if path.startswith("conv2d")} == {
            path for path in weights[0] if path.startswith("conv2d")
        }
        assert not any("normalization" in path for path in changed)
        assert {"probabilities/kernel", "probabilities/bias"} <= changed


def test_trained_normalization_changes_in_the_second_phase_only(train):
    _, weights = train(**tuning(batch_normalization="trained"))
    assert not any("normalization" in path for path in moved(weights, 2))
    normalization = {path for path in weights[0] if "normalization" in path}
    assert len(normalization) == 8
    assert normalization <= moved(weights, 3)


def test_backbone_share_trains_the_last_layers(scheduled):
    _, weights = scheduled
    convolutions = [path for path in weights[0] if path.startswith("conv2d") and path.endswith("kernel")]
    assert [path in moved(weights, 3) for path in convolutions] == [False, True]


def test_a_first_phase_without_epochs_is_skipped(packed):
    """`verify --determinism` does this for a single epoch; params.yaml cannot."""
    from tiny_imagenet.training import train as training

    recipe = small_recipe(**TWO_PHASES)
    assert recipe.fine_tuning
    none = recipe.fine_tuning.model_copy(update={"head_epochs": 0})
    trained = training.train(recipe.model_copy(update={"epochs": 1, "fine_tuning": none}), packed, seed=1)
    assert trained.history["phase"].tolist() == [2]
    assert trained.history["learning_rate"].tolist() == [np.float32(0.002)]


def test_each_phase_has_its_learning_rate_and_the_history_names_the_phase(usual):
    history = usual[0].history
    assert history["phase"].tolist() == PHASE_OF_EPOCH
    assert history["epoch"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(history["learning_rate"], [0.02, 0.02, 0.002, 0.002, 0.002], rtol=1e-6)


def test_a_schedule_applies_to_the_second_phase(scheduled):
    history = scheduled[0].history
    np.testing.assert_allclose(history["learning_rate"], [0.02, 0.02, 0.002, 0.001, 0.0], rtol=1e-4, atol=1e-9)


def test_early_stopping_counts_from_the_start_of_the_second_phase(train):
    still = {"optimizer": {"name": "sgd", "learning_rate": 1e-12}, **tuning(learning_rate=1e-12)}
    stop = {"monitor": "val_accuracy", "patience": 1, "restore_best_weights": False}
    # Epoch 3 is the first of its phase; epoch 4 does not improve.
    assert train(early_stopping=stop, **still)[0].history["phase"].tolist() == [1, 1, 2, 2]


RESTORE = {"monitor": "val_loss", "patience": 9, "restore_best_weights": True}


@pytest.mark.parametrize(
    ("changes", "column", "sign"),
    [({"early_stopping": RESTORE}, "val_loss", 1), ({"reported_epoch": "best"}, "val_accuracy", -1)],
)
def test_the_kept_weights_are_those_of_the_best_epoch_of_the_second_phase(train, changes, column, sign):
    # The second phase is too fast: the lowest loss of all epochs is in the first phase.
    trained, weights = train(**tuning(learning_rate=5.0), optimizer={"name": "adamw", "learning_rate": 0.05}, **changes)
    assert trained.history["val_loss"].argmin() < HEAD_EPOCHS
    kept = trained.best_epoch
    assert kept == HEAD_EPOCHS + 1 + int((sign * trained.history[column])[HEAD_EPOCHS:].argmin())
    assert all((weight.numpy() == weights[kept - 1][weight.path]).all() for weight in trained.model.weights)


def test_averaging_of_weights_restarts_in_the_second_phase(train, keras, packed):
    averaged = {"name": "sgd", "learning_rate": 0.05, "ema_momentum": 0.9}
    trained, _ = train(optimizer=averaged)
    losses = keras.losses.sparse_categorical_crossentropy(
        packed.val.labels, trained.model.predict_on_batch(packed.val.images)
    )
    assert float(keras.ops.mean(losses)) == pytest.approx(trained.history["val_loss"].iloc[-1], rel=1e-4)
    assert trained.history["val_loss"].iloc[2] < 1.2 * trained.history["val_loss"].iloc[1]  # no new start
