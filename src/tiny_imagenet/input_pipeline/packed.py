"""The packed dataset: memory-mapped uint8 arrays that training and evaluation read without copying.

The stage `cache` writes the folder (`dataset/packing.py`).
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiny_imagenet.common.errors import DatasetError
from tiny_imagenet.common.tables import ColumnType, parse_csv
from tiny_imagenet.config.dataset import SPLITS

SIDE = 64
CLASS_COLUMNS: dict[str, ColumnType] = {"label": int, "wnid": str, "name": str}
"""Columns of classes.csv."""


@dataclass(frozen=True)
class Split:
    """Images uint8, N x 64 x 64 x 3, RGB, memory-mapped; labels int32, N."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]
    ranks: NDArray[np.int32] | None = None
    """(N,) Rank of each image by the number in its file name: "x_9" before "x_10". The arrays are in alphabetical
    order. None: the order of the arrays."""

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class PackedDataset:
    """Two splits and their classes."""

    train: Split
    val: Split
    classes: pd.DataFrame
    """Columns `label`, `wnid`, `name`; a row per class, sorted by label."""

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.classes)

    @property
    def class_lists(self) -> dict[str, list[str]]:
        """`wnids` and `class_names`, sorted by label: the metadata of a saved model."""
        return {"wnids": self.classes["wnid"].tolist(), "class_names": self.class_names}

    @property
    def class_names(self) -> list[str]:
        """The first name of each class: "goldfish" of "goldfish, Carassius auratus". If it is empty, the class id."""
        firsts = [name.split(",")[0].strip() for name in self.classes["name"]]
        return [first or wnid for first, wnid in zip(firsts, self.classes["wnid"], strict=True)]


def open_packed(folder: Path) -> PackedDataset:
    """Open a packed dataset without reading its pixels; raise DatasetError if a file is missing or damaged."""
    splits = {}
    try:
        for split in SPLITS:
            images = np.load(folder / f"{split}_images.npy", mmap_mode="r")
            labels, ranks = (np.load(folder / f"{split}_{name}.npy") for name in ("labels", "ranks"))
            if not len(images) == len(labels) == len(ranks):
                raise ValueError(f"{split}: {len(images)} images, {len(labels)} labels, {len(ranks)} ranks")
            splits[split] = Split(images, labels, ranks)
        classes = parse_csv((folder / "classes.csv").read_bytes().decode(), CLASS_COLUMNS)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{folder} is not a packed dataset: {error}; run `dvc repro cache`") from None
    return PackedDataset(splits["train"], splits["val"], classes)
