"""The paper's augmentation, composed into one affine warp per image and done on uint8 by OpenCV on threads.

Follows Keras's `ImageDataGenerator`, which the authors used: rotation, shift, shear and zoom about the centre, in that
order, bilinear with the edge repeated; then a mirror; then brightness. What is drawn for an image depends on (seed,
epoch, index) alone: not on threads, on the order of work, or on a restart.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.params import NO_AUGMENTATION, Augmentation

_COLUMNS = 8
"""Uniform numbers that each image takes: rotation, two shifts, shear, two zooms, mirror, brightness."""
_WARP_STREAM, _ORDER_STREAM = 1, 2


@dataclass(frozen=True)
class Draws:
    """What was drawn for N images; every field has shape (N,).

    `*_rows` moves along the rows (up and down), `*_columns` along the columns. The generator's own names are swapped:
    its `width_shift_range` moves rows; the authors gave 10 % for both.
    """

    rotation: NDArray[np.float64]
    """Radians."""
    shift_rows: NDArray[np.float64]
    """Fraction of the height."""
    shift_columns: NDArray[np.float64]
    shear: NDArray[np.float64]
    """Radians."""
    zoom_rows: NDArray[np.float64]
    """Size of the sampled window: above 1 the picture shrinks."""
    zoom_columns: NDArray[np.float64]
    mirrored: NDArray[np.bool_]
    brightness: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rotation)


def draw(augmentation: Augmentation, *, seed: int, epoch: int, num_images: int) -> Draws:
    """Draw for images 0 to num_images - 1 of an epoch; image i gets the same whatever `num_images` is."""
    uniform = np.random.default_rng([seed, epoch, _WARP_STREAM]).random((num_images, _COLUMNS))
    columns = uniform.T

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


def epoch_order(*, seed: int, epoch: int, num_images: int) -> NDArray[np.int64]:
    """Return the order in which an epoch visits the images."""
    return np.random.default_rng([seed, epoch, _ORDER_STREAM]).permutation(num_images)


def affine_matrices(draws: Draws, height: int, width: int) -> NDArray[np.float64]:
    """Return (N, 2, 3): for each image the map from output (x, y) to input (x, y), in pixels, as OpenCV wants it."""
    n = len(draws)
    ones, zeros = np.ones(n), np.zeros(n)

    def stacked(*rows: tuple[NDArray[np.float64], ...]) -> NDArray[np.float64]:
        return np.stack([np.stack(row, -1) for row in rows], -2)

    # In (x, y, 1) with x along the columns, as the generator composes them.
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
    """Return (N, 256): what a pixel becomes, `min(floor(value * factor), 255)` in single precision as PIL does."""
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


class Augmenter:
    """Applies an augmentation to batches, on threads of its own."""

    def __init__(self, augmentation: Augmentation, *, seed: int, num_images: int, threads: int | None = None):
        self.augmentation = augmentation
        self.seed = seed
        self.num_images = num_images
        self._num_threads = threads or os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(self._num_threads)
        self._drawn: tuple[int, NDArray[np.float64], NDArray[np.uint8]] | None = None
        cv2.setNumThreads(1)  # an image of 64 x 64 is too small to share; the batch is what is shared

    def __call__(self, images: NDArray[np.uint8], indices: NDArray[np.int64], epoch: int) -> NDArray[np.uint8]:
        """Return augmented copies of `images` (N x H x W x 3), which are images `indices` of the split."""
        if self.augmentation == NO_AUGMENTATION:
            return images
        matrices, tables = self._for_epoch(epoch, images.shape[1], images.shape[2])
        brighten = self.augmentation.brightness != NO_AUGMENTATION.brightness
        out = np.empty_like(images)

        def work(places: range) -> None:
            for place in places:
                index = indices[place]
                _warp(images[place], matrices[index], tables[index] if brighten else None, out[place])

        shares = [range(start, len(images), self._num_threads) for start in range(self._num_threads)]
        list(self._threads.map(work, shares))
        return out

    def _for_epoch(self, epoch: int, height: int, width: int) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        if self._drawn is None or self._drawn[0] != epoch:
            draws = draw(self.augmentation, seed=self.seed, epoch=epoch, num_images=self.num_images)
            self._drawn = (epoch, affine_matrices(draws, height, width), brightness_tables(draws.brightness))
        return self._drawn[1], self._drawn[2]
