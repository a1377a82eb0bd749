"""Predictions and metrics of one trained model, on clean images and under the paper's protocol.

Clean accuracy is the one to believe. The paper's authors augmented their validation images too, so the figure that
compares with theirs is measured on augmented ones, drawn with a fixed seed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from tiny_imagenet.dataset.arrays import PackedDataset, Split
from tiny_imagenet.dataset.batches import OrderedBatches, hold_out
from tiny_imagenet.files import replaced, write_text
from tiny_imagenet.progress import track
from tiny_imagenet.recipe import PAPER_AUGMENTATION, Augmentation, ModelParams

_BATCH_SIZE = 128
_CALIBRATION_BINS = 15
_TOP = 5


@dataclass(frozen=True)
class Evaluation:
    """Everything that `evaluate` writes for a model."""

    metrics: dict[str, float | int]
    """The keys of metrics.json, accuracies as fractions."""
    per_class: pd.DataFrame
    predictions: pd.DataFrame
    confusion: NDArray[np.int64]
    """Rows: true class, columns: predicted class, on clean validation images."""
    confusion_pairs: pd.DataFrame
    """The same with the classes' names, a row per pair: `actual`, `predicted`, `count`."""
    architecture: dict[str, Any]
    """The layers, `parameters`, and `parameters_200_classes`."""


def evaluate(model: keras.Model, packed: PackedDataset, history: pd.DataFrame, recipe: ModelParams) -> Evaluation:
    """Measure a model on all of the cache.

    Args:
        model: from uint8 RGB images to class probabilities.
        packed: the images; both splits are used.
        history: a row per epoch, as training wrote it.
        recipe: says which epoch's weights the model holds.
    """
    labels = packed.val.labels
    clean = predict(model, packed.val, "validation, clean")
    augmented = predict(model, packed.val, "validation, paper protocol", PAPER_AUGMENTATION)
    training = predict(model, packed.train, "training, clean")
    trained_on, _ = hold_out(packed.train.labels, recipe.holdout_per_class)

    predicted = clean.argmax(1)
    all_labels = np.arange(packed.num_classes)
    confusion = confusion_matrix(labels, predicted, labels=all_labels)
    correct = int((predicted == labels).sum())
    low, high = wilson_interval(correct, len(labels))
    best = kept_epoch(history, recipe)
    metrics: dict[str, float | int] = {
        "train_accuracy": float(history["accuracy"].iloc[best - 1]),
        "train_accuracy_clean": float((training.argmax(1) == packed.train.labels)[trained_on].mean()),
        "val_accuracy": correct / len(labels),
        "val_accuracy_low": low,
        "val_accuracy_high": high,
        "val_accuracy_paper_protocol": float((augmented.argmax(1) == labels).mean()),
        "val_top5_accuracy": _top_k_accuracy(labels, clean, min(_TOP, packed.num_classes)),
        "val_loss": float(log_loss(labels, _normalised(clean), labels=all_labels)),
        "val_macro_f1": float(f1_score(labels, predicted, labels=all_labels, average="macro", zero_division=0)),
        "val_calibration_error": calibration_error(clean.max(1), predicted == labels),
        "num_images": len(labels),
        "epochs": len(history),
        "best_epoch": best,
    }
    return Evaluation(
        metrics,
        _per_class(labels, predicted, packed),
        _predictions(labels, clean),
        confusion,
        _confusion_pairs(confusion, packed),
        describe_architecture(model),
    )


def predict(
    model: keras.Model, split: Split, description: str, augmentation: Augmentation | None = None
) -> NDArray[np.float32]:
    """Return the probabilities, N x classes, of a split in its own order."""
    batches = OrderedBatches(split, batch_size=_BATCH_SIZE, augmentation=augmentation)
    indices = track(range(len(batches)), f"evaluate {description}", len(batches))
    return np.concatenate([model.predict_on_batch(batches[index][0]) for index in indices])


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % interval of a proportion (Wilson 1927): right also near 0 and 1, never outside them."""
    z = 1.959963984540054
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return float(max(0.0, centre - half)), float(min(1.0, centre + half))


def calibration_error(confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_]) -> float:
    """Return the expected calibration error over 15 equal bins (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    The mean distance between how sure a model is (the probability of its answer) and how often it is right.
    """
    bins = np.clip((confidence * _CALIBRATION_BINS).astype(int), 0, _CALIBRATION_BINS - 1)
    gaps = np.bincount(bins, weights=correct - confidence.astype(np.float64), minlength=_CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def kept_epoch(history: pd.DataFrame, recipe: ModelParams) -> int:
    """Return the epoch, from 1, whose weights the recipe keeps."""
    if recipe.reported_epoch == "best":
        return int(history[recipe.monitored("val_accuracy")].argmax()) + 1
    if recipe.reported_epoch == "recipe" and recipe.early_stopping and recipe.early_stopping.restore_best_weights:
        monitored = history[recipe.monitored(recipe.early_stopping.monitor)]
        better = monitored.argmax() if recipe.early_stopping.monitor.endswith("accuracy") else monitored.argmin()
        return int(better) + 1
    return len(history)


def describe_architecture(model: keras.Model) -> dict[str, Any]:
    """Return the layers as the paper's figures 5 to 8 list them, and the parameters of the whole.

    `parameters_200_classes` is what the model would have with Tiny ImageNet's 200 classes: its last layer has a weight
    for each feature, and one more, for each class.
    """
    layers = [
        {
            "name": layer.name,
            "type": type(layer).__name__,
            "output_shape": list(layer.output.shape[1:]),
            "parameters": layer.count_params(),
        }
        for layer in model.layers
    ]
    features, num_classes = model.layers[-1].kernel.shape
    parameters = model.count_params()
    return {
        "parameters": parameters,
        "parameters_200_classes": parameters + (200 - num_classes) * (features + 1),
        "batch_normalization_layers": sum(
            type(layer).__name__ == "BatchNormalization"
            for layer in model._flatten_layers(include_self=False, recursive=True)
        ),
        "layers": layers,
    }


def write_evaluation(evaluation: Evaluation, folder: Path) -> None:
    """Write `{metrics,architecture}.json`, `{per_class,confusion}.csv`, `predictions.parquet` and `confusion.npy`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "metrics.json", json.dumps(evaluation.metrics, indent=2) + "\n")
    write_text(folder / "architecture.json", json.dumps(evaluation.architecture, indent=2) + "\n")
    write_text(folder / "per_class.csv", evaluation.per_class.to_csv(index=False))
    write_text(folder / "confusion.csv", evaluation.confusion_pairs.to_csv(index=False))
    with replaced(folder / "predictions.parquet") as partial:
        evaluation.predictions.to_parquet(partial, index=False)
    with replaced(folder / "confusion.npy") as partial, partial.open("wb") as stream:
        np.save(stream, evaluation.confusion)


def _normalised(probabilities: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = probabilities.astype(np.float64)
    normalised: NDArray[np.float64] = wide / wide.sum(1, keepdims=True)
    return normalised


def _top_k_accuracy(labels: NDArray[np.int32], probabilities: NDArray[np.float32], k: int) -> float:
    num_classes = probabilities.shape[1]
    if k >= num_classes:  # always among them; scikit-learn warns, and takes two classes for a binary task
        return 1.0
    return float(top_k_accuracy_score(labels, probabilities, k=k, labels=np.arange(num_classes)))


def _per_class(labels: NDArray[np.int32], predicted: NDArray[np.int64], packed: PackedDataset) -> pd.DataFrame:
    scores = precision_recall_fscore_support(labels, predicted, labels=np.arange(packed.num_classes), zero_division=0)
    return packed.classes.assign(**dict(zip(("precision", "recall", "f1", "support"), scores, strict=True)))


def _confusion_pairs(confusion: NDArray[np.int64], packed: PackedDataset) -> pd.DataFrame:
    """Return `actual`, `predicted`, `count`: each class with itself, then the confusions that occur, the largest first.

    As both columns begin with all classes in their order, so do the axes of a plot. A name that several classes bear
    is followed by the wnid.
    """
    names = pd.Series(packed.class_names)
    names = names.mask(names.duplicated(keep=False), names + " (" + packed.classes["wnid"].astype(str) + ")")
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    actual, predicted = np.nonzero(wrong)
    largest_first = np.argsort(-wrong[actual, predicted], kind="stable")
    every = np.arange(len(names))
    rows = np.concatenate([every, actual[largest_first]])
    columns = np.concatenate([every, predicted[largest_first]])
    return pd.DataFrame(
        {
            "actual": names.to_numpy()[rows],
            "predicted": names.to_numpy()[columns],
            "count": confusion[rows, columns],
        }
    )


def _predictions(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> pd.DataFrame:
    """Return a row per validation image: its label, and the five likeliest classes with their probabilities."""
    top = np.argsort(-probabilities, axis=1, kind="stable")[:, :_TOP]
    chances = np.take_along_axis(probabilities, top, axis=1)
    frame = pd.DataFrame({"image": np.arange(len(labels), dtype=np.int32), "label": labels})
    for place in range(top.shape[1]):
        frame[f"label_{place + 1}"] = top[:, place].astype(np.int32)
        frame[f"probability_{place + 1}"] = chances[:, place]
    return frame
