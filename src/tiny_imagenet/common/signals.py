"""Ctrl-C and other signals that end a process. It is imported first, so it imports only what is fast."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = 130
"""The exit code of a command that Ctrl-C ended, as in a shell."""


def exit_during_imports(message: str = "") -> None:
    """Let Ctrl-C end the process at once, with `message` on stderr: imports leave nothing half done.

    Call `raise_on_interrupt` after the imports. A handler of another library, and a signal that is ignored, stay.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        os.write(2, message.encode())
        os._exit(STOPPED)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again. If it is ignored, as in a background job, it stays ignored."""
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def exit_on_interrupt() -> None:
    """Let Ctrl-C raise SystemExit, unless it is ignored. For KeyboardInterrupt, typer would print "Aborted"."""
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, lambda *_: sys.exit(STOPPED))


class HeldInterrupt:
    """Delay the first Ctrl-C until `check`; raise the second at once.

    An exception at any moment could leave the lock of Python's logging locked, and MLflow's thread would wait forever.
    """

    def __init__(self) -> None:
        self._is_held = False

    def hold(self, _signal: int, _frame: FrameType | None) -> None:
        """Remember the first Ctrl-C, raise the second. A handler for `signal.signal`."""
        if self._is_held:
            raise KeyboardInterrupt
        self._is_held = True

    def check(self) -> None:
        """Raise the Ctrl-C that was delayed, if any."""
        if self._is_held:
            raise KeyboardInterrupt


@contextmanager
def interrupts_held() -> Iterator[HeldInterrupt]:
    """Delay the first Ctrl-C in the block, if this is the main thread."""
    held = HeldInterrupt()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before = signal.signal(signal.SIGINT, held.hold)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, before)


def outlive_the_group() -> None:
    """Ignore the signals that end all processes of a terminal or a group. Children do not inherit this.

    Also unblock Ctrl-C: Ray blocks it in its processes, and children would inherit that.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
