"""Errors that the user can fix, printed without a traceback by every stage and command."""

from collections.abc import Sequence


class UserError(ValueError):
    """Something outside the program is wrong; the message says what, where, and what to do."""


class DivergedError(UserError):
    """The loss of a training is not finite. The same training would diverge again."""


class DatasetError(UserError):
    """The data break their contract. The message has the first ten offenders and the total."""


def first_ten(offenders: Sequence[str]) -> str:
    """Return the first ten offenders, a line each, and the number of the others."""
    more = [f"... and {len(offenders) - 10:,} more"] if len(offenders) > 10 else []
    return "\n".join(f"  {line}" for line in [*offenders[:10], *more])
