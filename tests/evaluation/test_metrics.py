"""Metrics against scikit-learn's, SciPy's, published ones, and ones computed by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn.metrics import balanced_accuracy_score

from tiny_imagenet.evaluation import metrics


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(successes, trials, low, high):
    assert metrics.wilson_interval(successes, trials) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (10_000, 10_000), (3861, 10_000), (0, 10_000)])
def test_wilsons_interval_is_scipys_and_stays_within_0_and_1(successes, trials):
    expected = binomtest(successes, trials).proportion_ci(method="wilson")
    low, high = metrics.wilson_interval(successes, trials)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low < high <= 1
    assert low - 1e-12 < successes / trials < high + 1e-12


@pytest.mark.parametrize("trials", [1, 10, 13, 60, 200])
def test_wilsons_interval_contains_its_proportion_to_the_last_digit(trials):
    assert metrics.wilson_interval(trials, trials)[1] == 1  # a figure's bar of negative length stops `compare`
    assert metrics.wilson_interval(0, trials)[0] == 0


def calibration_by_hand(confidence: Any, correct: Any) -> float:
    total = 0.0
    for place in range(15):
        inside = (confidence >= place / 15) & ((confidence < (place + 1) / 15) | (place == 14))
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def test_calibration_error_of_an_example_worked_by_hand():
    # Four answers at 0.95, three right: 0.20 apart. Two at 0.5, both right: 0.5 apart. (4 x 0.2 + 2 x 0.5) / 6 = 0.3
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.5, 0.5])
    correct = np.array([True, True, True, False, True, True])
    assert metrics.calibration_error(confidence, correct) == pytest.approx(0.3)


def test_calibration_error_is_the_definition_written_as_a_loop():
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.1, 1, 1000)
    correct = rng.uniform(size=1000) < confidence**2
    expected = calibration_by_hand(confidence, correct)
    assert metrics.calibration_error(confidence, correct) == pytest.approx(expected)


@pytest.mark.parametrize(("confidence", "correct", "error"), [(1.0, True, 0.0), (1.0, False, 1.0), (0.0, False, 0.0)])
def test_calibration_error_at_its_ends(confidence, correct, error):
    found = metrics.calibration_error(np.full(5, confidence, np.float32), np.full(5, correct))
    assert found == pytest.approx(error)


def test_the_calibration_table_counts_every_prediction_once_and_empty_bins_are_nan():
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.5, 1, 400)
    correct = rng.uniform(size=400) < confidence
    table = metrics.calibration_table(confidence, correct)
    assert table["count"].sum() == 400
    assert (table["low"].iloc[0], table["high"].iloc[-1]) == (0, 1)
    filled = table[table["count"] > 0]
    assert filled["confidence"].between(filled["low"], filled["high"]).all()
    assert (filled["accuracy"] * filled["count"]).sum() == pytest.approx(correct.sum())
    assert table[table["count"] == 0][["confidence", "accuracy"]].isna().all(axis=None)
    assert (table["count"] == 0).any()


def test_balanced_accuracy_is_scikit_learns_with_the_interval_of_a_bootstrap_over_images():
    rng = np.random.default_rng(2)
    labels = rng.choice(4, size=300, p=[0.6, 0.2, 0.15, 0.05]).astype(np.int32)
    predicted = np.where(rng.uniform(size=300) < 0.3 + 0.2 * labels, labels, (labels + 1) % 4)
    found = metrics.balanced_accuracy(labels, predicted)
    assert found["val_balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    classes = [(predicted == labels)[labels == label] for label in range(4)]
    recalls = [rng.choice(is_right, (20_000, len(is_right))).mean(axis=1) for is_right in classes]
    low, high = np.quantile(np.mean(recalls, axis=0), [0.025, 0.975])
    assert found["val_balanced_accuracy_low"] == pytest.approx(low, abs=0.005)
    assert found["val_balanced_accuracy_high"] == pytest.approx(high, abs=0.005)


@pytest.mark.parametrize(
    ("right", "count"), [([180, 50, 110, 150], 200), ([390, 40], 400), ([5, 30, 45, 25, 10, 40, 20, 35], 50)]
)
def test_the_interval_of_balanced_accuracy_has_the_exact_probability_of_its_resamples(right, count):
    """Of classes of one size the mean of recalls is a sum of binomials, whose distribution SciPy and NumPy give."""
    labels = np.repeat(np.arange(len(right), dtype=np.int32), count)
    is_right = np.concatenate([np.arange(count) < number for number in right])
    found = metrics.balanced_accuracy(labels, np.where(is_right, labels, len(right)))
    distribution = np.ones(1)
    for number in right:
        distribution = np.convolve(distribution, binom.pmf(np.arange(count + 1), count, number / count))
    values = np.arange(len(distribution)) / (count * len(right))
    deviation = np.sqrt(sum(number * (count - number) / count for number in right)) / (count * len(right))
    # Ends of 2,000 resamples have a standard error of 0.06 deviations, and `values` have steps. The ends of a 90 %
    # interval would be 0.3 deviations away, those of one of 99 % 0.6.
    tolerance = 0.12 * deviation + values[1]
    assert tolerance < 0.3 * deviation
    cumulative = distribution.cumsum()
    for end, probability in (("low", 0.025), ("high", 0.975)):
        exact = values[np.searchsorted(cumulative, probability)]
        assert found[f"val_balanced_accuracy_{end}"] == pytest.approx(exact, abs=tolerance)


def test_the_intervals_of_a_balanced_set_are_those_of_its_accuracies():
    labels = np.repeat(np.arange(5, dtype=np.int32), 20)
    probabilities = np.full((100, 5), 0.1, np.float32)
    answer = np.where(np.arange(100) % 4 > 0, labels, (labels + 1) % 5)
    probabilities[np.arange(100), answer] = 0.6
    found = metrics.validation_metrics(labels, probabilities, np.arange(100) < 40)
    expected = binomtest(75, 100).proportion_ci(method="wilson")
    assert (found["val_accuracy_low"], found["val_accuracy_high"]) == pytest.approx((expected.low, expected.high))
    assert found["val_balanced_accuracy"] == pytest.approx(found["val_accuracy"])
    assert found["val_accuracy_paper_protocol"] == 0.4
    assert (found["val_top5_accuracy"], found["val_top5_accuracy_high"]) == (1, 1)


def test_top_5_breaks_ties_as_argmax_does():
    uniform = np.full((3, 200), 0.005, np.float32)
    found = metrics.validation_metrics(np.array([0, 4, 5], np.int32), uniform, np.ones(3, bool))
    assert found["val_accuracy"] == pytest.approx(1 / 3)
    assert found["val_top5_accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize("right", [True, False])
def test_if_all_are_right_or_wrong_the_interval_of_balanced_accuracy_is_wilsons(right):
    labels = np.repeat(np.arange(10, dtype=np.int32), 20)
    found = metrics.balanced_accuracy(labels, labels if right else (labels + 1) % 10)
    interval = found["val_balanced_accuracy_low"], found["val_balanced_accuracy_high"]
    assert interval == metrics.wilson_interval(200 if right else 0, 200)


def test_the_interval_of_two_classes_one_all_right_and_one_all_wrong_combines_both():
    labels = np.repeat(np.arange(2, dtype=np.int32), [100, 1])
    found = metrics.balanced_accuracy(labels, np.zeros(101, np.int64))
    # By SciPy, Wilson's low end of 100 in 100 is 0.9630, and the high one of 0 in 1 is 0.7935.
    assert found["val_balanced_accuracy"] == 0.5
    assert found["val_balanced_accuracy_low"] == pytest.approx(0.5 - (1 - 0.9630) / 2, abs=1e-4)
    assert found["val_balanced_accuracy_high"] == pytest.approx(0.5 + 0.7935 / 2, abs=1e-4)


def right_and_count(count: int) -> st.SearchStrategy[tuple[int, int]]:
    return st.tuples(st.sampled_from([0, count]) | st.integers(0, count), st.just(count))


@settings(deadline=None)
@given(st.lists(st.integers(1, 60).flatmap(right_and_count), min_size=1, max_size=6))
def test_the_interval_of_balanced_accuracy_contains_it(classes):
    right, counts = np.transpose(classes)
    labels = np.repeat(np.arange(len(classes), dtype=np.int32), counts)
    is_right = np.concatenate([np.arange(count) < number for number, count in classes])
    found = metrics.balanced_accuracy(labels, np.where(is_right, labels, len(classes)))
    value = found["val_balanced_accuracy"]
    assert value == pytest.approx(np.mean(right / counts))
    assert 0 <= found["val_balanced_accuracy_low"] <= value <= found["val_balanced_accuracy_high"] <= 1


def test_a_class_without_images_does_not_count_for_macro_f1():
    clean = np.eye(3, dtype=np.float32)[[0, 0, 1, 1]] * 0.9 + 0.03
    found = metrics.validation_metrics(np.array([0, 0, 1, 1], np.int32), clean, np.ones(4, bool))
    assert found["val_macro_f1"] == found["val_balanced_accuracy"] == 1
