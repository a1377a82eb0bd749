"""Statistical significance: paired tests of models on the same validation images."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import binomtest, t

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.evaluation.metrics import Z

COLUMNS = [
    "model_a", "model_b", "accuracy_a", "accuracy_b", "difference", "low", "high", "only_a", "only_b", "p", "p_holm",
    "real",
]  # fmt: skip
LEVEL = 0.05


def paired_tests(results: Path, models: Sequence[str]) -> pd.DataFrame:
    """Compare every two models on the same validation images; columns COLUMNS, a row per pair.

    `difference` is the accuracy of `model_a` minus that of `model_b`, with its 95 % interval. `only_a` and `only_b`
    count the images that only one of them has right. `p` comes from McNemar's exact test (1947). `p_holm` is corrected
    for the number of pairs (Holm 1979); `real` is whether it is below 0.05. The test is about these two trained
    models, not about how training varies from seed to seed.

    Models without `<model>/predictions.parquet` in the folder `results` are left out. Raise UserError if predictions
    cannot be read, or if two models were evaluated on different images.
    """
    right = _right_answers(results, models)
    rows = [_pair(a, b, right[a], right[b]) for a, b in combinations(right, 2)]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    if rows:
        frame["p_holm"] = holm(frame["p"].tolist())
        frame["real"] = frame["p_holm"] < LEVEL
    return frame


def holm(probabilities: Sequence[float]) -> list[float]:
    """Return p-values with Holm's step-down correction for their number (1979)."""
    corrected = [1.0] * len(probabilities)
    largest = 0.0
    for rank, index in enumerate(np.argsort(probabilities, kind="stable")):
        largest = max(largest, min(1.0, (len(probabilities) - rank) * probabilities[index]))
        corrected[index] = largest
    return corrected


def paired_interval(only_a: int, only_b: int, images: int) -> tuple[float, float]:
    """Return the 95 % interval of a difference of two accuracies on the same images.

    Wald's interval with half an image added to each of the four cells (Agresti and Min 2005,
    https://doi.org/10.1002/sim.1781). It has a width even if the two models never differ.
    """
    total, a, b = images + 2, only_a + 0.5, only_b + 0.5
    difference = (a - b) / total
    half = Z * float(np.sqrt((a + b) - (a - b) ** 2 / total)) / total
    return max(-1.0, difference - half), min(1.0, difference + half)


def interval_for_another(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % prediction interval for one more value of the same normal distribution, by Student's t.

    Mean ± t s sqrt(1 + 1/n), with the standard deviation s of n values and n - 1 degrees of freedom (Hahn and Meeker,
    Statistical Intervals, 1991, section 4.7).
    """
    number = len(values)
    half = float(t.ppf(1 - LEVEL / 2, number - 1)) * float(np.std(values, ddof=1)) * float(np.sqrt(1 + 1 / number))
    mean = float(np.mean(values))
    return mean - half, mean + half


def _right_answers(results: Path, models: Sequence[str]) -> dict[str, pd.Series]:
    right: dict[str, pd.Series] = {}
    labels: dict[str, pd.Series] = {}
    for model in models:
        path = results / model / "predictions.parquet"
        if not path.is_file():
            continue
        try:
            frame = pd.read_parquet(path, columns=["label", "label_1"])
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): delete it and run `dvc repro`") from None
        labels[model], right[model] = frame["label"], frame["label"] == frame["label_1"]
    first = next(iter(labels), "")
    for model, answers in labels.items():
        if not answers.equals(labels[first]):
            raise UserError(f"{first} and {model} were evaluated on different images: run `dvc repro`")
    return right


def _pair(a: str, b: str, right_a: pd.Series, right_b: pd.Series) -> dict[str, object]:
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    low, high = paired_interval(only_a, only_b, len(right_a))
    return {
        "model_a": a,
        "model_b": b,
        "accuracy_a": float(right_a.mean()),
        "accuracy_b": float(right_b.mean()),
        "difference": (only_a - only_b) / len(right_a),
        "low": low,
        "high": high,
        "only_a": only_a,
        "only_b": only_b,
        "p": float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0,
    }
