"""Servers that a test starts on this machine alone, waits for, and ends: those, with their children, and no other."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

HOST = "127.0.0.1"
SECONDS_TO_START, SECONDS_TO_STOP = 180, 30


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


@dataclass
class Server:
    """A command that listens on `port`; it may be stopped and started again."""

    command: Sequence[str]
    port: int
    is_ready: Callable[[], bool]
    folder: Path
    """Its working directory."""
    log: Path
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    user: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of Popen that name another user."""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self.command, cwd=self.folder, env=dict(self.environment), start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **self.user,
            )  # fmt: skip
        end = time.monotonic() + SECONDS_TO_START
        while not self.is_ready():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.2)

    def stop(self) -> None:
        """End it as Ctrl-C in its terminal does, and kill what is left of it."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, signal.SIGINT)
            process.wait(SECONDS_TO_STOP)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    @contextmanager
    def running(self) -> Iterator["Server"]:
        try:
            self.start()
            yield self
        finally:
            self.stop()
