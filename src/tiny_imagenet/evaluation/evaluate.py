"""Predictions and metrics of one trained model, on clean images and under the paper's protocol.

The clean accuracy is the right measure. The authors augmented their validation images too. To compare with their
accuracy, use the one of the paper's protocol: images augmented with a fixed seed.
"""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from tiny_imagenet.backend.layers import batch_normalizations
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import replaced, write_text
from tiny_imagenet.common.progress import track
from tiny_imagenet.config.recipe import PAPER_AUGMENTATION, Augmentation, ModelParams
from tiny_imagenet.evaluation.metrics import (
    calibration_table,
    most_likely,
    validation_metrics,
    wilson_interval,
    with_interval,
)
from tiny_imagenet.input_pipeline.batches import OrderedBatches, hold_out
from tiny_imagenet.input_pipeline.packed import PackedDataset, Split
from tiny_imagenet.repository.records import Architecture, Metrics

_BATCH_SIZE = 100  # a divisor of Tiny ImageNet's splits: the model is compiled for one shape only


@dataclass(frozen=True)
class Evaluation:
    """Everything that `evaluate` writes for a model."""

    metrics: Metrics
    per_class: pd.DataFrame
    predictions: pd.DataFrame
    confusion: NDArray[np.int64]
    """Number of clean validation images. Rows: true class. Columns: predicted class."""
    confusion_pairs: pd.DataFrame
    """The same with class names, a row per pair: `actual`, `predicted`, `count`."""
    calibration: pd.DataFrame
    """`metrics.calibration_table` of the clean validation images."""
    architecture: dict[str, Any]
    """`architecture.json` without the MD5 of the model's file."""


def evaluate(
    model: keras.Model, packed: PackedDataset, history: pd.DataFrame, recipe: ModelParams, *, best_epoch: int
) -> Evaluation:
    """Measure a model, from uint8 RGB images to class probabilities, on all images of both splits.

    `history` has a row per epoch, `best_epoch` is the epoch of the model's weights, from 1. With `flip_at_test`, all
    metrics use the mean of the probabilities of an image and its mirror image, except `val_accuracy_one_view`.
    """
    labels, flip = packed.val.labels, recipe.flip_at_test
    clean = predict(model, packed.val, "validation, clean", flip=flip)
    augmented = predict_labels(model, packed.val, "validation, paper protocol", PAPER_AUGMENTATION, flip=flip)
    training = predict_labels(model, packed.train, "training, clean", flip=flip)
    trained_on, _ = hold_out(packed.train, recipe.holdout_per_class)
    train_is_right = (training == packed.train.labels)[trained_on]

    predicted = clean.argmax(1)
    confusion = confusion_matrix(labels, predicted, labels=np.arange(packed.num_classes))
    metrics = Metrics.model_validate(
        {
            **_logged_accuracy(float(history["accuracy"].iloc[best_epoch - 1]), len(trained_on), recipe),
            **with_interval("train_accuracy_clean", int(train_is_right.sum()), len(trained_on)),
            **validation_metrics(labels, clean, augmented == labels),
            **(_one_view(model, packed.val) if flip else {}),
            "num_images": len(labels),
            "num_train_images": len(trained_on),
            "epochs": len(history),
            "best_epoch": best_epoch,
        }
    )
    return Evaluation(
        metrics,
        _per_class(labels, predicted, packed),
        _predictions(labels, clean),
        confusion,
        _confusion_pairs(confusion, packed),
        calibration_table(clean.max(1), predicted == labels),
        describe_architecture(model),
    )


def _logged_accuracy(share: float, num_images: int, recipe: ModelParams) -> dict[str, float]:
    """Return the training accuracy of the log, with the interval for the number of images of an epoch."""
    if recipe.batches_per_epoch != "all":
        num_images = min(num_images, recipe.batches_per_epoch * recipe.batch_size)
    low, high = wilson_interval(round(share * num_images), num_images)
    return {"train_accuracy": share, "train_accuracy_low": low, "train_accuracy_high": high}


def _one_view(model: keras.Model, val: Split) -> dict[str, float]:
    """Return the accuracy without mirror images, as when the model is served, and the views of the other metrics."""
    is_right = predict_labels(model, val, "validation, one view") == val.labels
    return {**with_interval("val_accuracy_one_view", int(is_right.sum()), len(is_right)), "num_views": 2}


def predict(
    model: keras.Model, split: Split, description: str, augmentation: Augmentation | None = None, *, flip: bool = False
) -> NDArray[np.float32]:
    """Return the probabilities of a split, N x classes, in its order. With `flip`, average over both mirror images.

    Raise UserError if a probability is not finite.
    """
    probabilities = np.concatenate(list(_predicted_batches(model, split, description, augmentation, flip=flip)))
    if not np.isfinite(probabilities).all():
        broken = len(probabilities) - np.isfinite(probabilities).all(1).sum()
        raise UserError(
            f"the model returns NaN for {broken:,} of {len(probabilities):,} images, because its training diverged; "
            "train it with a lower learning rate, or in float32"
        )
    return probabilities


def predict_labels(
    model: keras.Model, split: Split, description: str, augmentation: Augmentation | None = None, *, flip: bool = False
) -> NDArray[np.int64]:
    """Return the most likely class of each image, (N,). Keep only one batch of probabilities in memory."""
    batches = _predicted_batches(model, split, description, augmentation, flip=flip)
    return np.concatenate([probabilities.argmax(1) for probabilities in batches])


def _predicted_batches(
    model: keras.Model, split: Split, description: str, augmentation: Augmentation | None, *, flip: bool
) -> Iterator[NDArray[np.float32]]:
    """Yield the probabilities batch by batch. While the model predicts one, a thread loads the next."""
    batches = OrderedBatches(split, batch_size=_BATCH_SIZE, augmentation=augmentation)
    with ThreadPoolExecutor(1) as background:
        ahead = background.submit(batches.__getitem__, 0)
        for index in track(range(len(batches)), f"evaluate {description}", len(batches)):
            images, _ = ahead.result()
            if index + 1 < len(batches):
                ahead = background.submit(batches.__getitem__, index + 1)
            probabilities = model.predict_on_batch(images)
            if flip:
                probabilities = (probabilities + model.predict_on_batch(images[:, :, ::-1])) / 2
            yield probabilities


def describe_architecture(model: keras.Model) -> dict[str, Any]:
    """Return the layers, as in the paper's figures 5 to 8, and the number of parameters.

    `parameters_200_classes` is the number with Tiny ImageNet's 200 classes: for each class, the last layer has a weight
    for each feature, and a bias.
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
        "batch_normalization_layers": len(batch_normalizations(model)),
        "layers": layers,
    }


def write_evaluation(evaluation: Evaluation, folder: Path, *, model_md5: str) -> None:
    """Write metrics as JSON, tables as CSV, predictions as Parquet. Remove all other files from the folder.

    By the MD5 of the model's file in architecture.json, `compare` knows whether the model was trained again. Old files
    that DVC does not know would be logged to MLflow with the others.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    evaluation.metrics.write(folder / "metrics.json")
    Architecture(**evaluation.architecture, model_md5=model_md5).write(folder / "architecture.json")
    write_text(folder / "per_class.csv", evaluation.per_class.to_csv(index=False))
    write_text(folder / "calibration.csv", evaluation.calibration.to_csv(index=False))
    write_text(folder / "confusion.csv", evaluation.confusion_pairs.to_csv(index=False))
    with replaced(folder / "predictions.parquet") as partial:
        evaluation.predictions.to_parquet(partial, index=False)
    with replaced(folder / "confusion.npy") as partial, partial.open("wb") as stream:
        np.save(stream, evaluation.confusion)


def _per_class(labels: NDArray[np.int32], predicted: NDArray[np.int64], packed: PackedDataset) -> pd.DataFrame:
    scores = precision_recall_fscore_support(labels, predicted, labels=np.arange(packed.num_classes), zero_division=0)
    return packed.classes.assign(**dict(zip(("precision", "recall", "f1", "support"), scores, strict=True)))


def _confusion_pairs(confusion: NDArray[np.int64], packed: PackedDataset) -> pd.DataFrame:
    """Return `actual`, `predicted`, `count`: each class with itself, then the confusions, most frequent first.

    Both columns start with all classes in label order, so the axes of a plot do too. A name that several classes share
    is followed by the wnid.
    """
    names = pd.Series(packed.class_names)
    names = names.mask(names.duplicated(keep=False), names + " (" + packed.classes["wnid"].astype(str) + ")")
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    actual, predicted = np.nonzero(wrong)
    order = np.argsort(-wrong[actual, predicted], kind="stable")
    diagonal = np.arange(len(names))
    rows = np.concatenate([diagonal, actual[order]])
    columns = np.concatenate([diagonal, predicted[order]])
    return pd.DataFrame(
        {
            "actual": names.to_numpy()[rows],
            "predicted": names.to_numpy()[columns],
            "count": confusion[rows, columns],
        }
    )


def _predictions(labels: NDArray[np.int32], probabilities: NDArray[np.float32]) -> pd.DataFrame:
    """Return a row per validation image: its label, and its five most likely classes with probabilities."""
    top = most_likely(probabilities)
    top_probabilities = np.take_along_axis(probabilities, top, axis=1)
    frame = pd.DataFrame({"image": np.arange(len(labels), dtype=np.int32), "label": labels})
    for rank in range(top.shape[1]):
        frame[f"label_{rank + 1}"] = top[:, rank].astype(np.int32)
        frame[f"probability_{rank + 1}"] = top_probabilities[:, rank]
    return frame
