"""`reporting.formats` for the page: with en dashes and minus signs, and as HTML."""

from collections.abc import Callable
from typing import Any

from markupsafe import Markup, escape

from tiny_imagenet.reporting import formats
from tiny_imagenet.reporting.formats import missing

DASH, _MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
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


def dashed(text: str) -> str:
    """Return formatted numbers with en dashes."""
    return text.replace("-", DASH)


def points(value: Any) -> str:
    """Return `formats.points` with a minus sign."""
    return DASH if missing(value) else formats.points(value).replace("-", _MINUS)


def text(value: Any) -> str:
    """Return a value as text."""
    return DASH if missing(value) else str(value)


def shown(value: Any) -> str:
    """Return a value of params.yaml in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{key} {shown(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(shown(part) for part in value) or "none"
    return str(value)


def sort_value(value: Any) -> str:
    """Return the text by which a cell is sorted; empty, and so last, if the value is missing."""
    return "" if missing(value) else str(value)


def code(value: str) -> Markup:
    """Return escaped HTML in which text between backticks is code."""
    parts = value.split("`")
    return Markup().join(
        Markup("<code>{}</code>").format(part) if index % 2 else escape(part) for index, part in enumerate(parts)
    )


def verdict(value: Any) -> Markup:
    """Return a verdict as HTML: a symbol and the word, for readers who do not see colours."""
    symbol = _SYMBOLS.get(str(value), "•")
    return Markup('<span class="verdict {}"><span aria-hidden="true">{}</span> {}</span>').format(
        _KINDS.get(symbol, "open"), symbol, text(value)
    )


def _with_dashes(function: Callable[..., str]) -> Callable[..., str]:
    return lambda *values: dashed(function(*values))


FILTERS: dict[str, Callable[..., str]] = {
    function.__name__: _with_dashes(function)
    for function in (formats.percent, formats.limits, formats.count, formats.quantity)
} | {
    function.__name__: function
    for function in (formats.number, formats.probability, dashed, points, text, shown, sort_value, code, verdict)
}
