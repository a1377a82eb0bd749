"""Evaluation of a model against metrics of scikit-learn and SciPy, and metrics computed by hand."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics
from standin import packed_digits, small_recipe

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.recipe import PAPER_AUGMENTATION, ModelParams
from tiny_imagenet.input_pipeline.augmentation import Augmenter
from tiny_imagenet.input_pipeline.packed import PackedDataset

KEYS = [
    "train_accuracy",
    "train_accuracy_low",
    "train_accuracy_high",
    "train_accuracy_clean",
    "train_accuracy_clean_low",
    "train_accuracy_clean_high",
    "val_accuracy",
    "val_accuracy_low",
    "val_accuracy_high",
    "val_accuracy_paper_protocol",
    "val_accuracy_paper_protocol_low",
    "val_accuracy_paper_protocol_high",
    "val_top5_accuracy",
    "val_top5_accuracy_low",
    "val_top5_accuracy_high",
    "val_balanced_accuracy",
    "val_balanced_accuracy_low",
    "val_balanced_accuracy_high",
    "val_loss",
    "val_macro_f1",
    "val_calibration_error",
    "num_images",
    "num_train_images",
    "epochs",
    "best_epoch",
]
HISTORY = pd.DataFrame(
    {
        "epoch": [1, 2, 3, 4],
        "accuracy": [0.1, 0.2, 0.4, 0.3],
        "val_accuracy": [0.1, 0.5, 0.5, 0.4],
        "loss": [4.0, 3.0, 1.0, 2.0],
        "val_loss": [4.0, 2.0, 2.0, 3.0],
        "learning_rate": [0.1] * 4,
    }
)
LAST = ModelParams(architecture="two_conv", optimizer={"name": "adam", "learning_rate": 0.1})


@pytest.fixture(scope="module")
def evaluation(keras):
    from tiny_imagenet.evaluation import evaluate

    return evaluate


@pytest.fixture(scope="module")
def packed():
    return packed_digits(num_train=150, num_val=130)


@pytest.fixture(scope="module")
def model(keras, packed):
    """Return a model that was trained for some steps."""
    from tiny_imagenet.training.build import build_model

    keras.utils.set_random_seed(3)
    model = build_model(small_recipe(), num_classes=10, weights_file=None)
    for _ in range(8):
        model.train_on_batch(packed.train.images, packed.train.labels)
    return model


@pytest.fixture(scope="module")
def measured(evaluation, model, packed):
    return evaluation.evaluate(model, packed, HISTORY, LAST, best_epoch=4)


@pytest.fixture(scope="module")
def flipped(evaluation, model, packed):
    return evaluation.evaluate(model, packed, HISTORY, LAST.model_copy(update={"flip_at_test": True}), best_epoch=4)


@pytest.fixture(scope="module")
def probabilities(model, packed):
    return model.predict_on_batch(packed.val.images).astype(np.float64)


# --- all of evaluate ---


def test_metrics_have_exactly_their_keys_in_order_and_are_plain_numbers(measured):
    assert list(measured.metrics.as_dict()) == KEYS
    assert {type(value) for value in measured.metrics.as_dict().values()} == {float, int}


def test_accuracies_are_shares_of_images_predicted_right(measured, packed, model, probabilities):
    right = probabilities.argmax(1) == packed.val.labels
    assert 0.2 < right.mean() < 0.99  # a model that is always or never right would not test much
    assert measured.metrics.val_accuracy == pytest.approx(right.sum() / 130)
    assert measured.metrics.num_images == 130
    clean = model.predict_on_batch(packed.train.images).argmax(1) == packed.train.labels
    assert measured.metrics.train_accuracy_clean == pytest.approx(clean.mean())


def test_the_clean_training_accuracy_excludes_held_out_images(evaluation, packed, model):
    """The last 3 images of each class, in the order of the split."""
    labels = packed.train.labels
    held_out = np.concatenate([np.flatnonzero(labels == label)[-3:] for label in range(packed.num_classes)])
    right = np.delete(model.predict_on_batch(packed.train.images).argmax(1) == labels, held_out)
    recipe = LAST.model_copy(update={"holdout_per_class": 3})
    measured = evaluation.evaluate(model, packed, HISTORY, recipe, best_epoch=4)
    assert measured.metrics.train_accuracy_clean == pytest.approx(right.mean())


def test_the_interval_is_wilsons_for_the_number_of_validation_images(measured):
    interval = binomtest(round(measured.metrics.val_accuracy * 130), 130).proportion_ci(method="wilson")
    assert measured.metrics.val_accuracy_low == pytest.approx(interval.low)
    assert measured.metrics.val_accuracy_high == pytest.approx(interval.high)


def test_top_5_counts_labels_among_the_five_likeliest(measured, packed, probabilities):
    five = np.argsort(-probabilities)[:, :5]
    expected = np.mean([label in likeliest for label, likeliest in zip(packed.val.labels, five, strict=True)])
    assert measured.metrics.val_top5_accuracy == pytest.approx(expected)


def test_the_loss_is_pure_cross_entropy(measured, packed, probabilities):
    expected = -np.log(probabilities[np.arange(130), packed.val.labels]).mean()
    assert measured.metrics.val_loss == pytest.approx(expected, rel=1e-5)


def test_macro_f1_is_the_mean_over_classes(measured):
    confusion = measured.confusion
    right = np.diag(confusion)
    f1 = 2 * right / np.maximum(confusion.sum(0) + confusion.sum(1), 1)
    assert measured.metrics.val_macro_f1 == pytest.approx(f1.mean())


def test_paper_protocol_is_accuracy_on_images_augmented_with_a_fixed_seed(measured, model, packed):
    augment = Augmenter(PAPER_AUGMENTATION, seed=0, num_images=130)
    augmented = augment(packed.val.images, np.arange(130), 0)
    expected = (model.predict_on_batch(augmented).argmax(1) == packed.val.labels).mean()
    assert measured.metrics.val_accuracy_paper_protocol == pytest.approx(expected)
    assert expected != measured.metrics.val_accuracy


def test_flip_at_test_takes_the_mean_of_both_views_in_every_metric(flipped, model, packed):
    def mean(images: Any) -> Any:
        return (model.predict_on_batch(images) + model.predict_on_batch(np.flip(images, 2))) / 2

    clean = mean(packed.val.images)
    augment = Augmenter(PAPER_AUGMENTATION, seed=0, num_images=130)
    expected = {
        "val_accuracy": (clean.argmax(1) == packed.val.labels).mean(),
        "val_loss": -np.log(clean[np.arange(130), packed.val.labels].astype(np.float64)).mean(),
        "val_accuracy_paper_protocol": (
            mean(augment(packed.val.images, np.arange(130), 0)).argmax(1) == packed.val.labels
        ).mean(),
        "train_accuracy_clean": (mean(packed.train.images).argmax(1) == packed.train.labels).mean(),
    }
    assert {key: getattr(flipped.metrics, key) for key in expected} == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(flipped.predictions["probability_1"], clean.max(1), rtol=1e-5)


def test_flip_at_test_also_gives_the_accuracy_of_the_saved_model(flipped, measured):
    ours, theirs = flipped.metrics.as_dict(), measured.metrics.as_dict()
    own = ["val_accuracy_one_view", "val_accuracy_one_view_low", "val_accuracy_one_view_high", "num_views"]
    index = KEYS.index("num_images")
    assert list(ours) == [*KEYS[:index], *own, *KEYS[index:]]
    for end in ("", "_low", "_high"):
        assert ours[f"val_accuracy_one_view{end}"] == theirs[f"val_accuracy{end}"]
    assert flipped.metrics.num_views == 2
    assert flipped.metrics.val_loss != measured.metrics.val_loss


def test_evaluating_twice_gives_the_same_metrics(evaluation, measured, model, packed):
    again = evaluation.evaluate(model, packed, HISTORY, LAST, best_epoch=4)
    assert again.metrics == measured.metrics
    pd.testing.assert_frame_equal(again.predictions, measured.predictions)


def test_metrics_of_the_log_are_those_of_the_best_epoch(measured, evaluation, model, packed):
    assert measured.metrics.train_accuracy == 0.3
    assert (measured.metrics.epochs, measured.metrics.best_epoch) == (4, 4)
    best = evaluation.evaluate(model, packed, HISTORY, LAST, best_epoch=2)
    assert best.metrics.train_accuracy == 0.2
    assert (best.metrics.epochs, best.metrics.best_epoch) == (4, 2)


@pytest.mark.parametrize(("batches", "images"), [("all", 150), (2, 100), (9, 150)])
def test_the_interval_of_the_log_is_wilsons_for_the_images_of_an_epoch(batches, images, evaluation, model, packed):
    recipe = LAST.model_copy(update={"batches_per_epoch": batches, "batch_size": 50})
    found = evaluation.evaluate(model, packed, HISTORY, recipe, best_epoch=4).metrics
    interval = binomtest(round(0.3 * images), images).proportion_ci(method="wilson")
    assert found.train_accuracy_low == pytest.approx(interval.low)
    assert found.train_accuracy_high == pytest.approx(interval.high)


def test_confusion_has_true_classes_in_rows(measured, packed, probabilities):
    expected = np.zeros((10, 10), int)
    np.add.at(expected, (packed.val.labels, probabilities.argmax(1)), 1)
    np.testing.assert_array_equal(measured.confusion, expected)


def test_confusion_pairs_are_the_matrix_by_name_the_diagonal_and_then_the_largest_first(measured, packed):
    frame, names = measured.confusion_pairs, packed.class_names
    assert list(frame.columns) == ["actual", "predicted", "count"]
    found = frame.pivot_table(index="actual", columns="predicted", values="count", fill_value=0, aggfunc="sum")
    np.testing.assert_array_equal(found.loc[names, names], measured.confusion)
    assert not frame.duplicated(["actual", "predicted"]).any()
    assert frame["actual"][:10].tolist() == frame["predicted"][:10].tolist() == names
    assert len(frame) > 10
    assert (frame["count"][10:] > 0).all()
    assert frame["count"][10:].is_monotonic_decreasing


def test_classes_with_the_same_name_are_distinguished_by_their_wnids(evaluation, packed, model):
    """ImageNet has two cranes, a bird and a machine."""
    names = ["crane, a bird", "crane", *packed.classes["name"][2:]]
    cranes = PackedDataset(packed.train, packed.val, packed.classes.assign(name=names))
    found = evaluation.evaluate(model, cranes, HISTORY, LAST, best_epoch=4).confusion_pairs["actual"][:3].tolist()
    first, second, _ = packed.classes["wnid"][:3]
    assert found == [f"crane ({first})", f"crane ({second})", packed.class_names[2]]


def test_per_class_has_a_row_for_each_class_with_its_names(measured, packed, probabilities):
    frame = measured.per_class
    assert list(frame.columns) == ["label", "wnid", "name", "precision", "recall", "f1", "support"]
    assert frame["wnid"].tolist() == packed.classes["wnid"].tolist()
    expected = sklearn_metrics.classification_report(
        packed.val.labels, probabilities.argmax(1), output_dict=True, zero_division=0
    )
    for row in frame.to_dict("records"):
        theirs = expected[str(row["label"])]
        found = [row[key] for key in ("precision", "recall", "f1", "support")]
        assert found == pytest.approx([theirs[key] for key in ("precision", "recall", "f1-score", "support")])


def test_predictions_are_the_five_likeliest_in_order(measured, packed, probabilities):
    frame = measured.predictions
    assert frame["image"].tolist() == list(range(130))
    assert frame["label"].tolist() == packed.val.labels.tolist()
    top = np.argsort(-probabilities, axis=1)[:, :5]
    np.testing.assert_array_equal(frame[[f"label_{place}" for place in range(1, 6)]], top)
    chances = frame[[f"probability_{place}" for place in range(1, 6)]].to_numpy()
    np.testing.assert_allclose(chances, np.take_along_axis(probabilities, top, 1), rtol=1e-5)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_datasets_of_few_classes_can_be_evaluated(num_classes, keras, evaluation, recwarn):
    from tiny_imagenet.models.registry import build_classifier

    packed = packed_digits(num_train=8, num_val=8, num_classes=num_classes)
    model = build_classifier(
        "two_conv", input_shape=(64, 64, 3), num_classes=num_classes, filters=[2], dense_units=2, l2=0.0
    )
    measured = evaluation.evaluate(model, packed, HISTORY, LAST, best_epoch=4)
    assert measured.metrics.val_top5_accuracy == 1.0
    assert measured.predictions.shape == (8, 2 + 2 * num_classes)
    assert [str(warning.message) for warning in recwarn if "sklearn" in str(warning.filename)] == []


def test_a_model_that_returns_nan_is_refused_with_a_message(keras, evaluation, packed):
    from tiny_imagenet.models.registry import build_classifier

    broken = build_classifier("two_conv", input_shape=(64, 64, 3), num_classes=10, filters=[2], dense_units=2, l2=0.0)
    broken.set_weights([np.full_like(weights, np.nan) for weights in broken.get_weights()])
    number = len(packed.val.labels)
    with pytest.raises(UserError, match=f"NaN for {number} of {number} images"):
        evaluation.evaluate(broken, packed, HISTORY, LAST, best_epoch=4)


def test_a_class_without_validation_images_counts_as_zero(evaluation, model, packed):
    some = packed.val.labels != 3
    reduced = PackedDataset(
        packed.train, type(packed.val)(packed.val.images[some], packed.val.labels[some]), packed.classes
    )
    measured = evaluation.evaluate(model, reduced, HISTORY, LAST, best_epoch=4)
    assert measured.per_class["support"][3] == 0
    assert measured.confusion.shape == (10, 10)
    assert all(math.isfinite(value) for value in measured.metrics.as_dict().values())


# --- its parts ---


BUILDS: dict[str, dict[str, Any]] = {
    "two_conv": {"filters": [2, 3], "dense_units": 5},
    "three_conv": {"filters": [2, 3], "dense_units": 5},
    "deep_conv": {"filters": [2, 3], "dense_units": [5, 4]},
    "deep_conv_dropout": {"filters": [2, 3], "dense_units": 5},
    "resnet50": {"dense_units": 5},
}


@pytest.mark.parametrize("architecture", BUILDS)
def test_parameters_with_200_classes_are_those_of_a_model_that_has_200(architecture, evaluation):
    from tiny_imagenet.models.registry import build_classifier

    def build(num_classes: int) -> Any:
        build = BUILDS[architecture]
        return build_classifier(architecture, input_shape=(64, 64, 3), num_classes=num_classes, **build)

    ours, theirs = build(10), build(200)
    described = evaluation.describe_architecture(ours)
    assert described["parameters"] == ours.count_params()
    assert described["parameters_200_classes"] == theirs.count_params()
    assert sum(layer["parameters"] for layer in described["layers"]) == described["parameters"]
    assert described["layers"][-1]["output_shape"] == [10]


def test_the_files_contain_what_was_measured(evaluation, measured, tmp_path):
    folder = tmp_path / "results" / "model_1"
    folder.mkdir(parents=True)
    (folder / "confusion.png").write_text("of an earlier version")
    evaluation.write_evaluation(measured, folder, model_md5="0a" * 16)
    assert {file.name for file in folder.iterdir()} == {
        "architecture.json",
        "calibration.csv",
        "confusion.csv",
        "confusion.npy",
        "metrics.json",
        "per_class.csv",
        "predictions.parquet",
    }
    assert json.loads((folder / "metrics.json").read_text()) == measured.metrics.as_dict()
    assert json.loads((folder / "architecture.json").read_text()) == measured.architecture | {"model_md5": "0a" * 16}
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "predictions.parquet"), measured.predictions)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "per_class.csv"), measured.per_class)
    pd.testing.assert_frame_equal(pd.read_csv(folder / "confusion.csv"), measured.confusion_pairs)
    np.testing.assert_array_equal(np.load(folder / "confusion.npy"), measured.confusion)


def test_the_same_measurements_give_the_same_bytes(evaluation, measured, tmp_path):
    for name in ("one", "two"):
        evaluation.write_evaluation(measured, tmp_path / "results" / name, model_md5="0a" * 16)
    for file in (tmp_path / "results" / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "results" / "two" / file.name).read_bytes()
