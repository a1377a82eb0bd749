"""Read any picture as input for the models: uint8 RGB, 64 x 64 x 3.

`dataset.jpeg` decodes JPEGs, so that images of the dataset give the same pixels; Pillow decodes all other formats.
Pictures may come from anywhere, so nothing in a file is trusted.
"""

import re
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.dataset.jpeg import decode_jpeg, read_header, upright
from tiny_imagenet.input_pipeline.packed import SIDE

MAX_PIXELS = 1024**3 // 4 // 3
"""89 million, Pillow's own limit for a decompression bomb. As RGB they take 256 MiB."""
_MAX_BYTES = 1 << 30  # enough for MAX_PIXELS: uncompressed 16-bit RGBA takes 0.7 GB
_MANY_PIXELS = 1 << 24
_one_large_image = threading.Lock()  # converting MAX_PIXELS takes about 1 GB
# Formats that Pillow identifies but cannot decode; and PostScript, a program that Ghostscript would run.
_NO_PICTURES = {"BUFR", "GRIB", "HDF5", "MPEG"}
_DRAWINGS = {"EPS", "WMF"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"avif", b"avis"}
# Pillow scales the pixels of these PNGs to 8 bits, but not the colour that is transparent.
_TO_8_BITS = {"L;2": 255 / 3, "L;4": 255 / 15, "RGB;16B": 1 / 256}
# libjpeg-turbo also warns of harmless defects: an odd header, or padding before the end marker 0xd9.
_DAMAGED_JPEG = re.compile(r"(Corrupt|Premature)(?!.*before marker 0xd9)")


class ImageError(UserError):
    """The file cannot be read as a picture. The message follows the path."""


class NotAnImageError(ImageError):
    """The file is not an image. In a folder, it is skipped."""


def read_image(path: Path) -> NDArray[np.uint8]:
    """Return the picture in the file as uint8 RGB, 64 x 64 x 3.

    Turn it upright by its EXIF orientation, crop the square in its centre and resize it (bicubic, antialiased); keep
    64 x 64 pixels unchanged. Read the first frame of an animation and the first of several pages. Make transparent
    parts white. Keep the upper 8 of 16 bits per channel. Ignore colour profiles, as for the training images.

    Raises:
        NotAnImageError: the content is not an image.
        ImageError: the file does not exist, or the image is damaged, too large, or has no plain colours.
    """
    try:
        if not path.is_file():
            raise ImageError("is not a regular file" if path.exists() else "does not exist")
        if path.stat().st_size > _MAX_BYTES:
            raise ImageError(f"has {path.stat().st_size:,} bytes; expected at most {_MAX_BYTES:,}")
        with path.open("rb") as stream, _opened(stream) as image:
            large = image.width * image.height > _MANY_PIXELS
            with _one_large_image if large else nullcontext():
                return np.asarray(upright(_square(_decoded(image, stream)), image))
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}") from None
    except MemoryError:
        raise ImageError("needs more memory than is free") from None


def _opened(stream: BinaryIO) -> ImageFile.ImageFile:
    """Return the image with only its header read."""
    header = stream.read(12)
    stream.seek(0)
    try:
        image = Image.open(stream)
    except Image.DecompressionBombError:
        raise ImageError(f"has too many pixels; expected at most {MAX_PIXELS:,}") from None
    except Exception:  # plugins raise any exception for a broken header
        if header[4:8] == b"ftyp" and header[8:12] in _HEIF_BRANDS:
            raise ImageError("is a HEIF or AVIF image, which this Pillow cannot read: convert it to JPEG") from None
        if not header:
            raise NotAnImageError("is empty") from None
        raise NotAnImageError("is not an image that Pillow can read, or its header is damaged") from None
    if image.format in _NO_PICTURES | _DRAWINGS:
        kind = ImageError if image.format in _DRAWINGS else NotAnImageError
        raise kind(f"is {image.format}, which Pillow cannot read as pixels: convert it to PNG")
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"is {image.width:,} x {image.height:,}; expected at most {MAX_PIXELS:,} pixels")
    return image


def _decoded(image: ImageFile.ImageFile, stream: BinaryIO) -> Image.Image:
    """Return the picture as 8-bit RGB, or RGBA if parts are transparent."""
    jpeg = _decoded_jpeg(image, stream) if image.format in ("JPEG", "MPO") else None
    try:
        if jpeg is None:
            _scale_transparent_colour(image)
            image.load()
    except MemoryError:
        raise
    except Image.DecompressionBombError:
        raise ImageError(f"has too many pixels; expected at most {MAX_PIXELS:,}") from None
    except Exception as error:  # as above
        raise ImageError(f"is damaged or truncated ({error})") from None
    try:
        return _with_plain_colours(image if jpeg is None else jpeg)
    except MemoryError:
        raise
    except Exception as error:
        raise ImageError(f"cannot be converted to RGB ({str(error) or repr(error)})") from None


def _decoded_jpeg(image: Image.Image, stream: BinaryIO) -> Image.Image | None:
    """Return the JPEG as `cache` decodes it, or None if that decoder cannot read it."""
    stream.seek(0)
    content = stream.read()
    try:
        width, height, colours = read_header(content)
        if (width, height) != image.size:  # not the size that was checked
            return None
        return Image.fromarray(decode_jpeg(content, colours))
    except ValueError as error:
        if _DAMAGED_JPEG.match(str(error)):
            raise ImageError(f"is damaged or truncated ({error})") from None
        return None


def _scale_transparent_colour(image: ImageFile.ImageFile) -> None:
    colour = image.info.get("transparency")
    scale = _TO_8_BITS.get(str(image.tile[0].args)) if image.format == "PNG" and image.tile else None
    if colour is not None and scale:
        levels = tuple(int(level * scale) for level in np.atleast_1d(colour))
        image.info["transparency"] = levels if len(levels) > 1 else levels[0]


def _with_plain_colours(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        levels, transparent = np.asarray(image), image.info.get("transparency")
        gray = Image.fromarray((levels >> 8).clip(0, 255).astype(np.uint8))
        if transparent is None:
            return gray.convert("RGB")
        gray.putalpha(Image.fromarray(np.where(levels == transparent, 0, 255).astype(np.uint8)))
        return gray.convert("RGBA")
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits, so the value of white is unknown; save it with 8 or 16 bits")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _square(image: Image.Image) -> Image.Image:
    """Return the square in the centre as 64 x 64 RGB."""
    if image.size != (SIDE, SIDE):
        side = min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        box = (left, top, left + side, top + side)
        image = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=box, reducing_gap=3.0)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image
