"""The embedded digits, against scikit-learn's, and read like the official archive."""

import zipfile

import cv2
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from tiny_imagenet.config.dataset import Dataset, Expect
from tiny_imagenet.dataset.digits import NAMES, TRAIN_PER_CLASS, VAL_PER_CLASS, write_digits_archive
from tiny_imagenet.dataset.layout import reorganize


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "dataset.zip"
    write_digits_archive(path)
    return path


@pytest.fixture(scope="module")
def images(archive):
    folder = archive.parent / "images"
    reorganize(archive, folder, Dataset(name="digits", expect=Expect(classes=10, train=100, val=50)))
    return folder


@pytest.fixture(scope="module")
def manifest(images):
    return pd.read_csv(images / "manifest.csv")


@pytest.fixture(scope="module")
def pictures(images):
    """(split, path) -> the decoded picture."""
    decoded = {}
    for split in ("train", "val"):
        with zipfile.ZipFile(images / f"{split}.zip") as file:
            for path in file.namelist():
                decoded[split, path] = cv2.imdecode(np.frombuffer(file.read(path), np.uint8), cv2.IMREAD_UNCHANGED)
    return decoded


def test_layout_accepts_it_with_the_counts_of_the_demo(images, manifest):
    counts = manifest.groupby(["split", "wnid"]).size().unstack("split")
    assert (len(counts), set(counts["train"]), set(counts["val"])) == (10, {TRAIN_PER_CLASS}, {VAL_PER_CLASS})
    assert pd.read_csv(images / "classes.csv")["name"].tolist() == list(NAMES)


def test_archive_is_the_same_bytes_twice(archive, tmp_path):
    write_digits_archive(tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()


def test_pictures_are_64_by_64_rgb(pictures):
    assert {(picture.shape, picture.dtype.name) for picture in pictures.values()} == {((64, 64, 3), "uint8")}


def test_every_picture_is_a_digit_of_scikit_learn_with_its_label(manifest, pictures):
    digits = load_digits()
    taken = {number: digits.images[digits.target == number] for number in range(10)}
    next_validation = dict.fromkeys(range(10), TRAIN_PER_CLASS)
    correlations = []
    by_number = manifest.assign(number=manifest["path"].str.extract(r"_(\d+)\.JPEG$").astype(int))
    for row in by_number.sort_values(["split", "number"]).itertuples():
        index = row.number
        if row.split == "val":  # the 101st to 150th of each digit, in order
            index = next_validation[row.label]
            next_validation[row.label] += 1
        original = taken[row.label][index]
        small = cv2.resize(pictures[row.split, row.path][..., 0], (8, 8), interpolation=cv2.INTER_AREA)
        correlations.append(np.corrcoef(small.ravel(), original.ravel())[0, 1])
    assert len(correlations) == 1_500
    assert min(correlations) > 0.95


def test_splits_share_no_picture(manifest):
    shared = set(manifest[manifest["split"] == "train"]["sha1"]) & set(manifest[manifest["split"] == "val"]["sha1"])
    assert shared == set()


def test_boxes_contain_all_ink_and_touch_it_on_every_side(manifest, pictures):
    # Ink is brighter than 64 of 255; JPEG moves a pixel by some gray levels.
    tolerance = 24
    for row in manifest.itertuples():
        gray = pictures[row.split, row.path].astype(int).mean(axis=2)
        assert 0 <= row.xmin < row.xmax < 64
        assert 0 <= row.ymin < row.ymax < 64
        box = np.zeros(gray.shape, bool)
        box[row.ymin : row.ymax + 1, row.xmin : row.xmax + 1] = True
        assert gray[~box].max(initial=0) <= 64 + tolerance
        sides = gray[row.ymin], gray[row.ymax], gray[:, row.xmin], gray[:, row.xmax]
        assert min(side.max() for side in sides) > 64 - tolerance
