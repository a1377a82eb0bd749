"""A command that does not outlive the process that started it, however that one ends.

python -m tiny_imagenet.lifeline COMMAND...     # with a pipe as stdin, which ends with who holds its other end
"""

import os
import signal
import subprocess
import sys
import threading

_SECONDS_TO_STOP = 60


def main(command: list[str]) -> int:
    """Run the command in a process group of its own until it ends, or stdin does, and return its exit code.

    When stdin ends, the group gets what Ctrl-C sends, and is killed if that does not end it.
    """
    signal.signal(signal.SIGINT, lambda *_: None)  # the terminal's: whoever holds stdin decides. Not inherited
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray blocks it in its processes, and that is
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    threading.Thread(target=_hold, args=(process,), daemon=True).start()
    return process.wait()


def _hold(process: subprocess.Popen[bytes]) -> None:
    while os.read(0, 1024):
        pass
    try:
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(_SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
