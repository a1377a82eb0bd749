"""The embedded dataset: scikit-learn's handwritten digits as a small archive in Tiny ImageNet's layout.

1,500 real images of 8 x 8 (UCI ML hand-written digits), enlarged to 64 x 64 RGB JPEGs: 10 classes, 100 for training
and 50 for validation of each. Needs no network. The same OpenCV gives the same bytes.
"""

import zipfile
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.common.files import deterministic_member, replaced

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TRAIN_PER_CLASS, VAL_PER_CLASS = 100, 50
_ROOT = "digits"
_SIDE = 64
_INK = 64
"""Pixels brighter than this (0 to 255) belong to the digit and are inside its bounding box."""


def write_digits_archive(destination: Path) -> None:
    """Write the archive: `wnids.txt`, `words.txt`, `train/<id>/...`, `val/...`, as in the official one."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    ids = [f"d{number:08d}" for number in range(len(NAMES))]
    members: dict[str, bytes] = {
        "wnids.txt": "".join(f"{wnid}\n" for wnid in ids).encode(),
        "words.txt": "".join(f"{wnid}\t{name}\n" for wnid, name in zip(ids, NAMES, strict=True)).encode(),
    }
    annotations: list[str] = []
    for number, wnid in enumerate(ids):
        images = digits.images[digits.target == number][: TRAIN_PER_CLASS + VAL_PER_CLASS]
        boxes: list[str] = []
        for index, image in enumerate(images):
            jpeg, box = _enlarge(image)
            corners = "\t".join(str(corner) for corner in box)
            if index < TRAIN_PER_CLASS:
                name = f"{wnid}_{index}.JPEG"
                members[f"train/{wnid}/images/{name}"] = jpeg
                boxes.append(f"{name}\t{corners}\n")
            else:
                name = f"val_{len(annotations)}.JPEG"
                members[f"val/images/{name}"] = jpeg
                annotations.append(f"{name}\t{wnid}\t{corners}\n")
        members[f"train/{wnid}/{wnid}_boxes.txt"] = "".join(boxes).encode()
    members["val/val_annotations.txt"] = "".join(annotations).encode()

    with replaced(destination) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name in sorted(members):
            archive.writestr(deterministic_member(f"{_ROOT}/{name}"), members[name])


def _enlarge(image: NDArray[np.float64]) -> tuple[bytes, tuple[int, int, int, int]]:
    """Return an 8 x 8 image, 0 to 16, as a 64 x 64 RGB JPEG, and the box (x0, y0, x1, y1) around its ink."""
    gray = cv2.resize(image / 16 * 255, (_SIDE, _SIDE), interpolation=cv2.INTER_CUBIC)
    pixels = np.clip(np.round(gray), 0, 255).astype(np.uint8)
    rows, columns = np.nonzero(pixels > _INK)
    box = (int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max()))
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])
    return jpeg.tobytes(), box
