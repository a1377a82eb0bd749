"""Draw two small charts of a model's history, as SVG in the colours of the page, light or dark.

Matplotlib draws in placeholder colours. Each becomes `currentColor` and a class that style.css colours. The page's
content security policy (CSP) forbids inline styles, so they become attributes.
"""

import re
from collections.abc import Mapping
from io import StringIO

import numpy as np
import pandas as pd
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tiny_imagenet.plotting import from_zero, open_figure
from tiny_imagenet.reporting.formats import percent

_WIDTH, _HEIGHT = 340, 210
_POINTS_PER_INCH = 72
_AXES = (0.14, 0.13, 0.84, 0.72)
"""Left, bottom, width, height, as fractions of the drawing. Matplotlib's own layout takes twice as long."""
_TRAIN, _VAL, _TEXT, _GRID = "#0000a1", "#0000a2", "#0000a3", "#0000a4"
_CLASSES = {_TRAIN: "train", _VAL: "val", _TEXT: "words", _GRID: "grid"}
_STYLE = {
    "figure.constrained_layout.use": False,
    "font.size": 12,
    "axes.edgecolor": _GRID,
    "grid.color": _GRID,
    "grid.alpha": 1,
    "svg.fonttype": "none",
    "text.color": _TEXT,
    "xtick.color": _TEXT,
    "ytick.color": _TEXT,
}
_CHARTS = {"accuracy": ("accuracy", "val_accuracy"), "loss": ("loss", "val_loss")}
_DROPPED = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<!--.*?-->|<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>", re.S)


def charts(model: str, history: pd.DataFrame, kept_epoch: int | None) -> dict[str, Markup]:
    """Return the charts of accuracy and loss by title, without one that has no finite value.

    The name of the model makes the ids of the drawings unique on the page. The charts mark the kept epoch, from 1.
    """
    return {
        title: _svg(f"{model} {title}", history, title, kept_epoch)
        for title, columns in _CHARTS.items()
        if np.isfinite(history[list(columns)].to_numpy(dtype=float)).any()
    }


def _svg(name: str, history: pd.DataFrame, title: str, kept_epoch: int | None) -> Markup:
    curves = dict(zip(("train", "val"), (history[column].astype(float) for column in _CHARTS[title]), strict=True))
    size = _WIDTH / _POINTS_PER_INCH, _HEIGHT / _POINTS_PER_INCH
    with open_figure(*size, style=_STYLE | {"svg.hashsalt": name}) as (figure, axes), StringIO() as stream:
        axis: Axes = axes[0, 0]
        axis.set_position(_AXES)
        for (label, values), colour, line in zip(curves.items(), (_TRAIN, _VAL), ("--", "-"), strict=True):
            axis.plot(history["epoch"], values, line, color=colour, linewidth=2, label=label, clip_on=False)
        is_kept = history["epoch"] == kept_epoch
        if is_kept.any():
            axis.plot(
                history["epoch"][is_kept], curves["val"][is_kept], "o", color=_VAL, label="kept epoch", clip_on=False,
                markersize=7, markerfacecolor="none", markeredgewidth=1.5,
            )  # fmt: skip
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        axis.yaxis.set_major_locator(MaxNLocator(5))
        axis.grid(visible=False, axis="x")
        axis.grid(axis="y", clip_on=False)
        axis.spines["left"].set_visible(False)
        axis.tick_params(length=0)
        axis.yaxis.set_major_formatter("{x:.4g}")
        if title == "accuracy":
            from_zero(axis)
            axis.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g}%")
        figure.legend(loc="upper right", ncols=3, borderaxespad=0.2)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
        return _inlined(stream.getvalue(), _summary(title, curves))


def _inlined(svg: str, label: str) -> Markup:
    """Return a drawing for the page: without prolog, styles and groups."""
    svg = _DROPPED.sub("", svg)
    svg = re.sub(
        r"<svg\b[^>]*>", f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">', svg
    )
    svg = re.sub(r'style="([^"]*)"', lambda match: _attributes(match[1]), svg)
    svg = re.sub(r"</?g\b[^>]*>|\n", "", svg)  # groups have only an id
    return Markup(re.sub(r"> +<", "><", svg).strip())  # noqa: S704 - made here, of numbers and fixed words


def _attributes(style: str) -> str:
    """Return a style such as "fill: none; stroke: #0000a1" as SVG attributes; the font is the page's."""
    declared: Mapping[str, str] = dict(part.split(": ", 1) for part in style.strip("; ").split("; ") if part)
    classes = " ".join(dict.fromkeys(_CLASSES[value] for value in declared.values() if value in _CLASSES))
    kept = {key: value for key, value in declared.items() if not key.startswith("font-")}
    attributes = {"class": classes} if classes else {}
    attributes |= {key: "currentColor" if value in _CLASSES else value for key, value in kept.items()}
    return " ".join(f'{key}="{value}"' for key, value in attributes.items())


def _summary(title: str, curves: Mapping[str, pd.Series]) -> str:
    ends = {label: values[np.isfinite(values)] for label, values in curves.items()}
    last = [
        f"{label} {percent(values.iloc[-1], 1)} %" if title == "accuracy" else f"{label} {values.iloc[-1]:.3f}"
        for label, values in ends.items()
        if len(values)
    ]
    return f"{title} by epoch; in the last: {', '.join(last)}"
