"""Augment single uint8 images with OpenCV, on threads: one affine warp, then colours and noise.

The paper's augmentation follows Keras's `ImageDataGenerator`, which the authors used: rotation, shift, shear and zoom
about the centre, in that order, bilinear with the edge repeated; then a mirror; then brightness. A crop comes before
these, TrivialAugment and erasing after. The draws for an image depend only on (seed, epoch, index), not on threads, the
order of work, or a restart.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum, unique

import cv2
import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.common.cores import cores
from tiny_imagenet.config.recipe import NO_AUGMENTATION, Augmentation
from tiny_imagenet.input_pipeline.trivial_augment import (
    OPERATIONS,
    TrivialDraws,
    draw_trivial,
    geometry_matrices,
    recolour,
)

ERASED_AREA = (0.02, 0.33)
"""Lowest and highest, as a fraction of the image's area."""
ERASED_ASPECT = (0.3, 3.3)
_COLUMNS = 8
"""Random numbers per image: rotation, two shifts, shear, two zooms, mirror, brightness."""


@unique
class Stream(IntEnum):
    """A random stream for each part of the augmentation. Switching a part on does not change the draws of others."""

    WARP = 1
    ORDER = 2
    CROP = 3
    TRIVIAL_AUGMENT = 4
    ERASING = 5
    NOISE = 6
    MIXING = 7
    MIXUP_SHARE = 8
    CUTMIX_SHARE = 9


def random_stream(stream: Stream, *, seed: int, epoch: int, index: int | None = None) -> np.random.Generator:
    """Return the random generator of a stream for an epoch, or for one of its images if `index` is given."""
    return np.random.default_rng([seed, epoch, stream] if index is None else [seed, epoch, stream, index])


@dataclass(frozen=True)
class Draws:
    """The draws for N images; each field has shape (N,).

    `*_rows` moves up and down, `*_columns` sideways. `ImageDataGenerator` swaps the names: its `width_shift_range`
    moves rows. The authors set 10 % for both.
    """

    rotation: NDArray[np.float64]
    """Radians."""
    shift_rows: NDArray[np.float64]
    """Fraction of the height."""
    shift_columns: NDArray[np.float64]
    shear: NDArray[np.float64]
    """Radians."""
    zoom_rows: NDArray[np.float64]
    """Size of the sampled window. Above 1, the image shrinks."""
    zoom_columns: NDArray[np.float64]
    mirrored: NDArray[np.bool_]
    brightness: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rotation)


def draw(augmentation: Augmentation, *, seed: int, epoch: int, num_images: int) -> Draws:
    """Draw for images 0 to num_images - 1 of an epoch. The draws for image i do not depend on `num_images`."""
    columns = random_stream(Stream.WARP, seed=seed, epoch=epoch).random((num_images, _COLUMNS)).T

    def between(column: int, low: float, high: float) -> NDArray[np.float64]:
        scaled: NDArray[np.float64] = low + (high - low) * columns[column]
        return scaled

    angle, slope = np.deg2rad(augmentation.rotation_degrees), np.deg2rad(augmentation.shear_degrees)
    return Draws(
        rotation=between(0, -angle, angle),
        shift_rows=between(1, -augmentation.shift, augmentation.shift),
        shift_columns=between(2, -augmentation.shift, augmentation.shift),
        shear=between(3, -slope, slope),
        zoom_rows=between(4, *augmentation.zoom),
        zoom_columns=between(5, *augmentation.zoom),
        mirrored=(columns[6] < 0.5) & augmentation.horizontal_flip,
        brightness=between(7, *augmentation.brightness),
    )


def draw_crops(padding: int, *, seed: int, epoch: int, num_images: int) -> NDArray[np.int64]:
    """Return (N, 2): the offset (x, y) of each crop, in whole pixels from -padding to padding."""
    return random_stream(Stream.CROP, seed=seed, epoch=epoch).integers(
        -padding, padding, (num_images, 2), endpoint=True
    )


def draw_erased(
    probability: float, *, seed: int, epoch: int, num_images: int, height: int, width: int
) -> NDArray[np.int64]:
    """Return (N, 4): top, bottom, left and right of the rectangle to fill with noise; empty for images not erased.

    Area and aspect (height to width, uniform in its logarithm) are as published. Sides are cut to the image.
    """
    uniform = random_stream(Stream.ERASING, seed=seed, epoch=epoch).random((num_images, 5)).T
    low, high = ERASED_AREA
    area = (low + (high - low) * uniform[1]) * height * width
    low, high = np.log(ERASED_ASPECT)
    aspect = np.exp(low + (high - low) * uniform[2])
    is_erased = uniform[0] < probability
    tall = np.where(is_erased, np.minimum(np.rint(np.sqrt(area * aspect)), height), 0).astype(np.int64)
    wide = np.where(is_erased, np.minimum(np.rint(np.sqrt(area / aspect)), width), 0).astype(np.int64)
    top = (uniform[3] * (height - tall + 1)).astype(np.int64)
    left = (uniform[4] * (width - wide + 1)).astype(np.int64)
    return np.stack([top, top + tall, left, left + wide], -1)


def epoch_order(*, seed: int, epoch: int, num_images: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits the images."""
    return random_stream(Stream.ORDER, seed=seed, epoch=epoch).permutation(num_images)


def affine_matrices(draws: Draws, height: int, width: int) -> NDArray[np.float64]:
    """Return (N, 2, 3): for each image the map from output (x, y) to input (x, y), in pixels, for OpenCV."""
    ones, zeros = np.ones(len(draws)), np.zeros(len(draws))

    def stacked(*rows: tuple[NDArray[np.float64], ...]) -> NDArray[np.float64]:
        return np.stack([np.stack(row, -1) for row in rows], -2)

    # Matrices act on (x, y, 1), x along the columns. The order is that of `ImageDataGenerator`.
    cos, sin = np.cos(draws.rotation), np.sin(draws.rotation)
    rotation = stacked((cos, -sin, zeros), (sin, cos, zeros), (zeros, zeros, ones))
    shift = stacked(
        (ones, zeros, draws.shift_columns * width),
        (zeros, ones, draws.shift_rows * height),
        (zeros, zeros, ones),
    )
    shear = stacked((ones, -np.sin(draws.shear), zeros), (zeros, np.cos(draws.shear), zeros), (zeros, zeros, ones))
    zoom = stacked((draws.zoom_columns, zeros, zeros), (zeros, draws.zoom_rows, zeros), (zeros, zeros, ones))
    x, y = width / 2 - 0.5, height / 2 - 0.5
    centre = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
    uncentre = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    # The mirror comes after the warp: output column x shows what the warp put at width - 1 - x.
    sign, offset = np.where(draws.mirrored, -1.0, 1.0), np.where(draws.mirrored, width - 1.0, 0.0)
    mirror = stacked((sign, zeros, offset), (zeros, ones, zeros), (zeros, zeros, ones))
    matrices = centre @ rotation @ shift @ shear @ zoom @ uncentre @ mirror
    return np.ascontiguousarray(matrices[:, :2])


def brightness_tables(factors: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return (N, 256), the new value of each pixel value: `min(floor(value * factor), 255)`, in float32 as in PIL."""
    products = np.arange(256, dtype=np.float32) * factors.astype(np.float32)[:, None]
    tables: NDArray[np.uint8] = np.minimum(np.floor(products), 255).astype(np.uint8)
    return tables


def _warp(
    image: NDArray[np.uint8],
    matrix: NDArray[np.float64],
    table: NDArray[np.uint8] | None,
    out: NDArray[np.uint8],
) -> None:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    height, width = image.shape[:2]
    cv2.warpAffine(image, matrix, (width, height), dst=out, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if table is not None:
        cv2.LUT(out, table, dst=out)


def resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Return N x size x size x 3, uint8: each pixel is the mean of the area that it covers. Never enlarge."""
    resized = np.empty((len(images), size, size, 3), np.uint8)
    for image, out in zip(images, resized, strict=True):
        cv2.resize(image, (size, size), dst=out, interpolation=cv2.INTER_AREA)
    return resized


@dataclass(frozen=True)
class _Epoch:
    """The draws for all images of an epoch; None if a part is off."""

    number: int
    matrices: NDArray[np.float64]
    brightness: NDArray[np.float64] | None
    trivial: TrivialDraws | None
    erased: NDArray[np.int64] | None


class Augmenter:
    """Apply an augmentation to batches, on threads. Mixing is done in `mixing.py`."""

    def __init__(self, augmentation: Augmentation, *, seed: int, num_images: int, threads: int | None = None):
        self.augmentation = augmentation
        self._changes = augmentation.model_copy(update={"mixup": 0.0, "cutmix": 0.0}) != NO_AUGMENTATION
        self.seed = seed
        self.num_images = num_images
        self._num_threads = threads or cores()
        self._threads = ThreadPoolExecutor(self._num_threads)
        self._drawn: _Epoch | None = None
        cv2.setNumThreads(1)  # our threads share a batch; one image of 64 x 64 is too small to share

    def __call__(self, images: NDArray[np.uint8], indices: NDArray[np.int64], epoch: int) -> NDArray[np.uint8]:
        """Return augmented copies of `images` (N x H x W x 3), which are images `indices` of the split."""
        if not self._changes:
            return images
        drawn = self._for_epoch(epoch, images.shape[1], images.shape[2])
        # Tables for one batch only: 256 bytes for each image of an epoch would take too much memory.
        tables = None if drawn.brightness is None else brightness_tables(drawn.brightness[indices])
        out = np.empty_like(images)

        def work(positions: range) -> None:
            for position in positions:
                index, augmented = indices[position], out[position]
                _warp(images[position], drawn.matrices[index], None if tables is None else tables[position], augmented)
                if drawn.trivial is not None:
                    operation = OPERATIONS[drawn.trivial.operation[index]]
                    recolour(augmented, operation, float(drawn.trivial.magnitude[index]))
                if drawn.erased is not None:
                    self._erase(augmented, drawn.erased[index], index, epoch)

        shares = [range(start, len(images), self._num_threads) for start in range(self._num_threads)]
        list(self._threads.map(work, shares))
        return out

    def _erase(self, image: NDArray[np.uint8], box: NDArray[np.int64], index: int, epoch: int) -> None:
        top, bottom, left, right = box
        if bottom > top:
            random = random_stream(Stream.NOISE, seed=self.seed, epoch=epoch, index=index)
            image[top:bottom, left:right] = random.integers(0, 256, (bottom - top, right - left, 3), np.uint8)

    def _for_epoch(self, epoch: int, height: int, width: int) -> _Epoch:
        drawn = self._drawn  # read once: another thread may replace it
        if drawn is None or drawn.number != epoch:
            drawn = self._drawn = self._draw(epoch, height, width)
        return drawn

    def _draw(self, epoch: int, height: int, width: int) -> _Epoch:
        augmentation = self.augmentation
        key = {"seed": self.seed, "epoch": epoch, "num_images": self.num_images}
        draws = draw(augmentation, **key)
        matrices = affine_matrices(draws, height, width)
        matrices[:, :, 2] += draw_crops(augmentation.crop_padding, **key)
        trivial = None
        if augmentation.trivial_augment:
            trivial = draw_trivial(random_stream(Stream.TRIVIAL_AUGMENT, seed=self.seed, epoch=epoch), self.num_images)
            matrices = matrices @ geometry_matrices(trivial, height, width)
        return _Epoch(
            number=epoch,
            matrices=matrices,
            brightness=draws.brightness if augmentation.brightness != NO_AUGMENTATION.brightness else None,
            trivial=trivial,
            erased=draw_erased(augmentation.erasing, **key, height=height, width=width)
            if augmentation.erasing
            else None,
        )
