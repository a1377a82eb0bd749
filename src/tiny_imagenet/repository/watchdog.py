"""A command that does not outlive the process that started it, however that one ends.

python -m tiny_imagenet.lifeline LOCK COMMAND...     # with a pipe as stdin, which ends with who holds its other end
"""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from filelock import FileLock, Timeout

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_STOP = 60


def main(lock: Path, command: list[str]) -> int:
    """Run the command in a process group of its own until it ends, or stdin does, and return its exit code.

    When stdin ends, the group gets what Ctrl-C sends, and is killed if that does not end it. Until then it has the
    lock: who begins the command again, after its starter was lost, waits.
    """
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(
            each, lambda *_: None
        )  # the terminal's, or the group's: whoever holds stdin decides. Not inherited
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it in its processes, and that is
    alone = threading.Event()
    threading.Thread(target=_notice_the_end_of_stdin, args=(alone,), daemon=True).start()
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        try:
            held = FileLock(lock).acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process that holds {lock}", file=sys.stderr, flush=True)  # noqa: T201
            held = FileLock(lock).acquire(cancel_check=alone.is_set)
    except Timeout:  # nobody waits for the command any more
        return 1
    with held:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        while process.poll() is None:
            if alone.wait(_SECONDS_BETWEEN_LOOKS):
                _stop(process)
        return process.returncode


def _notice_the_end_of_stdin(alone: threading.Event) -> None:
    while os.read(0, 1024):
        pass
    alone.set()


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
