"""Decode JPEGs, for datasets and for `predict` alike: the same file gives the same pixels."""

import io

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image

from tiny_imagenet.input_pipeline.packed import SIDE

_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF's orientation -> the operation that turns the picture upright."""


class WrongSizeError(ValueError):
    """An image of a dataset is not 64 x 64."""


def read_header(jpeg: bytes) -> tuple[int, int, str]:
    """Return width, height and colour space ("YCbCr", "CMYK", ...). Raise ValueError if it is not a JPEG."""
    height, width, colours, _ = simplejpeg.decode_jpeg_header(jpeg, strict=True)
    return width, height, colours


def decode_jpeg(jpeg: bytes, colours: str) -> NDArray[np.uint8]:
    """Return the pixels of a JPEG, not rotated: uint8 RGB, height x width x 3. Gray and CMYK become RGB.

    `colours` is its colour space, from `read_header`. Raise ValueError if it is damaged or truncated.
    """
    # OpenCV and PIL fill the rest of a truncated file with gray; libjpeg-turbo in strict mode raises.
    is_cmyk = colours in ("CMYK", "YCCK")
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, colorspace="CMYK" if is_cmyk else "RGB", strict=True)
    if not is_cmyk:
        return pixels
    # libjpeg-turbo's own conversion makes white 254. The inks are stored inverted.
    inks = Image.frombytes("CMYK", pixels.shape[1::-1], (255 - pixels).tobytes())
    return np.asarray(inks.convert("RGB"))


def upright(picture: Image.Image, original: Image.Image) -> Image.Image:
    """Return the picture, turned by the original's EXIF. Pillow turns a TIFF itself, and updates its EXIF."""
    try:
        orientation = original.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # ignore broken EXIF
        return picture
    turn = _TRANSPOSED.get(orientation) if isinstance(orientation, int) else None
    return picture if turn is None else picture.transpose(turn)


def decode(jpeg: bytes) -> NDArray[np.uint8]:
    """Return the pixels of an image of a dataset: 64 x 64 x 3, uint8 RGB, upright.

    Raise ValueError if it cannot be decoded, is truncated, or has another size.
    """
    try:
        width, height, colours = read_header(jpeg)
        if (width, height) == (SIDE, SIDE):  # checked first: 12,000 x 12,000 pixels would take much memory
            pixels = decode_jpeg(jpeg, colours)
            return _turned(pixels, jpeg) if b"Exif\0\0" in jpeg or b"tiff:Orientation" in jpeg else pixels
    except ValueError as error:
        raise ValueError(f"is not a complete JPEG ({error})") from None
    raise WrongSizeError(f"is {width} x {height}, expected {SIDE} x {SIDE}")


def _turned(pixels: NDArray[np.uint8], jpeg: bytes) -> NDArray[np.uint8]:
    try:
        original = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
    except Exception:  # Pillow may raise anything for an odd header
        return pixels
    return np.asarray(upright(Image.fromarray(pixels), original))
