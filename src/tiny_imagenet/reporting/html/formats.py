"""How values are shown: percent where a person reads, a dash for what is missing, a verdict as a symbol and a word."""

from typing import Any

import pandas as pd
from markupsafe import Markup, escape

MISSING = EN_DASH = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_SYMBOLS = {
    "reproduced": "✓",
    "holds": "✓",
    "above": "▲",
    "below": "▼",
    "does not hold": "✗",
    "not shown": "○",
    "cannot be tested here": "○",
}
_KINDS = {"✓": "yes", "▲": "above", "▼": "below", "✗": "no"}


def missing(value: Any) -> bool:
    """Return whether there is nothing to show: None, NaN or NA."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def percent(value: Any, decimals: int = 2) -> str:
    """Return a fraction as percent, without the sign."""
    return MISSING if missing(value) else f"{100 * value:.{decimals}f}"


def points(value: Any) -> str:
    """Return a difference of two fractions in percentage points, with its sign."""
    return MISSING if missing(value) else f"{100 * value:+.2f}".replace("-", _MINUS)


def interval(low: Any, high: Any) -> str:
    """Return an interval of fractions in percent, or nothing where there is none."""
    return "" if missing(low) or missing(high) else f"{100 * low:.1f}{EN_DASH}{100 * high:.1f}"


def count(value: Any) -> str:
    """Return a whole number with separators."""
    return MISSING if missing(value) else f"{value:,.0f}"


def number(value: Any) -> str:
    """Return a number with four significant digits."""
    return MISSING if missing(value) else f"{value:,.4g}"


def probability(value: Any) -> str:
    """Return a p-value."""
    if missing(value):
        return MISSING
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def quantity(value: Any, kind: str) -> str:
    """Return a figure of the audit: parameters are counted, all else are fractions."""
    return count(value) if kind == "parameters" else percent(value)


def text(value: Any) -> str:
    """Return what a table has as text."""
    return MISSING if missing(value) else str(value)


def shown(value: Any) -> str:
    """Return a value of params.yaml as a person reads it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(shown(part) for part in value) or "none"
    return str(value)


def sort_value(value: Any) -> str:
    """Return what a cell is sorted by: nothing where its value is missing, which always comes last."""
    return "" if missing(value) else str(value)


def code(value: str) -> Markup:
    """Return escaped HTML in which what stands between backticks is code."""
    parts = value.split("`")
    return Markup().join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(part) for place, part in enumerate(parts)
    )


def verdict(value: Any) -> Markup:
    """Return the HTML of a verdict: a symbol beside the word, so that nobody has to tell colours apart."""
    symbol = _SYMBOLS.get(str(value), "•")
    return Markup('<span class="verdict {}"><span aria-hidden="true">{}</span> {}</span>').format(
        _KINDS.get(symbol, "open"), symbol, text(value)
    )


FILTERS = {
    function.__name__: function
    for function in (percent, points, interval, count, number, probability, quantity, text, shown, sort_value, code,
                     verdict)
}  # fmt: skip
