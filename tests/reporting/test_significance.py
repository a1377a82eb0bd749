"""Paired tests: against the textbook's example, SciPy, and coverage by simulation."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, norm

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.reporting import significance


def write(results: Path, model: str, right: list[bool], labels: list[int] | None = None) -> None:
    truth = np.array(labels if labels is not None else [1] * len(right))
    (results / model).mkdir(parents=True)
    frame = pd.DataFrame({"label": truth, "label_1": np.where(right, truth, truth + 1)})
    frame.to_parquet(results / model / "predictions.parquet")


def made(results: Path, both: int, only_a: int, only_b: int, neither: int) -> pd.DataFrame:
    write(results, "a", [True] * both + [True] * only_a + [False] * only_b + [False] * neither)
    write(results, "b", [True] * both + [False] * only_a + [True] * only_b + [False] * neither)
    return significance.paired_tests(results, ["a", "b"])


def test_a_pair_counts_images_that_only_one_model_predicts_right(tmp_path):
    row = made(tmp_path, both=50, only_a=30, only_b=10, neither=10).iloc[0]
    assert (row["only_a"], row["only_b"]) == (30, 10)
    assert row["accuracy_a"] == 0.8
    assert row["accuracy_b"] == 0.6
    assert row["difference"] == pytest.approx(0.2)
    assert row["low"] < 0.2 < row["high"]
    # Exact, two-sided: twice the chance of ten or fewer heads in forty tosses.
    assert row["p"] == pytest.approx(2 * binom.cdf(10, 40, 0.5))
    assert row["real"]


def test_models_with_equal_predictions_do_not_differ(tmp_path):
    row = made(tmp_path, both=5, only_a=0, only_b=0, neither=5).iloc[0]
    assert (row["difference"], row["p"], row["real"]) == (0, 1, False)
    assert row["low"] < 0 < row["high"]


def test_every_pair_has_a_row_in_the_order_of_the_models(tmp_path):
    for model in "cab":
        write(tmp_path, model, [True, False])
    found = significance.paired_tests(tmp_path, ["c", "a", "missing", "b"])
    assert list(zip(found["model_a"], found["model_b"], strict=True)) == [("c", "a"), ("c", "b"), ("a", "b")]
    assert list(found.columns) == significance.COLUMNS


@pytest.mark.parametrize("models", [[], ["one"]])
def test_without_a_pair_there_is_an_empty_table(models, tmp_path):
    write(tmp_path, "one", [True])
    found = significance.paired_tests(tmp_path, models)
    assert found.empty
    assert list(found.columns) == significance.COLUMNS


def test_holm_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2, 0.5 x 1; none below the one before it.
    assert significance.holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert significance.holm([0.9, 0.8]) == [1.0, 1.0]
    assert significance.holm([]) == []


def test_the_interval_is_the_published_one():
    """The example of R's package PropCIs 0.3-0, `diffpropci.mp(b = 40, c = 20, n = 160)`, with the other sign."""
    assert significance.paired_interval(40, 20, 160) == pytest.approx((0.03089632, 0.21601726), abs=5e-9)


@pytest.mark.parametrize(("only_a", "only_b", "images"), [(40, 20, 160), (3, 9, 32), (0, 1, 20), (700, 650, 10_000)])
def test_the_interval_is_that_of_a_multinomial_with_half_an_image_more_in_each_cell(only_a, only_b, images):
    cells = np.array([only_a, only_b, images - only_a - only_b, 0]) + 0.5
    share = cells / cells.sum()
    contrast = np.array([1, -1, 0, 0])
    covariance = (np.diag(share) - np.outer(share, share)) / cells.sum()
    difference, deviation = contrast @ share, np.sqrt(contrast @ covariance @ contrast)
    expected = norm(difference, deviation).interval(0.95)
    assert significance.paired_interval(only_a, only_b, images) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("only_a", "only_b"), [(0.05, 0.05), (0.3, 0.1), (0.05, 0.01)])
def test_the_interval_covers_the_true_difference_as_often_as_it_says(only_a, only_b):
    random = np.random.default_rng(0)
    inside = 0
    for a, b, _ in random.multinomial(200, [only_a, only_b, 1 - only_a - only_b], size=2000):
        low, high = significance.paired_interval(int(a), int(b), 200)
        inside += low <= only_a - only_b <= high
    assert inside / 2000 > 0.93


def test_the_interval_stays_within_what_a_difference_can_be():
    assert significance.paired_interval(1, 0, 1)[1] <= 1
    assert significance.paired_interval(0, 1, 1)[0] >= -1


def test_models_evaluated_on_different_images_are_not_compared(tmp_path):
    write(tmp_path, "a", [True, True], labels=[0, 1])
    write(tmp_path, "b", [True, True], labels=[1, 0])
    with pytest.raises(UserError, match="a and b were evaluated on different images"):
        significance.paired_tests(tmp_path, ["a", "b"])


def test_damaged_predictions_are_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "predictions.parquet").write_bytes(b"no parquet")
    with pytest.raises(UserError, match=r"a/predictions\.parquet cannot be read"):
        significance.paired_tests(tmp_path, ["a"])


def test_the_interval_for_another_training_contains_it_in_95_of_100_cases():
    drawn = np.random.default_rng(0).normal(0.3, 0.01, (6000, 4))
    intervals = np.array([significance.interval_for_another(list(first)) for first in drawn[:, :3]])
    contained = (intervals[:, 0] <= drawn[:, 3]) & (drawn[:, 3] <= intervals[:, 1])
    assert contained.mean() == pytest.approx(0.95, abs=0.008)  # without 1/n, or with n for n - 1: 0.93 and 0.91


def test_the_interval_for_another_training_has_the_tabulated_t():
    """t of 4 degrees of freedom is 2.776 at 97.5 %; the mean of 1 to 5 is 3, their variance 2.5."""
    low, high = significance.interval_for_another([1, 2, 3, 4, 5])
    assert (low + high) / 2 == pytest.approx(3)
    assert high - 3 == pytest.approx(2.776 * (2.5 * 1.2) ** 0.5, rel=1e-3)
