"""A small dataset and a small recipe, for tests that train: a second instead of hours. Imports no Keras."""

from typing import Any

import cv2
import numpy as np
import pandas as pd
from sklearn.datasets import load_digits

from tiny_imagenet.dataset.arrays import SIDE, PackedDataset, Split
from tiny_imagenet.dataset.sample import NAMES
from tiny_imagenet.params import NO_AUGMENTATION, Recipe


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
