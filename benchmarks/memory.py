"""Measure the peak of a process's anonymous memory (RssAnon), without pages of mapped files."""

import subprocess
import threading
import time
from pathlib import Path


class AnonymousMemory:
    """Poll a process every 20 ms until it ends. Linux only."""

    def __init__(self, process: subprocess.Popen[str]):
        self._process = process
        self._peak_kib = 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        status = Path(f"/proc/{self._process.pid}/status")
        while self._process.poll() is None:
            try:
                line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
                self._peak_kib = max(self._peak_kib, int(line.split()[1]))
            except (OSError, StopIteration):
                pass
            time.sleep(0.02)

    def peak_mib(self) -> float:
        """Wait for the end of the process and return the peak."""
        self._thread.join()
        return self._peak_kib / 1024
