"""Entry points, one per DVC stage: run `python -m stages.<name>` in the repository's root."""

import atexit
import gc
import sys
from pathlib import Path

# A stage imports about a million objects that live until it ends. Garbage collection would scan them a thousand times,
# and once more at exit: 2 to 3 seconds per stage.
gc.set_threshold(100_000)
atexit.register(gc.freeze)

# A queued experiment runs in a copy of the repository. It must run the copy's code, not the installed package, which is
# the main repository's current code.
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from tiny_imagenet.common import signals  # noqa: E402 - from the path above

if sys.argv[0] == "-m":  # the imports that follow take seconds
    signals.exit_during_imports("stopped\n")
