"""What every figure must be: its files, the same bytes twice, nothing cut off, nothing left open."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.ticker import PercentFormatter


def check_figure(draw: Callable[[Path], None], folder: Path, drawn: list[Any], *, photographs: bool = False) -> None:
    """Draw a figure twice and check it; `drawn` is the fixture."""
    before = mpl.rcParams.copy()
    contents = []
    for copy in ("one", "two"):
        draw(folder / copy / "figure")
        contents.append({file.suffix: file.read_bytes() for file in (folder / copy).iterdir() if file.is_file()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == ({".png"} if photographs else {".png", ".svg"})
    assert b"<svg" in contents[0].get(".svg", b"<svg")
    pixels = plt.imread(folder / "one" / "figure.png")
    assert min(pixels.shape[:2]) > 100
    assert pixels.std() > 0
    assert_nothing_is_cut_off(drawn[0])
    assert_shares_are_percentages(drawn[0])
    assert plt.get_fignums() == []
    assert mpl.rcParams == before


def assert_nothing_is_cut_off(figure: Any) -> None:
    assert figure.inked.x0 >= 0
    assert figure.inked.y0 >= 0
    assert figure.inked.x1 <= figure.get_figwidth()
    assert figure.inked.y1 <= figure.get_figheight()


def assert_shares_are_percentages(figure: Any) -> None:
    formatters = [axis.get_major_formatter() for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    assert {formatter(0.25) for formatter in formatters if isinstance(formatter, PercentFormatter)} <= {"25%"}
