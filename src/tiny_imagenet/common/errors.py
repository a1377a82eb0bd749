"""Errors that the user can fix, printed without a traceback by every stage and command."""

import errno
from collections.abc import Mapping, Sequence

_DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR,
}  # fmt: skip


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


def is_of_the_disk(error: Exception) -> bool:
    """Return whether an error is one of the disk that the user can fix: it is full, or refuses access to a path."""
    return isinstance(error, OSError) and error.errno in _DISK_ERRORS
