"""Errors that the user can fix, printed without a traceback by every stage and command."""

from collections.abc import Mapping, Sequence


class UserError(ValueError):
    """An error that the user can fix. The message says what is wrong, where, and what to do."""


class DivergedError(UserError):
    """The loss of a training is not finite. A retry would diverge again."""


class DatasetError(UserError):
    """The data are not as expected. The message lists some errors of each kind, and their number."""


def first_ten(lines: Sequence[str]) -> str:
    """Return the first ten lines, indented, and the number of the others."""
    return some_of_each({"": lines})


def some_of_each(lines_by_kind: Mapping[str, Sequence[str]]) -> str:
    """Return the first lines of each kind, indented, and the number of the others: ten of one kind, two of many."""
    kinds = [lines for lines in lines_by_kind.values() if lines]
    shown = max(2, 10 // max(len(kinds), 1))
    more = [[f"... and {len(lines) - shown:,} more"] if len(lines) > shown else [] for lines in kinds]
    return "\n".join(f"  {line}" for lines, rest in zip(kinds, more, strict=True) for line in [*lines[:shown], *rest])
