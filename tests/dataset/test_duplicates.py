"""Planted duplicates are found and nothing else, and the dataset's policy is applied to them."""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from tiny_imagenet.common.errors import DatasetError
from tiny_imagenet.dataset import duplicates
from tiny_imagenet.dataset.duplicates import (
    MAX_DISTANCE,
    candidate_pairs,
    find_duplicates,
    perceptual_hashes,
    similarity,
)

COLUMNS = ("split_a", "index_a", "split_b", "index_b", "distance")
SIDE = 64
NONE = np.empty((0, SIDE, SIDE, 3), np.uint8)
Image = NDArray[np.uint8]


def photographs(count: int, seed: int = 0) -> Image:
    """Noise with the spectrum of natural images: amplitude 1 / frequency, colours mostly shared."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE))
    frequency[0, 0] = np.inf
    noise = random.normal(size=(count, 1, SIDE, SIDE)) + 0.3 * random.normal(size=(count, 3, SIDE, SIDE))
    shaped = np.fft.irfft2(np.fft.rfft2(noise) / frequency, s=(SIDE, SIDE))
    shaped *= 45 / shaped.std(axis=(1, 2, 3), keepdims=True)
    return np.clip(shaped + 128, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()


def recoded(image: Image) -> Image:
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1]
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)


def brightened(image: Image) -> Image:
    return np.asarray(np.minimum(image * 1.05, 255), np.uint8)


def shifted(image: Image, pixels: int = 1) -> Image:
    return np.pad(image, ((0, 0), (pixels, 0), (0, 0)), mode="edge")[:, :-pixels]


def cropped(image: Image) -> Image:
    return np.asarray(cv2.resize(np.ascontiguousarray(image[1:-1, 1:-1]), (SIDE, SIDE)), np.uint8)


def rows(pairs: pd.DataFrame) -> set[tuple[str, int, str, int]]:
    return set(pairs[list(COLUMNS[:4])].itertuples(index=False, name=None))


@pytest.mark.parametrize("change", [recoded, brightened, shifted, cropped])
def test_changed_copies_are_found_and_nothing_else(change: Callable[[Image], Image]) -> None:
    train = photographs(100)
    val = np.concatenate([photographs(20, seed=1), [change(image) for image in train[:40]]])

    found = find_duplicates(train, val)

    planted = {("train", index, "val", 20 + index) for index in range(40)}
    assert len(found.exact) == 0
    assert rows(found.near) == planted
    assert found.near["distance"].between(0, MAX_DISTANCE).all()


def test_copies_moved_by_an_eighth_are_not_found() -> None:
    train = photographs(40)

    assert len(find_duplicates(train, np.stack([shifted(image, 8) for image in train])).near) == 0


def test_mirrored_copies_are_found_when_mirrored_back() -> None:
    train, val = photographs(30), photographs(10, seed=1)
    val[4] = recoded(train[7][:, ::-1])

    assert rows(find_duplicates(train, val).near) == set()
    assert rows(find_duplicates(train, val[:, :, ::-1]).near) == {("train", 7, "val", 4)}


def test_exact_copies_are_paired_with_the_first_of_each_split() -> None:
    train, val = photographs(9), photographs(6, seed=1)
    train[[5, 8]] = train[2]
    val[[1, 4]] = train[2]
    val[5] = val[0]

    found = find_duplicates(train, val)

    assert found.exact.columns.tolist() == list(COLUMNS)
    assert rows(found.exact) == {
        ("train", 2, "train", 5),
        ("train", 2, "train", 8),
        ("train", 2, "val", 1),
        ("train", 2, "val", 4),
        ("val", 1, "val", 4),
        ("val", 0, "val", 5),
    }
    assert found.exact["distance"].eq(0).all()
    assert len(found.near) == 0
    assert found.counts()["exact"] == {
        "train-train": {"pairs": 2, "train_images": 3, "val_images": 0},
        "train-val": {"pairs": 2, "train_images": 1, "val_images": 2},
        "val-val": {"pairs": 2, "train_images": 0, "val_images": 4},
    }


def test_near_pairs_of_identical_images_name_each_image() -> None:
    train, val = photographs(5), photographs(5, seed=1)
    train[3] = train[1]
    val[[0, 2]] = recoded(train[1])

    found = find_duplicates(train, val)

    assert rows(found.exact) == {("train", 1, "train", 3), ("val", 0, "val", 2)}
    assert rows(found.near) == {("train", 1, "val", 0), ("train", 1, "val", 2), ("train", 3, "val", 0)}
    assert found.counts()["near"]["train-val"] == {"pairs": 3, "train_images": 2, "val_images": 2}


@pytest.mark.parametrize(("copied", "across"), [(4, 0), (0, 4)])
def test_val_image_that_is_one_of_a_near_pair_is_paired_with_the_other(copied: int, across: int) -> None:
    train, val = photographs(5), photographs(2, seed=1)
    train[4] = recoded(train[0])
    val[1] = train[copied]

    found = find_duplicates(train, val)

    assert rows(found.exact) == {("train", copied, "val", 1)}
    assert rows(found.near) == {("train", 0, "train", 4), ("train", across, "val", 1)}


def test_one_differing_bit_of_one_pixel_is_not_exact() -> None:
    train = photographs(1)
    val = train.copy()
    val[0, 30, 30, 1] ^= 1

    found = find_duplicates(train, val)

    assert len(found.exact) == 0
    assert rows(found.near) == {("train", 0, "val", 0)}


def test_noise_and_different_photographs_give_no_pair() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (400, SIDE, SIDE, 3), np.uint8)
    found = find_duplicates(np.concatenate([photographs(300), noise[:300]]), noise[300:])

    assert len(found.exact) == len(found.near) == 0
    assert found.num_flat == 0
    assert found.max_distance == MAX_DISTANCE


def test_handwritten_digits_are_similar_but_not_identical() -> None:
    digits = [cv2.resize(digit.astype(np.uint8) * 15, (SIDE, SIDE)) for digit in load_digits().images[:300]]
    images = np.repeat(np.stack(digits)[..., None], 3, axis=3)
    images[299] = images[0]

    found = find_duplicates(images, NONE)

    assert rows(found.exact) == {("train", 0, "train", 299)}
    # As documented: near says "written alike" here. Less than 1 % of the 44,850 pairs.
    assert 0 < len(found.near) < 450


def test_blank_images_are_exact_duplicates_or_none() -> None:
    levels = np.array([0, 0, 255, 90, 91], np.uint8)
    train = np.broadcast_to(levels[:, None, None, None], (5, SIDE, SIDE, 3))
    grainy = np.random.default_rng(0).integers(89, 92, (2, SIDE, SIDE, 3), np.uint8)

    found = find_duplicates(np.concatenate([train, photographs(3)]), np.concatenate([grainy, train[:1]]))

    assert rows(found.exact) == {("train", 0, "train", 1), ("train", 0, "val", 2)}
    assert len(found.near) == 0
    assert found.num_flat == 8


def test_many_blank_images_do_not_crowd_the_others_out() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (400, 1, 1, 3), np.uint8)
    train = np.concatenate([np.broadcast_to(colours, (400, SIDE, SIDE, 3)), photographs(20)])

    found = find_duplicates(train, np.stack([recoded(train[410])]))

    assert found.num_flat == 400
    assert found.max_distance == MAX_DISTANCE
    assert rows(found.near) == {("train", 410, "val", 0)}


def test_smooth_ramps_have_no_detail_and_are_not_confirmed() -> None:
    ramps = [np.linspace(20, top, SIDE).astype(np.uint8) for top in (120, 150, 200)]
    images = np.stack([np.broadcast_to(ramp[:, None, None], (SIDE, SIDE, 3)) for ramp in ramps])

    assert np.unique(perceptual_hashes(images)).size == 1
    assert similarity(images[0], images[0]) == 0
    assert len(find_duplicates(images, NONE).near) == 0


def test_thousand_copies_are_a_thousand_rows_and_not_half_a_million() -> None:
    train = np.repeat(photographs(1), 1000, axis=0)

    counts = find_duplicates(train, train[:10]).counts()["exact"]

    assert counts["train-train"] == {"pairs": 999, "train_images": 1000, "val_images": 0}
    assert counts["train-val"] == {"pairs": 10, "train_images": 1, "val_images": 10}
    assert counts["val-val"] == {"pairs": 9, "train_images": 0, "val_images": 10}


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 120),
    max_distance=st.integers(0, 15),
    flipped=st.floats(0, 0.3),
)
def test_candidate_pairs_are_those_of_brute_force(seed: int, count: int, max_distance: int, flipped: float) -> None:
    # Hashes around three centres, so that there are pairs at every distance.
    random = np.random.default_rng(seed)
    centres = random.integers(0, 2, (3, 64), np.uint8)
    bits = centres[random.integers(0, 3, count)] ^ (random.random((count, 64)) < flipped)
    hashes = np.packbits(bits, axis=1).view(np.uint64).reshape(count)

    pairs, searched = candidate_pairs(hashes, max_distance)

    distances = np.bitwise_count(hashes[:, None] ^ hashes)
    first, second = np.nonzero(np.triu(distances <= max_distance, k=1))
    assert searched == max_distance
    np.testing.assert_array_equal(pairs, np.column_stack([first, second, distances[first, second]]))


def test_candidate_pairs_in_many_blocks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = np.random.default_rng(0).integers(0, 8, 300, np.uint64)
    at_once, _ = candidate_pairs(hashes, 3)
    monkeypatch.setattr(duplicates, "_PAIRS_AT_ONCE", 100)

    np.testing.assert_array_equal(candidate_pairs(hashes, 3)[0], at_once)


def test_too_many_candidates_lower_the_distance() -> None:
    random = np.random.default_rng(0)
    same = np.full(20, 5, np.uint64)
    one_bit_off = np.uint64(2) ** random.permutation(64)[:40].astype(np.uint64)
    hashes = np.concatenate([same, one_bit_off])

    assert candidate_pairs(hashes, 11)[1] == 11
    pairs, searched = candidate_pairs(hashes, 11, limit=900)
    assert searched < 2
    assert pairs[:, 2].max() <= searched
    assert len(pairs) >= 20 * 19 // 2
    pairs, searched = candidate_pairs(hashes, 11, limit=50)
    assert searched == 0
    assert len(pairs) == 50


def test_hashes_are_the_signs_of_the_lowest_coefficients_of_opencv() -> None:
    images = photographs(20)
    lowest = sorted((down**2 + across**2, down, across) for down in range(10) for across in range(10))[1:65]
    for image, value in zip(images, perceptual_hashes(images), strict=True):
        spectrum = cv2.dct(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32))
        expected = np.array([spectrum[down, across] for _, down, across in lowest])
        bits = np.unpackbits(np.array([value]).view(np.uint8)).astype(bool)
        clear = np.abs(expected - 0.5) > 0.1
        assert clear.sum() > 55
        np.testing.assert_array_equal(bits[clear], (expected > 0.5)[clear])


def test_hash_of_an_image_does_not_depend_on_its_index() -> None:
    images = np.tile(photographs(60), (10, 1, 1, 1))

    together = perceptual_hashes(images)

    assert together.dtype == np.uint64
    for index in (0, 511, 512, 599):
        assert perceptual_hashes(images[index : index + 1])[0] == together[index]


def test_similarity_ignores_brightness_contrast_and_shifts() -> None:
    first, other = photographs(2)

    assert similarity(first, first) == pytest.approx(1, abs=1e-4)
    assert similarity(first, (first // 2 + 60).astype(np.uint8)) > 0.95
    assert similarity(first, shifted(first, 4)) > 0.95
    assert abs(similarity(first, other)) < 0.5
    assert similarity(first, np.zeros_like(first)) == 0


@pytest.mark.parametrize(("num_train", "num_val"), [(0, 0), (0, 4), (4, 0), (1, 0), (0, 1)])
def test_empty_splits_have_no_pairs(num_train: int, num_val: int) -> None:
    images = photographs(4)

    found = find_duplicates(images[:num_train], images[:num_val])

    assert found.exact.columns.tolist() == found.near.columns.tolist() == list(COLUMNS)
    assert len(found.exact) == len(found.near) == 0
    assert perceptual_hashes(NONE).shape == (0,)


def test_memory_map_gives_the_same_and_stays_on_disk(tmp_path: Path) -> None:
    images = np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, (5000, SIDE, SIDE, 3))
    for start in range(0, len(images), 1000):
        images[start : start + 1000] = np.random.default_rng(start).integers(0, 256, images[:1000].shape, np.uint8)
    images[:50] = photographs(50)
    images[4000:4050] = [recoded(image) for image in images[:50]]
    images.flush()
    opened = np.load(tmp_path / "images.npy", mmap_mode="r")

    tracemalloc.start()
    found = find_duplicates(opened, opened[:10])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert {("train", index, "train", 4000 + index) for index in range(50)} <= rows(found.near)
    assert rows(found.exact) == {("train", index, "val", index) for index in range(10)}
    # The images are 61 MB.
    assert peak < 30e6


# --- what the policy does about them ---


@pytest.fixture
def splits(make_pictures):
    """Return splits: training image 2 is also validation image 1, and training image 4 is also training image 9."""
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


def test_pairs_across_are_of_training_and_validation(pairs):
    across = duplicates.pairs_across(pairs)
    assert across[["index_a", "index_b"]].to_numpy().tolist() == [[2, 1]]


def test_the_training_side_and_the_later_copy_are_dropped(pairs):
    assert duplicates.train_copies(pairs).tolist() == [2, 9]


def test_no_duplicates_remain_after_the_copies_are_dropped(splits, pairs):
    train, val = splits
    left = find_duplicates(np.delete(train, duplicates.train_copies(pairs), axis=0), val)
    assert len(left.exact) == len(left.near) == 0


def test_the_error_for_leakage_names_the_pairs_and_the_remedy(pairs, paths):
    with pytest.raises(DatasetError, match=r"(?s)^1 pairs .*train/a/2.JPEG and val/b/1.JPEG.*drop_from_train"):
        duplicates.refuse_leakage(duplicates.describe_duplicates(pairs, paths))


def test_copies_within_one_split_are_not_refused(splits, paths):
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


def test_near_duplicates_within_training_are_dropped_too(make_pictures):
    """Another quality of JPEG: other pixels, the same picture."""
    train, val = make_pictures(12, seed=5), make_pictures(4, seed=6)
    train[7] = recoded(train[3])
    assert (train[7] != train[3]).any()
    assert duplicates.train_copies(find_duplicates(train, val)).tolist() == [7]
