"""Paths that the pipeline reads and writes, relative to the root of the repository. They are also in dvc.yaml."""

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import PARTIAL_SUFFIX
from tiny_imagenet.config.params import Params

ARCHIVE = Path("data/raw/dataset.zip")
IMAGES = Path("data/images")
CACHE = Path("data/cache")
OVERVIEW = Path("data/overview")
"""report.json and the pictures of the data."""
MODELS = Path("models")
"""models/<name>: model.keras, history.csv, run.json; architecture.py unless <name> is a replicate."""
RESULTS = Path("results")
"""results/<name>: metrics.json, predictions and so on, with figures/."""
REPORTS = Path("reports")
TABLE = REPORTS / "results.csv"
SUMMARY = REPORTS / "summary.txt"
"""The table as text for the terminal."""
CHECKPOINTS = Path("checkpoints")
"""Neither DVC nor git tracks this folder."""
KEPT_RESULTS = Path("docs/results")
DETERMINISM = KEPT_RESULTS / "determinism.json"
PARAMS = Path("params.yaml")
_OWN = (
    ARCHIVE, IMAGES, CACHE, OVERVIEW, MODELS, RESULTS, REPORTS, CHECKPOINTS, Path("sweeps"), Path("mlruns"),
    Path("mlflow.db"), Path(".dvc"), Path(".git"), ARCHIVE.with_name(ARCHIVE.name + PARTIAL_SUFFIX),
)  # fmt: skip
"""Paths that the pipeline, DVC, MLflow and git write. DVC removes outputs before a stage runs."""


def refuse_own_paths(params: Params, root: Path) -> None:
    """Raise UserError if a file of the user is at a path that the pipeline writes, because DVC would remove it.

    The files are the dataset of the chosen profile and the weights of active models. Relative paths start at `root`,
    the repository. A file may be at or below such a path directly or through a link.
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
            raise UserError(f"params.yaml: {key}: {name}: {error} Write the full path, or set HOME") from None
        for own in _OWN:
            if path.is_relative_to((root / own).resolve()):
                raise UserError(
                    f"params.yaml: {key}: the pipeline writes {own}, and DVC removes files there: move {name} "
                    "elsewhere, such as to the root of the repository, and write its new path"
                )
