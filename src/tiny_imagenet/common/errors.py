"""Errors that the user can fix, printed without a traceback by every stage and command."""

from collections.abc import Mapping, Sequence


class UserError(ValueError):
    """Something outside the program is wrong; the message says what, where, and what to do."""


class DivergedError(UserError):
    """The loss of a training is not finite. The same training would diverge again."""


class DatasetError(UserError):
    """The data break their contract. The message has some offenders of each kind and the total."""


def first_ten(offenders: Sequence[str]) -> str:
    """Return the first ten offenders, a line each, and the number of the others."""
    return some_of_each({"": offenders})


def some_of_each(offenders: Mapping[str, Sequence[str]]) -> str:
    """Return the first offenders of each kind, a line each, and the number of the others: ten of one kind, two of many.

    Args:
        offenders: kind, which is not shown -> the lines of that kind.
    """
    kinds = [lines for lines in offenders.values() if lines]
    shown = max(2, 10 // max(len(kinds), 1))
    more = [[f"... and {len(lines) - shown:,} more"] if len(lines) > shown else [] for lines in kinds]
    return "\n".join(f"  {line}" for lines, rest in zip(kinds, more, strict=True) for line in [*lines[:shown], *rest])
