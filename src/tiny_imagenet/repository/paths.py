"""Where the pipeline reads and writes, relative to the repository's root. dvc.yaml names the same paths."""

from pathlib import Path

ARCHIVE = Path("data/raw/dataset.zip")
IMAGES = Path("data/images")
CACHE = Path("data/cache")
OVERVIEW = Path("data/overview")
"""report.json and the pictures of the data."""
MODELS = Path("models")
"""models/<name>: model.keras, history.csv, run.json, and architecture.py where <name> is no replicate."""
RESULTS = Path("results")
"""results/<name>: metrics.json, predictions and so on, with figures/."""
REPORTS = Path("reports")
TABLE = REPORTS / "results.csv"
SUMMARY = REPORTS / "summary.txt"
"""The table as the terminal shows it."""
CHECKPOINTS = Path("checkpoints")
"""Neither DVC nor git knows this folder."""
KEPT_RESULTS = Path("docs/results")
DETERMINISM = KEPT_RESULTS / "determinism.json"
PARAMS = Path("params.yaml")
