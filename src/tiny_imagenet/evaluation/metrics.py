"""Metrics of predictions with their 95 % intervals. Needs no Keras."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import f1_score, log_loss

CALIBRATION_BINS = 15
TOP = 5
Z = 1.959963984540054
"""Quantile of the normal distribution for 95 %."""
_RESAMPLES = 2000


def validation_metrics(
    labels: NDArray[np.int32], clean: NDArray[np.float32], augmented_is_right: NDArray[np.bool_]
) -> dict[str, float]:
    """Return the keys `val_*` of metrics.json: fractions, each accuracy with its 95 % interval.

    Intervals are Wilson's, except for the balanced accuracy. Balanced accuracy and macro F1 are means over the classes
    that occur. `clean` has the probabilities of the original images, (N, classes).
    """
    classes = np.arange(clean.shape[1])
    predicted = clean.argmax(1)
    is_right = predicted == labels
    wide = clean.astype(np.float64)
    among_top = (most_likely(clean) == labels[:, None]).any(1)
    return {
        **with_interval("val_accuracy", int(is_right.sum()), len(labels)),
        **with_interval("val_accuracy_paper_protocol", int(augmented_is_right.sum()), len(labels)),
        **with_interval("val_top5_accuracy", int(among_top.sum()), len(labels)),
        **balanced_accuracy(labels, predicted),
        "val_loss": float(log_loss(labels, wide / wide.sum(1, keepdims=True), labels=classes)),
        "val_macro_f1": float(f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0)),
        "val_calibration_error": calibration_error(clean.max(1), is_right),
    }


def with_interval(name: str, successes: int, trials: int) -> dict[str, float]:
    """Return a share as `name`, and its 95 % interval as `name_low` and `name_high`."""
    low, high = wilson_interval(successes, trials)
    return {name: successes / trials, f"{name}_low": low, f"{name}_high": high}


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927). It is valid near 0 and 1, and never leaves [0, 1].

    It always contains the proportion: for 60 in 60, floating point would give an upper end of 0.9999999999999999.
    """
    share = successes / trials
    centre = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * np.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    return float(max(0.0, min(share, centre - half))), float(min(1.0, max(share, centre + half)))


def balanced_accuracy(labels: NDArray[np.int32], predicted: NDArray[np.int64]) -> dict[str, float]:
    """Return the mean recall of the classes that occur, with its 95 % bootstrap interval.

    To resample the images of a class is to draw the number of right ones from a binomial distribution. If each class is
    all right or all wrong, all resamples are the same. Then the interval combines Wilson's of each class (Zou and
    Donner 2008, https://doi.org/10.1002/sim.3095). If all images are right, or all wrong, it is Wilson's of all images.
    """
    _, counts = np.unique(labels, return_counts=True)
    right = np.array([(predicted[labels == label] == label).sum() for label in np.unique(labels)])
    recalls = right / counts
    if right.sum() in {0, counts.sum()}:
        low, high = wilson_interval(right.sum(), counts.sum())
    elif np.isin(recalls, (0, 1)).all():
        lows, highs = np.transpose([wilson_interval(*pair) for pair in zip(right, counts, strict=True)])
        low = recalls.mean() - np.linalg.norm(recalls - lows) / len(recalls)
        high = recalls.mean() + np.linalg.norm(highs - recalls) / len(recalls)
    else:
        random = np.random.default_rng(0)
        resampled = (random.binomial(counts, recalls, size=(_RESAMPLES, len(counts))) / counts).mean(1)
        low, high = np.quantile(resampled, [0.025, 0.975])
    return {
        "val_balanced_accuracy": float(recalls.mean()),
        "val_balanced_accuracy_low": float(low),
        "val_balanced_accuracy_high": float(high),
    }


def calibration_table(confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_]) -> pd.DataFrame:
    """Return 15 equal bins of confidence: `low, high, count, confidence, accuracy`. The last two are NaN if empty."""
    bins = np.clip((confidence * CALIBRATION_BINS).astype(int), 0, CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    divisors = np.where(counts == 0, np.nan, counts)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "count": counts,
            "confidence": np.bincount(bins, confidence.astype(np.float64), CALIBRATION_BINS) / divisors,
            "accuracy": np.bincount(bins, correct, CALIBRATION_BINS) / divisors,
        }
    )


def calibration_error(confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_]) -> float:
    """Return the expected calibration error over 15 equal bins (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    It is the mean difference between confidence (the probability of the prediction) and accuracy.
    """
    bins = calibration_table(confidence, correct)
    gaps = (bins["accuracy"] - bins["confidence"]).abs() * bins["count"]
    return float(gaps.sum() / len(confidence))


def most_likely(probabilities: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the five most likely classes of each image, (N, 5), most likely first. Ties: the lower label first.

    So the first equals `argmax`. scikit-learn's `top_k_accuracy_score` breaks ties the other way.
    """
    return np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP]
