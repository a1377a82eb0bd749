"""TrivialAugment, "wide": one of 14 operations on each image, at one of 31 strengths (https://arxiv.org/abs/2103.10158).

Operations, ranges and signs are those of torchvision's `TrivialAugmentWide`. Geometric operations are matrices for the
warp in `augmentation.py`. Colour operations are OpenCV's tables and filters: 20 microseconds per image on average.
Pillow takes 65 and holds Python's lock. Tests compare the two.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

NUM_STRENGTHS = 31
_FACTORS = np.linspace(0, 0.99, NUM_STRENGTHS)
_UNUSED = np.zeros(NUM_STRENGTHS)
MAGNITUDES = {
    "identity": _UNUSED,
    "shear_x": _FACTORS,  # pixels to the side for each pixel down
    "shear_y": _FACTORS,
    "translate_x": np.trunc(np.linspace(0, 32, NUM_STRENGTHS)),  # pixels, for images of any size
    "translate_y": np.trunc(np.linspace(0, 32, NUM_STRENGTHS)),
    "rotate": np.linspace(0, 135, NUM_STRENGTHS),  # degrees, anticlockwise
    "brightness": _FACTORS,  # added to a factor of 1
    "color": _FACTORS,
    "contrast": _FACTORS,
    "sharpness": _FACTORS,
    "posterize": 8 - np.round(np.arange(NUM_STRENGTHS) / 5),  # bits kept: 8 to 2
    "solarize": np.linspace(255, 0, NUM_STRENGTHS),  # values from here on are inverted
    "autocontrast": _UNUSED,
    "equalize": _UNUSED,
}
"""Operation -> its magnitude at each strength."""
OPERATIONS = tuple(MAGNITUDES)
SIGNED = frozenset(OPERATIONS[1:10])
"""Operations with a random sign: the magnitude is negative half of the time."""

_VALUES = np.arange(256)
_LUMA = np.array([19595, 38470, 7471]) / 65536
"""Shares of red, green and blue in gray (ITU-R 601), as Pillow rounds them."""
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
"""Pillow's `ImageFilter.SMOOTH`: sharpness 0."""


@dataclass(frozen=True)
class TrivialDraws:
    """The draws for N images; each field has shape (N,)."""

    operation: NDArray[np.int64]
    """Index in `OPERATIONS`."""
    magnitude: NDArray[np.float64]
    """From `MAGNITUDES`, with a random sign if the operation is in `SIGNED`."""


def draw_trivial(random: np.random.Generator, num_images: int) -> TrivialDraws:
    """Draw for images 0 to num_images - 1. The draws for image i do not depend on `num_images`."""
    uniform = random.random((num_images, 3)).T
    operation = (uniform[0] * len(OPERATIONS)).astype(np.int64)
    strength = (uniform[1] * NUM_STRENGTHS).astype(np.int64)
    magnitude = np.stack(list(MAGNITUDES.values()))[operation, strength]
    signed = np.array([name in SIGNED for name in OPERATIONS])[operation]
    return TrivialDraws(operation, np.where(signed & (uniform[2] < 0.5), -magnitude, magnitude))


def geometry_matrices(draws: TrivialDraws, height: int, width: int) -> NDArray[np.float64]:
    """Return (N, 3, 3): for each image the map from output (x, y, 1) to input (x, y, 1), in pixels.

    Shears keep the left or upper edge in place, rotations the centre. For colour operations it is the identity.
    """

    def magnitude_of(name: str) -> NDArray[np.float64]:
        return np.where(draws.operation == OPERATIONS.index(name), draws.magnitude, 0.0)

    matrices = np.tile(np.eye(3), (len(draws.operation), 1, 1))
    shear_x, shear_y = magnitude_of("shear_x"), magnitude_of("shear_y")
    angle = np.deg2rad(magnitude_of("rotate"))
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = width / 2 - 0.5, height / 2 - 0.5
    matrices[:, 0, 0] = matrices[:, 1, 1] = cos
    matrices[:, 0, 1] = shear_x - sin
    matrices[:, 1, 0] = shear_y + sin
    # Coordinates refer to the centres of pixels, so the edge of the image is at -0.5.
    matrices[:, 0, 2] = 0.5 * shear_x - magnitude_of("translate_x") + x - cos * x + sin * y
    matrices[:, 1, 2] = 0.5 * shear_y - magnitude_of("translate_y") + y - cos * y - sin * x
    return matrices


def recolour(image: NDArray[np.uint8], operation: str, magnitude: float) -> None:
    """Apply a colour operation to an image (uint8, H x W x 3, RGB) in place. Do nothing for geometric operations."""
    match operation:
        case "brightness":
            cv2.LUT(image, _blend_table(0, 1 + magnitude), dst=image)
        case "contrast":
            mean = int(cv2.mean(_gray(image))[0] + 0.5)
            cv2.LUT(image, _blend_table(mean, 1 + magnitude), dst=image)
        case "color":
            gray = cv2.merge([_gray(image)] * 3)
            cv2.addWeighted(image, 1 + magnitude, gray, -magnitude, 0, dst=image)
        case "sharpness":
            image[1:-1, 1:-1] = _sharpened(image, 1 + magnitude)[1:-1, 1:-1]
        case "posterize":
            cv2.LUT(image, (_VALUES & -(1 << 8 - int(magnitude))).astype(np.uint8), dst=image)
        case "solarize":
            cv2.LUT(image, np.where(magnitude > _VALUES, _VALUES, 255 - _VALUES).astype(np.uint8), dst=image)
        case "autocontrast":
            cv2.LUT(image, _per_channel(_stretching_table, image), dst=image)
        case "equalize":
            cv2.LUT(image, _per_channel(_equalizing_table, image), dst=image)


def _gray(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.transform(image, _LUMA[np.newaxis]), np.uint8)


def _sharpened(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """Return the sharpened image. Its outermost pixels are not valid."""
    kernel = (1 - factor) * _SMOOTH
    kernel[1, 1] += factor
    return np.asarray(cv2.filter2D(image, -1, kernel), np.uint8)


def _blend_table(base: int, factor: float) -> NDArray[np.uint8]:
    """Return (256,): `base + factor * (value - base)`, computed in float32 and truncated, as Pillow blends."""
    blended = np.float32(base) + np.float32(factor) * (_VALUES - base).astype(np.float32)
    return blended.clip(0, 255).astype(np.uint8)


def _stretching_table(channel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (256,): the table that stretches a channel's values to 0 to 255, as in `ImageOps.autocontrast`."""
    low, high = int(channel.min()), int(channel.max())
    if low == high:
        return _VALUES.astype(np.uint8)
    scale = 255 / (high - low)
    return (_VALUES * scale - low * scale).clip(0, 255).astype(np.uint8)


def _equalizing_table(channel: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return (256,): the table that makes a channel's values about equally frequent, as in `ImageOps.equalize`."""
    counts = cv2.calcHist([channel], [0], None, [256], [0, 256]).ravel().astype(np.int64)
    step = (channel.size - counts[channel.max()]) // 255
    if step == 0:
        return _VALUES.astype(np.uint8)
    below = np.cumsum(counts) - counts
    table: NDArray[np.uint8] = ((step // 2 + below) // step).clip(0, 255).astype(np.uint8)
    return table


def _per_channel(
    table_of: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], image: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return (1, 256, 3): a table for each channel, in the shape that OpenCV expects."""
    return np.stack([table_of(np.asarray(channel, np.uint8)) for channel in cv2.split(image)], -1)[np.newaxis]
