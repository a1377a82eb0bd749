"""The pipeline's stages: one module per DVC stage, run as `python -m stages.<name>` in the repository's root."""

import atexit
import gc
import sys
from pathlib import Path

# A stage imports some million objects that live until it ends. Python would look among them for garbage a thousand
# times, and once more for each as it exits: 2 to 3 seconds of every stage.
gc.set_threshold(100_000)
atexit.register(gc.freeze)

# A queued experiment runs in a copy of the repository. It has to run the copy's code, which is what its results are
# recorded with, and not that of the installed package, which is the main repository's as it is by then.
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from tiny_imagenet.common import signals  # noqa: E402 - from the path above

if sys.argv[0] == "-m":  # the imports that follow take seconds
    signals.exit_during_imports("stopped\n")
