"""The shared style of all figures. Figures are saved as PNG and SVG, photographs as PNG only.

The font is DejaVu Sans, which comes with matplotlib and has Latin, Greek, Cyrillic, Arabic and Hebrew letters. Other
scripts need a font of the system; without one, `drawable` escapes their characters. The colours are Okabe and Ito's,
which colour-blind people can tell apart.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tiny_imagenet.common.files import replaced

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS, _LINES = "os^Dv", ("-", "-.", ":")
_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "figure.titlesize": "medium",
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be named "$"
    "svg.hashsalt": "tiny-imagenet",
}
_FONT = "DejaVu Sans"
_FONTS_OF_OTHER_SCRIPTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Noto Sans JP", "Noto Sans KR", "Noto Sans Devanagari",
    "Noto Sans Thai", "Noto Emoji", "WenQuanYi Micro Hei", "IPAexGothic", "Droid Sans Fallback", "Unifont",
    "PingFang SC", "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS",
    "Microsoft YaHei", "Yu Gothic", "Malgun Gothic", "Segoe UI Emoji", "Segoe UI Symbol",
)  # fmt: skip
"""Fonts of Linux, macOS and Windows, tried in this order."""


@cache
def _fonts() -> list[str]:
    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [_FONT, *(name for name in _FONTS_OF_OTHER_SCRIPTS if name in installed)]


@cache
def _characters() -> frozenset[int]:
    """Return the code points that a figure can show."""
    fonts = [font_manager.get_font(font_manager.findfont(name, fallback_to_default=False)) for name in _fonts()]
    return frozenset().union(*(font.get_charmap() for font in fonts))


def drawable(text: str) -> str:
    """Return text with a Python escape for each character that no installed font has."""
    known = _characters()
    return "".join(
        character if ord(character) in known or character == "\n" else character.encode("unicode_escape").decode()
        for character in text
    )


@contextmanager
def open_figure(
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    *,
    title: str = "",
    style: Mapping[str, Any] | None = None,
) -> Iterator[tuple[Figure, NDArray[np.object_]]]:
    """Yield a figure of `width` x `height` inches, and its axes as an array. `style` adds to the shared style."""
    with mpl.rc_context(_STYLE | {"font.family": _fonts()} | dict(style or {})):
        figure, axes = plt.subplots(rows, columns, figsize=(width, height), dpi=150, squeeze=False)
        if title:
            figure.suptitle(title, wrap=True)
        try:
            yield figure, axes
        finally:
            plt.close(figure)


@contextmanager
def new_figure(
    path: Path,
    width: float,
    height: float,
    rows: int = 1,
    columns: int = 1,
    suffixes: tuple[str, ...] = ("png", "svg"),
    title: str = "",
) -> Iterator[tuple[Figure, NDArray[np.object_]]]:
    """Yield a figure and its axes as an array. After the block, save it as `path` with each suffix."""
    with open_figure(width, height, rows, columns, title=title) as (figure, axes):
        yield figure, axes
        for suffix in suffixes:
            metadata = {"Date": None} if suffix == "svg" else {"Software": None}
            with replaced(path.with_suffix(f".{suffix}")) as partial:
                figure.savefig(partial, format=suffix, metadata=metadata)


def beside(axis: Axes) -> None:
    """Put the legend beside the axes."""
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))


def from_zero(axis: Axes) -> None:
    """Let the y axis start at 0 and end above the topmost marker.

    Matplotlib's margin is a twentieth of the data's range: less than half a marker if all values are close together.
    """
    axis.set_ylim(0, 1.05 * axis.get_ylim()[1])


def image_grid(
    rows: Mapping[str, NDArray[np.uint8]],
    path: Path,
    title: str,
    *,
    captions: Mapping[str, Sequence[str]] | None = None,
    cell: tuple[float, float] = (0.95, 0.95),
) -> None:
    """Draw rows of images, each with its name at the left. A row without images shows "none".

    `captions`: row -> the text below each image. `cell`: width and height in inches of an image with its caption.
    """
    columns = max(6, *(len(images) for images in rows.values()))  # at least 6, to leave room for the title
    width, height = 0.9 + cell[0] * columns, 0.5 + cell[1] * len(rows)
    with new_figure(path, width, height, len(rows), columns, suffixes=("png",), title=title) as (_, axes):
        for row, (name, images) in zip(axes, rows.items(), strict=True):
            texts = (captions or {}).get(name, ())
            for column, axis in enumerate(row):
                axis.set(xticks=[], yticks=[], frame_on=False)
                axis.grid(visible=False)
                if column < len(images):
                    axis.imshow(images[column], interpolation="nearest")
                if column < len(texts):
                    axis.set_xlabel(texts[column], fontsize=6.5)
            row[0].set_ylabel(drawable(name), rotation=0, ha="right", va="center")
            if not len(images):
                row[0].text(0.5, 0.5, "none", ha="center", va="center", color="gray")


def image_pairs(
    train: NDArray[np.uint8], val: NDArray[np.uint8], pairs: pd.DataFrame, path: Path, *, limit: int = 12
) -> None:
    """Draw the first pairs of a training image (top) and its duplicate in validation (bottom).

    `pairs` has columns `index_a` (training), `index_b` (validation) and `distance`.
    """
    shown = pairs.head(limit)
    title = f"Training images (top) alike to validation images (bottom): {len(shown)} of {len(pairs):,} pairs"
    if shown.empty:
        title = "No image is in both training and validation"
        with new_figure(path, 6.4, 1, suffixes=("png",), title=title) as (_, axes):
            axes[0, 0].set_axis_off()
        return
    rows = {"train": train[shown["index_a"].to_numpy()], "val": val[shown["index_b"].to_numpy()]}
    captions = ["same" if distance == 0 else f"{distance} bits" for distance in shown["distance"]]
    image_grid(rows, path, title, captions={"val": captions})


def trained_on(dataset: str, images: Mapping[str, int], epochs: Iterable[float]) -> str:
    """Return a line for the title of a figure: dataset, number of images, and number of epochs of its models.

    `images` is the number of images of `train` and of `val`.
    """
    numbers = sorted({int(number) for number in epochs})
    ends = " to ".join(str(number) for number in dict.fromkeys([*numbers[:1], *numbers[-1:]]))
    during = f", {ends} epoch{'' if ends == '1' else 's'}" if ends else ""
    return f"{drawable(dataset)}, {images['train']:,} training and {images['val']:,} validation images{during}"


def cycle(count: int) -> list[str]:
    """Return `count` colours; they repeat after seven."""
    return [COLOURS[index % len(COLOURS)] for index in range(count)]


def looks(count: int) -> list[dict[str, Any]]:
    """Return `count` colours, markers and line styles. When the colours repeat, markers and lines change."""
    rounds = [index // len(COLOURS) for index in range(count)]
    return [
        {"color": colour, "marker": _MARKERS[turn % len(_MARKERS)], "linestyle": _LINES[turn % len(_LINES)]}
        for colour, turn in zip(cycle(count), rounds, strict=True)
    ]
