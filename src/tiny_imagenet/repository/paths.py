"""Where the pipeline reads and writes, relative to the repository's root. dvc.yaml names the same paths."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import Params

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
_OWN = (
    ARCHIVE, IMAGES, CACHE, OVERVIEW, MODELS, RESULTS, REPORTS, CHECKPOINTS, Path("sweeps"), Path("mlruns"),
    Path("mlflow.db"), Path(".dvc"), Path(".git"),
)  # fmt: skip
"""What the pipeline, DVC, MLflow and git write, and DVC removes before a stage runs."""


def refuse_own_paths(params: Params, root: Path) -> None:
    """Refuse a file of the user's that is where the pipeline writes: DVC would remove it.

    Args:
        params: params.yaml. The dataset of the chosen profile and the weights of active models name files.
        root: the repository, to which relative paths in params.yaml refer.

    Raises:
        UserError: such a path is, or is below, what the pipeline writes, also through a link.
    """
    dataset = f"profiles.{params.profile}.dataset"
    named = [(f"{dataset}.archive", params.dataset.archive)]
    named += [
        (f"{dataset}.urls", url2pathname(urlsplit(url).path)) for url in params.dataset.urls if url[:5] == "file:"
    ]
    named += [(f"models.{name}.weights", params.recipe(name).weights) for name in params.active]
    for key, name in named:
        if name is None or name == "imagenet":
            continue
        try:
            path = (root / Path(name).expanduser()).resolve()
        except RuntimeError as error:  # a process without a home directory
            raise UserError(f"params.yaml: {key}: {name}: {error} Give the full path, or set HOME") from None
        for own in _OWN:
            if path.is_relative_to((root / own).resolve()):
                raise UserError(
                    f"params.yaml: {key}: {name} is in {own}, where the pipeline writes and DVC removes files: move it "
                    "elsewhere, such as the repository's root, and give its new path"
                )
