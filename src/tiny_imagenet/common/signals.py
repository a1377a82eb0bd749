"""Ctrl-C and other signals that end a process. Imports only what costs nothing: it runs before all other imports."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED = 130
"""The exit code that a shell gives a command that Ctrl-C has ended."""


def exit_during_imports(message: str = "") -> None:
    """Let Ctrl-C end the process at once, with a line on stderr: nothing is half done while modules are imported.

    `raise_on_interrupt` ends this. A handler of others, and a signal that is ignored, stay as they are.
    """

    def stop(_signal: int, _frame: FrameType | None) -> None:
        os.write(2, message.encode())
        os._exit(STOPPED)

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)


def raise_on_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again; where it is ignored, as in a background job, it stays ignored."""
    if callable(signal.getsignal(signal.SIGINT)):
        signal.signal(signal.SIGINT, signal.default_int_handler)


def exit_on_interrupt() -> None:
    """Let Ctrl-C raise SystemExit: typer answers KeyboardInterrupt with "Aborted" and exit code 1."""
    signal.signal(signal.SIGINT, lambda *_: sys.exit(STOPPED))


class HeldInterrupt:
    """Ctrl-C, held back until a safe moment; the second one is not.

    Raised anywhere, it may leave the lock of Python's logging taken, and MLflow's thread would wait for it forever.
    """

    def __init__(self) -> None:
        self._is_held = False

    def hold(self, _signal: int, _frame: FrameType | None) -> None:
        """Note the first Ctrl-C and raise the second; a handler for `signal.signal`."""
        if self._is_held:
            raise KeyboardInterrupt
        self._is_held = True

    def check(self) -> None:
        """Raise the Ctrl-C that was held back, if there was one."""
        if self._is_held:
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


def outlive_the_group() -> None:
    """Do nothing on signals that end all processes of a terminal or a group; children do not inherit this.

    Ctrl-C is also unblocked, for the children: Ray blocks it in its processes, and that would be inherited.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
