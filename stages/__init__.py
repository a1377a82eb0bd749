"""The doors of the pipeline: one module per DVC stage, run as `python -m stages.<name>` in the repository's root."""

import sys
from pathlib import Path

# A queued experiment runs in a copy of the repository. It has to run the copy's code, which is what its results are
# recorded with, and not that of the installed package, which is the main repository's as it is by then.
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
