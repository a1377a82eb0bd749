"""The bytes that a dataset is expected to take."""

import pytest

from tiny_imagenet.config.dataset import Dataset

EXPECT = {"classes": 3, "train": 5, "val": 2}
IMAGE = 12_288  # bytes of 64 x 64 pixels of three colours


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        ({}, 0),
        ({"bytes": 1000}, 2000),  # the archive, and its images as they are
        ({"num_classes": 2}, 0),
        ({"expect": EXPECT}, 21 * IMAGE),
        ({"expect": EXPECT, "bytes": 1000}, 2000 + 21 * IMAGE),
        ({"expect": EXPECT, "num_classes": 2}, 14 * IMAGE),
        ({"expect": EXPECT, "images_per_class": {"train": 4}}, 18 * IMAGE),
        ({"expect": EXPECT, "images_per_class": {"val": 1}}, 18 * IMAGE),
        ({"expect": EXPECT, "duplicates": "drop_from_train"}, 36 * IMAGE),  # before and after the drop
        ({"expect": EXPECT, "duplicates": "fail"}, 21 * IMAGE),
    ],
)
def test_expected_bytes_are_the_archive_twice_and_the_pixels(dataset, expected):
    assert Dataset(name="any", archive="any.zip", **dataset).expected_bytes == expected
