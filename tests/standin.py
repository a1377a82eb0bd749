"""A small dataset and a small recipe, for tests that train: a second instead of hours. Imports no Keras."""

from typing import Any

import cv2
import numpy as np
import pandas as pd
from repository_copy import tiny
from sklearn.datasets import load_digits

from tiny_imagenet.config.recipe import NO_AUGMENTATION, Recipe
from tiny_imagenet.dataset.digits import NAMES
from tiny_imagenet.input_pipeline.packed import SIDE, PackedDataset, Split


def packed_digits(num_train: int = 200, num_val: int = 100, num_classes: int = 10) -> PackedDataset:
    """Return the digits 0 to num_classes - 1 of scikit-learn as a packed dataset in memory."""
    digits = load_digits()
    chosen = np.flatnonzero(digits.target < num_classes)[: num_train + num_val]
    enlarged = [cv2.resize(image * 15.9, (SIDE, SIDE), interpolation=cv2.INTER_NEAREST) for image in digits.images]
    images = np.stack(enlarged).astype(np.uint8)[chosen, :, :, np.newaxis].repeat(3, axis=3)
    labels = digits.target[chosen].astype(np.int32)
    classes = pd.DataFrame(
        {
            "label": range(num_classes),
            "wnid": [f"d{number:08d}" for number in range(num_classes)],
            "name": NAMES[:num_classes],
        }
    )
    train, val = slice(num_train), slice(num_train, None)
    return PackedDataset(Split(images[train], labels[train]), Split(images[val], labels[val]), classes)


def small_recipe(**changes: Any) -> Recipe:
    """Return model 1 in small, without augmentation: 15,600 parameters, about a second per training."""
    values: dict[str, Any] = {
        "architecture": "two_conv",
        "build": {"filters": [4, 4], "dense_units": 16, "l2": 0.0},
        "optimizer": {"name": "adam", "learning_rate": 0.01},
        "epochs": 4,
        "batch_size": 20,
        "augmentation": NO_AUGMENTATION,
    }
    return Recipe(**values | changes)


RESTORE = {"monitor": "val_loss", "patience": 2, "restore_best_weights": True}
PLATEAU = {"monitor": "val_loss", "factor": 0.5, "patience": 1}
STANDINS: dict[str, dict[str, Any]] = {
    "model_1": {},
    "model_2": {
        "architecture": "three_conv",
        "build": {"filters": [4, 4, 4], "dense_units": 16, "dropout": 0.5},
        "early_stopping": RESTORE,
        "reduce_learning_rate": PLATEAU,
    },
    "model_3": {
        "architecture": "deep_conv",
        "build": {"filters": [2, 4], "dense_units": [16, 8], "l2": 0.001},  # each layer takes a second to trace
        "batches_per_epoch": 7,
        "early_stopping": RESTORE,
    },
    "model_4": {
        "architecture": "deep_conv_dropout",
        "build": {"filters": [4, 4, 4], "dense_units": 16, "dropout": 0.5},
        "early_stopping": RESTORE,
        "reduce_learning_rate": PLATEAU,
        "batch_normalization_momentum": 0.9,
    },
    "model_5": {"architecture": "resnet50", "build": {"dense_units": 8, "dropout": 0.5}, "batches_per_epoch": 2},
}
"""The recipes of the five models in small: what `small_recipe` changes. The fifth is a whole ResNet50, and slow."""

TWO_PHASES = {
    "architecture": "vgg16",
    "build": {"input_size": 80, "dropout": 0.3},
    "preprocessing": "rescale",
    "weights": "imagenet",
    "optimizer": {"name": "adamw", "learning_rate": 0.02},
    "fine_tuning": {"head_epochs": 2, "learning_rate": 0.002},
    "epochs": 5,
}
"""Fine-tuning in small, with `small_backbone` in the place of VGG16."""


def small_backbone(*, include_top: bool, weights: None, input_shape: tuple[int, int, int], seed: int | None = 0) -> Any:
    """Return what stands in for a backbone of `keras.applications`: two convolutions with batch normalization."""
    import keras

    inputs = keras.Input(input_shape)
    x = inputs
    for number in range(2):
        kernel = keras.initializers.GlorotUniform(seed if seed is None else seed + number)
        x = keras.layers.Conv2D(4, 3, strides=4, kernel_initializer=kernel)(x)
        x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.8)(x))
    return keras.Model(inputs, x, name="small_backbone")


def small_models(params: dict[str, Any]) -> None:
    """Make params.yaml's demo tiny, with the layers of the stand-ins: a training takes as long as its start."""
    tiny(params)
    for model, changes in STANDINS.items():
        params["models"][model]["build"] = small_recipe(**changes).model_dump(mode="json")["build"]
    params["models"]["model_5"]["batches_per_epoch"] = 2
