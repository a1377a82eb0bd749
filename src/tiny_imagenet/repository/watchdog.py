"""Stop a command when its parent process exits.

python -m tiny_imagenet.repository.watchdog LOCK COMMAND...     # stdin is a pipe that ends with the parent
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from filelock import FileLock, Timeout

from tiny_imagenet.common import signals

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_STOP = 60


def main(lock: Path, command: list[str]) -> int:
    """Run the command in its own process group until it or stdin ends, and return its exit code.

    When stdin ends, send SIGINT to the group, and SIGKILL after 60 s. Hold the lock until then: if the parent was
    killed and the command is started again, the second one waits.
    """
    signals.outlive_the_group()  # the parent stops this process by closing stdin
    parent_exited = threading.Event()
    threading.Thread(target=_wait_for_end_of_stdin, args=(parent_exited,), daemon=True).start()
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            held = FileLock(lock).acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process that holds {lock}", file=sys.stderr, flush=True)  # noqa: T201 - user
            held = FileLock(lock).acquire(cancel_check=parent_exited.is_set)
    except Timeout:  # the parent has exited
        return 1
    with held:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None:
            if parent_exited.wait(_SECONDS_BETWEEN_LOOKS):
                _stop(process)
        return process.returncode


def _wait_for_end_of_stdin(ended: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    ended.set()


def _stop(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(_SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    except ProcessLookupError:
        process.wait()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
