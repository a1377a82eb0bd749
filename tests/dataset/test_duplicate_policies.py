import numpy as np
import pytest

from tiny_imagenet.common.errors import DatasetError
from tiny_imagenet.dataset import duplicates
from tiny_imagenet.dataset.duplicates import find_duplicates


@pytest.fixture
def splits(make_pictures):
    """Training image 2 stands again as validation image 1, training image 4 as training image 9."""
    pictures = make_pictures(18)
    train, val = pictures[:12].copy(), pictures[12:].copy()
    val[1] = train[2]
    train[9] = train[4]
    return train, val


@pytest.fixture
def pairs(splits):
    return find_duplicates(*splits)


@pytest.fixture
def paths():
    return {"train": [f"a/{index}.JPEG" for index in range(12)], "val": [f"b/{index}.JPEG" for index in range(6)]}


def test_the_report_names_every_pair_by_its_paths(pairs, paths):
    described = duplicates.describe_duplicates(pairs, paths)
    assert described["pairs"] == [
        {"kind": "exact", "a": "train/a/4.JPEG", "b": "train/a/9.JPEG", "distance": 0},
        {"kind": "exact", "a": "train/a/2.JPEG", "b": "val/b/1.JPEG", "distance": 0},
    ]
    assert described["counts"]["exact"]["train-val"]["pairs"] == 1
    assert described["counts"]["exact"]["train-train"]["pairs"] == 1


def test_only_pairs_of_training_and_validation_are_across(pairs):
    across = duplicates.pairs_across(pairs)
    assert across[["index_a", "index_b"]].to_numpy().tolist() == [[2, 1]]


def test_what_is_left_out_is_the_training_side_and_the_later_copy(pairs):
    assert duplicates.train_copies(pairs).tolist() == [2, 9]


def test_nothing_is_left_that_has_a_copy_once_the_copies_are_dropped(splits, pairs):
    train, val = splits
    left = find_duplicates(np.delete(train, duplicates.train_copies(pairs), axis=0), val)
    assert len(left.exact) == len(left.near) == 0


def test_refusing_leakage_names_the_pairs_and_the_way_out(pairs, paths):
    with pytest.raises(DatasetError, match=r"(?s)^1 pairs .*train/a/2.JPEG and val/b/1.JPEG.*drop_from_train"):
        duplicates.refuse_leakage(duplicates.describe_duplicates(pairs, paths))


def test_copies_within_a_split_alone_are_not_refused(splits, paths):
    train, val = splits
    pairs = find_duplicates(train, val[2:])
    duplicates.refuse_leakage(duplicates.describe_duplicates(pairs, paths))


def test_of_many_pairs_ten_are_shown_and_all_are_counted(make_pictures):
    pictures = make_pictures(15)
    pairs = find_duplicates(pictures, pictures)
    paths = {split: [f"{index}.JPEG" for index in range(15)] for split in ("train", "val")}
    with pytest.raises(DatasetError) as refused:
        duplicates.refuse_leakage(duplicates.describe_duplicates(pairs, paths))
    assert str(refused.value).startswith("15 pairs")
    assert str(refused.value).count("(exact)") == 10
