"""Two small drawings of one model's history as coordinates: the page draws them in its own colours, light or dark."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

WIDTH, HEIGHT = 340, 210
LEFT, RIGHT, TOP, BOTTOM = 42, 52, 12, 30
_CHARTS = {"accuracy": ("accuracy", "val_accuracy"), "loss": ("loss", "val_loss")}
_LABELS = ("train", "val")
_APART = 13


@dataclass(frozen=True)
class Tick:
    """A mark of an axis: where it is, and what it says."""

    place: float
    label: str


@dataclass(frozen=True)
class Line:
    """A curve: its points as SVG has them, where it ends, and where its label stands."""

    label: str
    points: str
    x: float
    y: float
    label_y: float


@dataclass(frozen=True)
class Chart:
    """Curves of training and validation over the epochs."""

    title: str
    lines: tuple[Line, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    kept_x: float | None
    """Where the epoch is whose weights are kept."""
    summary: str


def charts(history: pd.DataFrame, kept_epoch: int | None) -> list[Chart]:
    """Return the accuracy and the loss of a history; one that has no finite figure is left out."""
    drawn = (_chart(history, title, columns, kept_epoch) for title, columns in _CHARTS.items())
    return [chart for chart in drawn if chart]


def _chart(history: pd.DataFrame, title: str, columns: tuple[str, str], kept_epoch: int | None) -> Chart | None:
    series = [
        [
            (float(epoch), float(value))
            for epoch, value in zip(history["epoch"], history[column], strict=True)
            if math.isfinite(value)
        ]
        for column in columns
    ]
    values = [value for points in series for _, value in points]
    if not values:
        return None
    first, last = float(history["epoch"].min()), float(history["epoch"].max())
    ticks = _nice(0 if title == "accuracy" else min(values), max(values))
    low, high = ticks[0], ticks[-1]

    def across(epoch: float) -> float:
        share = (epoch - first) / (last - first) if last > first else 0.5
        return round(LEFT + share * (WIDTH - LEFT - RIGHT), 1)

    def down(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    ends = [down(points[-1][1]) if points else 0.0 for points in series]
    places = _apart(ends)
    lines = tuple(
        Line(label, " ".join(f"{across(epoch)},{down(value)}" for epoch, value in points), across(points[-1][0]),
             end, place)
        for label, points, end, place in zip(_LABELS, series, ends, places, strict=True) if points
    )  # fmt: skip
    step = max(1, math.ceil((last - first) / 6))
    epochs = [int(first) + step * number for number in range(int((last - first) // step) + 1)]
    return Chart(
        title=title,
        lines=lines,
        x_ticks=tuple(Tick(across(epoch), str(epoch)) for epoch in epochs),
        y_ticks=tuple(Tick(down(tick), _label(tick, title, ticks)) for tick in ticks),
        kept_x=across(kept_epoch) if kept_epoch is not None and first <= kept_epoch <= last else None,
        summary=_summary(title, series),
    )


def _nice(low: float, high: float) -> list[float]:
    """Return three to seven round numbers that reach from below `low` to above `high`."""
    span = high - low or abs(high) or 1.0
    magnitude = 10 ** math.floor(math.log10(span / 3))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if span / (factor * magnitude) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, max(last, first + 1) + 1)]


def _label(tick: float, title: str, ticks: Iterable[float]) -> str:
    if title == "accuracy":
        whole = all(abs(100 * each - round(100 * each)) < 1e-6 for each in ticks)
        return f"{100 * tick:.{0 if whole else 1}f} %"
    return f"{tick:.4g}"


def _apart(ends: list[float]) -> list[float]:
    """Return the heights of two labels, moved apart where they would cover each other."""
    first, second = ends
    push = max(0.0, (_APART - abs(first - second)) / 2) * (1 if first > second else -1)
    return [first + push, second - push]


def _summary(title: str, series: list[list[tuple[float, float]]]) -> str:
    ends = [
        f"{label} {100 * points[-1][1]:.1f} %" if title == "accuracy" else f"{label} {points[-1][1]:.3f}"
        for label, points in zip(_LABELS, series, strict=True) if points
    ]  # fmt: skip
    return f"{title} by epoch; in the last: {', '.join(ends)}"
