"""The doors of the pipeline: one module per DVC stage, run as `python -m stages.<name>` in the repository's root."""

import atexit
import gc
import os
import signal
import sys
from pathlib import Path

# A stage imports some million objects that live until it ends. Python would look among them for garbage a thousand
# times, and once more for each as it exits: 2 to 3 seconds of every stage.
gc.set_threshold(100_000)
atexit.register(gc.freeze)

# The imports take seconds, in which there is nothing to leave clean; `entry.run` then takes Ctrl-C as Python does.
if sys.argv[0] == "-m" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:

    def _stopped(*_: object) -> None:
        os.write(2, b"stopped\n")
        os._exit(130)

    signal.signal(signal.SIGINT, _stopped)

# A queued experiment runs in a copy of the repository. It has to run the copy's code, which is what its results are
# recorded with, and not that of the installed package, which is the main repository's as it is by then.
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
