"""Figures as data URIs, so that the page needs no other file."""

import base64
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from tiny_imagenet.common.errors import UserError

_TYPES = {"svg": "image/svg+xml", "png": "image/png"}
_LARGE, _QUALITY = 150_000, 90  # bytes of a PNG that is stored with losses, as of photographs; 0 to 100
_PER_INCH, _COLUMN = 96, 720  # pixels of CSS
_SIZE = re.compile(rb'<svg\b[^>]*?\bwidth="([\d.]+)pt"[^>]*?\bheight="([\d.]+)pt"|'
                   rb'<svg\b[^>]*?\bheight="([\d.]+)pt"[^>]*?\bwidth="([\d.]+)pt"')  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, its size in pixels of CSS if it is known, and what it shows in words."""

    uri: str
    width: int | None
    height: int | None
    caption: str

    @property
    def is_wide(self) -> bool:
        """Whether it would be squeezed in half of a page."""
        return (self.width or 0) > _COLUMN


def picture(folder: Path, name: str, caption: str) -> Picture | None:
    """Return `<name>.svg` or `<name>.png` of a folder, the smaller one; None if both are missing or empty.

    A large PNG, as those of photographs are, becomes a WebP if that is smaller.

    Raises:
        UserError: the PNG cannot be read.
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
                image.load()  # a file that was cut short opens all the same
                width, height = _png_size(image)
                webp = _webp(image) if len(content) > _LARGE else content
                if len(webp) < len(content):  # a plot as large as a photograph would become larger, and blurred
                    content, kind = webp, "image/webp"
        except (OSError, SyntaxError):  # Pillow raises the latter for a PNG of broken parts
            raise UserError(f"{path} is no readable picture: `rm -f {path}` and `dvc repro` restore it") from None
    return Picture(f"data:{kind};base64,{base64.b64encode(content).decode()}", width, height, caption)


def _svg_size(content: bytes) -> tuple[int | None, int | None]:
    match = _SIZE.search(content[:2000])
    if match is None:
        return None, None
    width, height = (match[1], match[2]) if match[1] else (match[4], match[3])
    return round(float(width) * _PER_INCH / 72), round(float(height) * _PER_INCH / 72)


def _png_size(image: Image.Image) -> tuple[int, int]:
    scale = _PER_INCH / float(image.info.get("dpi", (_PER_INCH,))[0])
    return round(image.width * scale), round(image.height * scale)


def _webp(image: Image.Image) -> bytes:
    """Return a WebP of the same pixels, nearly: half a PNG of photographs, in 0.05 s."""
    with BytesIO() as stream:
        image.save(stream, "webp", quality=_QUALITY, method=0)
        return stream.getvalue()
