"""Progress of long work: a bar on a terminal, a line every few seconds elsewhere."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
_SECONDS_BETWEEN_LINES = 5.0


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Yield the items, and show on stderr how many of `total` are done."""
    if sys.stderr.isatty():
        with progress_bar() as bar:
            yield from bar.track(items, total=total, description=description)
        return
    last = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            sys.stderr.write(f"{description}: {done:,} of {total:,}\n")
            sys.stderr.flush()


def progress_bar() -> Progress:
    """Return a progress bar on stderr. It disappears when it is stopped."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def say(line: str) -> None:
    """Print a line without buffering, also into a pipe."""
    print(line, flush=True)  # noqa: T201 - for the user
