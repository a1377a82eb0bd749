"""Embed figures as data URIs."""

import base64
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from tiny_imagenet.common.errors import UserError

_TYPES = {"svg": "image/svg+xml", "png": "image/png"}
_LARGE, _QUALITY = 150_000, 90  # bytes from which a PNG becomes a WebP; its quality, 0 to 100
_PER_INCH, _COLUMN = 96, 720  # CSS pixels
_SIZE = re.compile(rb'<svg\b[^>]*?\bwidth="([\d.]+)pt"[^>]*?\bheight="([\d.]+)pt"')  # as matplotlib writes it


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with its size in CSS pixels, if known, and its caption."""

    uri: str
    width: int | None
    height: int | None
    caption: str

    @property
    def is_wide(self) -> bool:
        """Whether it is too wide for half a page."""
        return (self.width or 0) > _COLUMN


def picture(folder: Path, name: str, caption: str) -> Picture | None:
    """Return the smaller of `<name>.svg` and `<name>.png` in a folder; None if both are missing or empty.

    A large PNG, as of photographs, becomes a WebP if that is smaller. Raise UserError if the PNG cannot be read.
    """
    paths = [path for suffix in _TYPES if (path := folder / f"{name}.{suffix}").is_file()]
    sizes = {path: size for path in paths if (size := path.stat().st_size)}
    if not sizes:
        return None
    path = min(sizes, key=lambda path: sizes[path])
    width: int | None
    height: int | None
    content, kind = path.read_bytes(), _TYPES[path.suffix[1:]]
    if path.suffix == ".svg":
        width, height = _svg_size(content)
    else:
        try:
            with Image.open(BytesIO(content)) as image:
                image.load()  # opening alone does not find a truncated file
                width, height = _png_size(image)
                webp = _webp(image) if len(content) > _LARGE else content
                if len(webp) < len(content):  # a large plot would become larger, and blurred
                    content, kind = webp, "image/webp"
        except (OSError, SyntaxError):  # SyntaxError: a PNG with broken parts
            raise UserError(f"{path} cannot be read as a picture: `rm -f {path}` and `dvc repro` restore it") from None
    return Picture(f"data:{kind};base64,{base64.b64encode(content).decode()}", width, height, caption)


def _svg_size(content: bytes) -> tuple[int | None, int | None]:
    match = _SIZE.search(content[:2000])
    if match is None:
        return None, None
    return round(float(match[1]) * _PER_INCH / 72), round(float(match[2]) * _PER_INCH / 72)


def _png_size(image: Image.Image) -> tuple[int, int]:
    scale = _PER_INCH / float(image.info.get("dpi", (_PER_INCH,))[0])
    return round(image.width * scale), round(image.height * scale)


def _webp(image: Image.Image) -> bytes:
    """Return a lossy WebP: half the size of a PNG of photographs, in 0.05 s."""
    with BytesIO() as stream:
        image.save(stream, "webp", quality=_QUALITY, method=0)
        return stream.getvalue()
