"""Pack the class folders: decode each image once, into the memory-mapped arrays of `input_pipeline/packed.py`.

Pixels go straight into the pages of the file, so memory does not grow with the number of images. libjpeg-turbo decodes
about 40,000 images of 64 x 64 per second and core (`python -m benchmarks.decode`), without Python's lock.
"""

import json
import sys
import zipfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.common.cores import cores
from tiny_imagenet.common.errors import DatasetError, first_ten, is_of_the_disk, some_of_each
from tiny_imagenet.common.files import ZIP_ERRORS, replaced, reserve, write_text
from tiny_imagenet.common.progress import track
from tiny_imagenet.common.tables import read_csv
from tiny_imagenet.config.dataset import SPLITS
from tiny_imagenet.dataset.jpeg import decode
from tiny_imagenet.dataset.layout import natural_key
from tiny_imagenet.input_pipeline.packed import CLASS_COLUMNS, SIDE, PackedDataset, open_packed

_CHUNK = 512


def pack(images: Path, destination: Path) -> PackedDataset:
    """Decode `train.zip` and `val.zip` of the folder `images` into `destination`, and return the packed dataset.

    Write `{train,val}_images.npy`, `{train,val}_labels.npy`, `{train,val}_ranks.npy` and `classes.csv`. Raise
    DatasetError if a file is missing, or images are broken or have a wrong size.
    """
    for name in ("classes.csv", *(f"{split}.zip" for split in SPLITS)):
        if not (images / name).is_file():
            raise DatasetError(f"{images / name} does not exist; run `dvc repro reorganize`")
    classes = read_csv(images / "classes.csv", CLASS_COLUMNS, remedy="run `dvc repro -f reorganize`")
    labels_of = {wnid: int(label) for label, wnid in zip(classes["label"], classes["wnid"], strict=True)}
    for split in SPLITS:
        _pack_split(images / f"{split}.zip", destination, split, labels_of)
    write_text(destination / "classes.csv", classes.to_csv(index=False))
    return open_packed(destination)


def _pack_split(source: Path, destination: Path, split: str, labels_of: dict[str, int]) -> None:
    problems: dict[str, list[str]] = defaultdict(list)
    try:
        archive = zipfile.ZipFile(source)
    except ZIP_ERRORS as error:
        if is_of_the_disk(error):
            raise
        raise DatasetError(f"{source} is not a readable zip: {error}; run `dvc repro -f reorganize`") from None
    with archive, replaced(destination / f"{split}_images.npy") as partial:
        names = archive.namelist()
        unknown = sorted({name.split("/")[0] for name in names} - labels_of.keys())
        if unknown:
            remedy = "run `dvc repro -f reorganize`"
            raise DatasetError(f"{source} has classes that are not in classes.csv; {remedy}:\n{first_ten(unknown)}")
        labels = np.array([labels_of[name.split("/")[0]] for name in names], np.int32)
        pixels = _new_images(partial, len(names))

        def decode_chunk(indices: range) -> range:
            for index in indices:
                try:
                    pixels[index] = decode(archive.read(names[index]))
                except ZIP_ERRORS as error:
                    problems[type(error).__name__].append(f"{split}/{names[index]}: {error}")
            return indices

        chunks = [range(start, min(start + _CHUNK, len(names))) for start in range(0, len(names), _CHUNK)]
        with _eager_threads() as threads:
            packed = chain.from_iterable(threads.map(decode_chunk, chunks))
            for _ in track(packed, f"cache {split}", len(names)):
                pass
        if problems:
            number = sum(map(len, problems.values()))
            lines = some_of_each({kind: sorted(lines) for kind, lines in sorted(problems.items())})
            raise DatasetError(f"{number:,} images of {source} cannot be used; fix or remove them:\n{lines}")
    _write_array(destination / f"{split}_labels.npy", labels)
    _write_array(destination / f"{split}_ranks.npy", _ranks(names))


def _ranks(names: Sequence[str]) -> NDArray[np.int32]:
    """Return the rank of each name in natural order: "x_9" before "x_10"."""
    ranks = np.empty(len(names), np.int32)
    ranks[sorted(range(len(names)), key=lambda index: natural_key(names[index]))] = np.arange(len(names))
    return ranks


@contextmanager
def _eager_threads() -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of a thread per core. In the block, Python switches threads a hundred times more often.

    A decode takes 30 microseconds without Python's lock. Waiting 5 ms for the lock would leave other cores idle.
    """
    interval = sys.getswitchinterval()
    sys.setswitchinterval(interval / 100)
    try:
        with ThreadPoolExecutor(cores()) as threads:
            yield threads
    finally:
        sys.setswitchinterval(interval)


def _write_array(path: Path, array: NDArray[Any]) -> None:
    with replaced(path) as partial, partial.open("wb") as stream:
        np.save(stream, array)


def _new_images(path: Path, num_images: int) -> NDArray[np.uint8]:
    """Return a new array of images, memory-mapped to the file `path`; reserve its disk space."""
    pixels: NDArray[np.uint8] = np.lib.format.open_memmap(
        path, mode="w+", dtype=np.uint8, shape=(num_images, SIDE, SIDE, 3)
    )
    reserve(path)
    return pixels


def image_paths(images: Path) -> dict[str, list[str]]:
    """Return split -> path of each image in its zip, in the order of the packed arrays."""
    paths = {}
    for split in SPLITS:
        with zipfile.ZipFile(images / f"{split}.zip") as archive:
            paths[split] = archive.namelist()
    return paths


def drop_from_train(destination: Path, indices: NDArray[np.int64]) -> PackedDataset:
    """Rewrite the packed training split without the images `indices`, and return the new dataset.

    Raise DatasetError if a class would have no training images.
    """
    dataset = open_packed(destination)
    train = dataset.train
    kept = np.setdiff1d(np.arange(len(train)), indices)
    emptied = [str(dataset.classes["wnid"][label]) for label in np.setdiff1d(train.labels, train.labels[kept])]
    if emptied:
        raise DatasetError(
            f"without duplicates, {len(emptied):,} classes have no training images:\n{first_ten(emptied)}\n"
            "In params.yaml, set `duplicates: report` of the dataset to keep them."
        )
    with replaced(destination / "train_images.npy") as partial:
        pixels = _new_images(partial, len(kept))
        for start in range(0, len(kept), _CHUNK):
            pixels[start : start + _CHUNK] = train.images[kept[start : start + _CHUNK]]
    _write_array(destination / "train_labels.npy", train.labels[kept])
    _write_array(destination / "train_ranks.npy", np.load(destination / "train_ranks.npy")[kept])
    return open_packed(destination)


def samples_per_class(packed: PackedDataset, num_images: int = 10) -> dict[str, NDArray[np.uint8]]:
    """Return class -> its first training images, for the classes of the paper's figures 1 to 4, or the first four."""
    names = packed.class_names
    shown = [name for name in ("lion", "umbrella", "koala", "candle") if name in names] or names[:4]
    images = {}
    for name in shown:
        indices = np.flatnonzero(packed.train.labels == names.index(name))[:num_images]
        images[name] = packed.train.images[indices]
    return images


def summarize(packed: PackedDataset, images: Path) -> dict[str, Any]:
    """Return the image statistics for `report.json`: counts, counts per class, channel means and deviations."""
    report: dict[str, Any] = json.loads((images / "layout.json").read_text(encoding="utf-8"))
    report["used"] = {split: len(getattr(packed, split)) for split in SPLITS}
    report["per_class"] = {
        split: dict(
            zip(
                packed.classes["wnid"],
                np.bincount(getattr(packed, split).labels, minlength=packed.num_classes).tolist(),
                strict=True,
            )
        )
        for split in SPLITS
    }
    means, deviations = _channel_statistics(packed.train.images)
    report["train_channel_means"] = means
    report["train_channel_standard_deviations"] = deviations
    return report


def _channel_statistics(images: NDArray[np.uint8]) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of red, green and blue, 0 to 255, rounded to 4 digits."""
    histogram = np.zeros((3, 256), np.int64)
    for start in range(0, len(images), _CHUNK):
        chunk = images[start : start + _CHUNK].reshape(-1, 1, 3)
        for channel in range(3):
            histogram[channel] += cv2.calcHist([chunk], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
    values = np.arange(256)
    means = (histogram * values).sum(1) / histogram.sum(1)
    squares = (histogram * values**2).sum(1) / histogram.sum(1)
    return means.round(4).tolist(), np.sqrt(squares - means**2).round(4).tolist()
