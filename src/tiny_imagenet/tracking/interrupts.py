"""Ctrl-C in a training: it waits for a moment at which nothing is half done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class HeldInterrupt:
    """Ctrl-C, held back until a safe moment; the second one is not.

    Raised anywhere, it may leave the lock of Python's logging taken, and MLflow's thread would wait for it for ever.
    """

    def __init__(self) -> None:
        self._asked = False

    def hold(self, _signal: int, _frame: FrameType | None) -> None:
        """Note that a stop was asked for; what `signal.signal` takes."""
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True

    def check(self) -> None:
        """Raise what was held back."""
        if self._asked:
            raise KeyboardInterrupt


@contextmanager
def interrupts_held() -> Iterator[HeldInterrupt]:
    """Hold back the first Ctrl-C in the block, if this is the main thread."""
    held = HeldInterrupt()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before = signal.signal(signal.SIGINT, held.hold)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)
