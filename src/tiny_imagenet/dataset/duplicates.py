"""Find exact and near duplicates within and between the splits, and apply the dataset's policy to them.

Exact duplicates have the same pixels. Near duplicates have 64-bit DCT hashes within 11 bits and a similarity of detail
of 0.75 or more. Measured:

- 54,000 real images (all of val, 220 of 500 per class of train) have 4 exact pairs train-train, 3 train-val and 0
  val-val, each with two labels; they have 1, 0 and 0 near pairs, a copy.
- The hash alone proposes 1,313 pairs (half with mirrored images). The similarity confirms 5: 3 copies, one object
  photographed twice, 1 false alarm (0.08 %, at most 0.4). Of 266 pairs inspected by eye, 1 is a copy.
- Of 2,000 planted copies of each kind, it finds: JPEG quality 20 and brightness +30 % at least 99.9 %; shifted by
  1 pixel each way 98 %, by 2 pixels 56 %; with 1, 2 and 3 pixels cropped off each side 100, 85 and 18 %.
- 110,000 images take 3 to 6 s of one EPYC core, and 30 MB.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiny_imagenet.common.errors import DatasetError, first_ten
from tiny_imagenet.input_pipeline.packed import SIDE

MAX_DISTANCE = 11
"""Bits of 64. The largest distance that four bands of 16 bits find by changing two bits of a band."""
MIN_SIMILARITY = 0.75

_CHUNK = 512
_HASH_BITS = 64
_BANDS = 4
_BAND_VALUES = 2 ** (_HASH_BITS // _BANDS)
_FREQUENCIES = 10
_MIN_COEFFICIENT = 0.5
"""Gray levels. Below this, rounding would decide the bit: a symmetric drawing has coefficients of zero."""
_MIN_STRUCTURE = 2.0
"""Gray levels, standard deviation. The flattest of 54,000 real images has 3.9; a blank one has no useful hash."""
_MIN_DETAIL = 1.0
"""Gray levels, standard deviation. Real images have 1.7 and more (n = 11,000)."""
_PAIRS_AT_ONCE = 2**19
_CANDIDATE_LIMIT = 50_000
"""About 6 s of comparing pixels. The 110,000 real images have about 3,000 candidates."""


@dataclass(frozen=True)
class DuplicatePairs:
    """Pairs of similar images: columns `split_a`, `index_a`, `split_b`, `index_b`, `distance`.

    Rows are train-train (a before b), train-val, then val-val. In a group of identical images, each is paired with the
    first of its split, and each validation image also with the first in train. Near pairs of identical images are
    reduced in the same way. Every image that has a duplicate is in some row.
    """

    exact: pd.DataFrame
    """The same pixels; `distance` is 0."""
    near: pd.DataFrame
    """Similar pixels; `distance` is the number of bits in which the perceptual hashes differ."""
    num_flat: int
    """Images with too little structure for a hash; they can only be in exact pairs."""
    max_distance: int
    """The distance searched. With too many candidates it is lower than MAX_DISTANCE, and near pairs are missing."""

    def counts(self) -> dict[str, dict[str, dict[str, int]]]:
        """Return `{"exact" | "near": {"train-train" | "train-val" | "val-val": {...}}}`.

        The innermost keys are `pairs`, and the number of different images in them: `train_images`, `val_images`.
        """
        return {kind: _counts(pairs) for kind, pairs in (("exact", self.exact), ("near", self.near))}


def find_duplicates(train: NDArray[np.uint8], val: NDArray[np.uint8]) -> DuplicatePairs:
    """Return the exact and near duplicates of two splits, uint8 N x 64 x 64 x 3. Memory maps stay on disk.

    A near pair has hashes within `MAX_DISTANCE` bits and at least `MIN_SIMILARITY`. To find mirrored copies between the
    splits, read the train-val rows of `find_duplicates(train, val[:, :, ::-1])`. In drawings of few shapes, like
    handwritten digits, near duplicates are similar images and not copies.
    """
    num_train = len(train)

    def image(index: int) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = train[index] if index < num_train else val[index - num_train]
        return pixels

    train_digests, *of_train = _fingerprints(train)
    val_digests, *of_val = _fingerprints(val)
    hashes, flat = (np.concatenate(parts) for parts in zip(of_train, of_val, strict=True))
    groups = _identical(train_digests + val_digests)
    unique = ~flat
    for group in groups:
        unique[group[1:]] = False
    kept = np.flatnonzero(unique)
    candidates, searched = candidate_pairs(hashes[kept], MAX_DISTANCE)
    candidates[:, :2] = kept[candidates[:, :2]]
    near = [
        (first, second, distance)
        for first, second, distance in candidates.tolist()
        if similarity(image(first), image(second)) >= MIN_SIMILARITY
    ]

    copies = {int(group[0]): group for group in groups}
    exact_rows = ((a, b, 0) for group in groups for a, b in _pairs_within(group, num_train))
    near_rows = (
        (a, b, distance)
        for first, second, distance in near
        for a, b in _pairs_between(
            copies.get(first, np.array([first])), copies.get(second, np.array([second])), num_train
        )
    )
    return DuplicatePairs(
        _frame(exact_rows, num_train), _frame(near_rows, num_train), int(np.count_nonzero(flat)), searched
    )


def describe_duplicates(pairs: DuplicatePairs, paths: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return `duplicates` for report.json: counts, and every pair with the paths of its images.

    `paths` maps a split to the paths of its images, in the order of the arrays.
    """
    return {
        "counts": pairs.counts(),
        "flat_images": pairs.num_flat,
        "asked_distance": MAX_DISTANCE,
        "largest_distance": pairs.max_distance,
        "pairs": [
            {
                "kind": kind,
                "a": f"{row['split_a']}/{paths[row['split_a']][row['index_a']]}",
                "b": f"{row['split_b']}/{paths[row['split_b']][row['index_b']]}",
                "distance": row["distance"],
            }
            for kind, frame in (("exact", pairs.exact), ("near", pairs.near))
            for row in frame.to_dict("records")
        ],
    }


def pairs_across(pairs: DuplicatePairs) -> pd.DataFrame:
    """Return the pairs of a training and a validation image, exact ones first."""
    everything = pd.concat([pairs.exact, pairs.near], ignore_index=True)
    return everything[(everything["split_a"] == "train") & (everything["split_b"] == "val")]


def refuse_leakage(description: Mapping[str, Any]) -> None:
    """Raise DatasetError if an image is in both splits. The message lists ten pairs, and their number."""
    across = [
        f"{pair['a']} and {pair['b']} ({pair['kind']})"
        for pair in description["pairs"]
        if pair["a"].startswith("train/") and pair["b"].startswith("val/")
    ]
    if across:
        raise DatasetError(
            f"{len(across):,} pairs of a training and a validation image are duplicates:\n{first_ten(across)}\n"
            "In params.yaml, set `duplicates` to `drop_from_train` to leave out the training images, or to `report`."
        )


def train_copies(pairs: DuplicatePairs) -> NDArray[np.int64]:
    """Return the training images to remove: duplicates of a validation image or of an earlier training image."""
    everything = pd.concat([pairs.exact, pairs.near], ignore_index=True)
    within = everything[(everything["split_a"] == "train") & (everything["split_b"] == "train")]["index_b"]
    across = pairs_across(pairs)["index_a"]
    return np.unique(np.concatenate([within, across]).astype(np.int64))


def perceptual_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return a 64-bit hash of each image, uint8 N x 64 x 64 x 3: the signs of its 64 lowest gray DCT coefficients.

    Frequencies are sorted by the length of their vector; the mean is left out. Like Zauner's pHash
    (https://phash.org/docs/pubs/thesis_zauner.pdf), but with signs instead of a comparison with the median, and a
    quarter disc instead of a square of frequencies: a third fewer pairs by chance, and no fewer copies found.
    """
    return _fingerprints(images)[1]


def candidate_pairs(
    hashes: NDArray[np.uint64], max_distance: int, limit: int = _CANDIDATE_LIMIT
) -> tuple[NDArray[np.int64], int]:
    """Return all pairs of hashes within `max_distance` bits as rows (first, second, distance), first < second.

    If two hashes differ in d bits, one of their four bands of 16 bits differs in at most d / 4 (pigeonhole principle).
    So looking up each band with every change of that many bits finds every pair. If there are more than about `limit`
    pairs, the distance is lowered until there are fewer; at distance 0 the search stops early. The second value is the
    distance searched.
    """
    blocks = [np.empty((0, 3), np.int64)]
    num_pairs = 0
    for block in _band_matches(hashes, max_distance):
        blocks.append(block[block[:, 2] <= max_distance])
        num_pairs += len(blocks[-1])
        while num_pairs > limit and max_distance > 0:
            max_distance -= 1
            blocks = [kept[kept[:, 2] <= max_distance] for kept in blocks]
            num_pairs = sum(map(len, blocks))
        if num_pairs > limit:
            break
    return np.unique(np.concatenate(blocks), axis=0)[:limit], max_distance


def similarity(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Return the similarity of the details of two images, uint8 64 x 64 x 3: -1 to 1, independent of brightness.

    Gray detail is 1 to 3 pixels wide. The similarity is the highest correlation of the middle of the first image
    (without an eighth at each side) with any part of the second. It is 0 if an image has no detail.
    """
    scene, margin = _detail(second), SIDE // 8
    template = np.ascontiguousarray(_detail(first)[margin:-margin, margin:-margin])
    if min(template.std(), scene.std()) < _MIN_DETAIL:
        return 0.0
    return float(cv2.matchTemplate(scene, template, cv2.TM_CCOEFF_NORMED).max())


def _fingerprints(images: NDArray[np.uint8]) -> tuple[list[bytes], NDArray[np.uint64], NDArray[np.bool_]]:
    """Return for each image a digest of its bytes, its perceptual hash, and whether it is flat."""
    digests: list[bytes] = []
    hashes, flat = [np.empty(0, np.uint64)], [np.empty(0, np.bool_)]
    for start in range(0, len(images), _CHUNK):
        chunk = np.ascontiguousarray(images[start : start + _CHUNK])
        digests += [hashlib.blake2b(image, digest_size=16).digest() for image in chunk]
        chunk_hashes, chunk_flat = _hash_chunk(chunk)
        hashes.append(chunk_hashes)
        flat.append(chunk_flat)
    return digests, np.concatenate(hashes), np.concatenate(flat)


def _hash_chunk(chunk: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    count = len(chunk)
    gray = cv2.cvtColor(chunk.reshape(count * SIDE, SIDE, 3), cv2.COLOR_RGB2GRAY).astype(np.float32)
    cosines = _cosines()
    # One small product per image: for a large one, BLAS starts threads and takes twice as long.
    spectrum = cosines @ gray.reshape(count, SIDE, SIDE) @ cosines.T
    down, across = np.divmod(np.arange(_FREQUENCIES**2), _FREQUENCIES)
    lowest = np.argsort(down**2 + across**2, kind="stable")[1 : 1 + _HASH_BITS]
    coefficients = np.ascontiguousarray(spectrum.reshape(count, -1)[:, lowest])
    bits = np.packbits(coefficients > _MIN_COEFFICIENT, axis=1)
    # By Parseval, this is the root mean square of the image with only these frequencies, in gray levels.
    structure = np.sqrt((coefficients**2).sum(1) / SIDE**2)
    return bits.view(np.uint64)[:, 0], structure < _MIN_STRUCTURE


def _cosines() -> NDArray[np.float32]:
    """Return the first rows of the orthonormal DCT-II matrix of 64 points."""
    frequency, point = np.arange(_FREQUENCIES)[:, None], np.arange(SIDE)
    matrix = np.cos(np.pi * (2 * point + 1) * frequency / (2 * SIDE)) * np.sqrt(2 / SIDE)
    matrix[0] /= np.sqrt(2)
    return np.asarray(matrix, np.float32)


def _band_matches(hashes: NDArray[np.uint64], max_distance: int) -> Iterator[NDArray[np.int64]]:
    """Yield blocks of rows (first, second, distance): pairs with a similar band. Pairs may be repeated."""
    changes = np.arange(_BAND_VALUES)
    changes = changes[np.bitwise_count(changes) <= max_distance // _BANDS]
    position = np.arange(len(hashes))
    for band in hashes.view(np.uint16).reshape(-1, _BANDS).T:
        order = np.argsort(band, kind="stable")
        value, ordered = band[order].astype(np.int64), hashes[order]
        starts = np.concatenate([[0], np.cumsum(np.bincount(value, minlength=_BAND_VALUES))])
        for change in changes:
            # To see each pair once, pair with later hashes of the same value, or with those of a larger value.
            left = position if change == 0 else np.flatnonzero(value < value ^ change)
            partner = value[left] ^ change
            begin = left + 1 if change == 0 else starts[partner]
            for row, right in _expand(begin, starts[partner + 1]):
                distance = np.bitwise_count(ordered[left[row]] ^ ordered[right])
                close = np.flatnonzero(distance <= max_distance)
                if len(close):
                    ends = np.sort([order[left[row[close]]], order[right[close]]], axis=0)
                    yield np.column_stack([*ends, distance[close]]).astype(np.int64)


def _expand(begin: NDArray[np.int64], end: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield (i, j) for each j of each range begin[i] to end[i], in blocks of bounded size."""
    length = end - begin
    total = np.cumsum(length)
    num_blocks = int(total[-1]) // _PAIRS_AT_ONCE + 1 if len(total) else 0
    cuts = np.searchsorted(total, np.arange(num_blocks) * _PAIRS_AT_ONCE, side="right")
    for start, stop in pairwise([*cuts.tolist(), len(total)]):
        lengths = length[start:stop]
        row = np.repeat(np.arange(start, stop), lengths)
        offset = begin[start:stop] - (np.cumsum(lengths) - lengths)
        yield row, np.arange(len(row)) + np.repeat(offset, lengths)


def _detail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    smooth = cv2.GaussianBlur(gray, (0, 0), 1)
    return np.asarray(smooth - cv2.GaussianBlur(smooth, (0, 0), 3), np.float32)


def _identical(digests: list[bytes]) -> list[NDArray[np.int64]]:
    """Return the groups of two or more images with the same digest, each in ascending order."""
    repeated = pd.Series(digests, dtype=object)
    repeated = repeated[repeated.duplicated(keep=False)]
    return [group.to_numpy() for group in repeated.groupby(repeated, sort=False).groups.values()]


def _pairs_within(group: NDArray[np.int64], num_train: int) -> Iterator[tuple[int, int]]:
    train, val = group[group < num_train], group[group >= num_train]
    for first, others in ((train, train[1:]), (val, val[1:]), (train, val)):
        if len(first):
            yield from ((int(first[0]), int(other)) for other in others)


def _pairs_between(one: NDArray[np.int64], other: NDArray[np.int64], num_train: int) -> Iterator[tuple[int, int]]:
    """Pair each image of a group with the first of the other group, for each combination of splits."""
    (train, val), (other_train, other_val) = (
        (group[group < num_train], group[group >= num_train]) for group in (one, other)
    )
    for left, right in ((train, other_train), (val, other_val), (train, other_val), (other_train, val)):
        if len(left) and len(right):
            yield from ((int(left[0]), int(index)) for index in right)
            yield from ((int(index), int(right[0])) for index in left[1:])


def _frame(rows: Iterable[tuple[int, int, int]], num_train: int) -> pd.DataFrame:
    table = np.array(sorted((*sorted(ends), distance) for *ends, distance in rows), np.int64).reshape(-1, 3)
    columns: dict[str, Any] = {}
    for end, index in zip("ab", table.T, strict=False):
        columns[f"split_{end}"] = np.where(index < num_train, "train", "val").astype(object)
        columns[f"index_{end}"] = np.where(index < num_train, index, index - num_train)
    frame = pd.DataFrame(columns | {"distance": table[:, 2]})
    return frame.sort_values(["split_a", "split_b", "distance"], kind="stable", ignore_index=True)


def _counts(pairs: pd.DataFrame) -> dict[str, dict[str, int]]:
    counts = {}
    for splits in (("train", "train"), ("train", "val"), ("val", "val")):
        rows = pairs[(pairs["split_a"] == splits[0]) & (pairs["split_b"] == splits[1])]
        indices = {
            split: pd.unique(pd.concat([rows.loc[rows[f"split_{end}"] == split, f"index_{end}"] for end in "ab"]))
            for split in ("train", "val")
        }
        counts["-".join(splits)] = {
            "pairs": len(rows),
            "train_images": len(indices["train"]),
            "val_images": len(indices["val"]),
        }
    return counts
