"""Write fractions, counts, intervals and tables as text, for all reports."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

MISSING = "-"


def missing(value: Any) -> bool:
    """Return whether a value is None, NaN or NA."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def percent(value: Any, decimals: int = 2) -> str:
    """Return a fraction in percent, without "%"; two decimals, as in the paper."""
    return MISSING if missing(value) else f"{100 * value:.{decimals}f}"


def points(value: Any) -> str:
    """Return a difference of two fractions in percentage points, signed."""
    return MISSING if missing(value) else f"{100 * value:+.2f}"


def limits(low: Any, high: Any) -> str:
    """Return an interval of fractions in percent; empty if there is none."""
    return "" if missing(low) or missing(high) else f"{100 * low:.1f}-{100 * high:.1f}"


def count(value: Any) -> str:
    """Return a number without decimals, with commas."""
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
    """Return a value of the audit: a count if `kind` is "parameters", else a fraction in percent."""
    return count(value) if kind == "parameters" else percent(value)


def plain(value: Any) -> str:
    """Return a value as text."""
    return MISSING if missing(value) else f"{value}"


def code(name: str) -> str:
    """Return a name as code in Markdown, even if it has backticks or line ends."""
    return f"`{' '.join(name.replace('`', chr(39)).split())}`"


def markdown(text: str) -> str:
    """Return text in one line, with HTML tags such as `<model>` and pictures escaped."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("![", "!&#91;")


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(markdown(cell).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join(line(cells) for cells in (headings, ["---"] * len(headings), *rows))
