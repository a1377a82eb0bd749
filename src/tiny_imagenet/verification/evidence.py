"""What the files, dvc.lock and MLflow have of a model's results now, in the working directory.

Whatever is missing or broken is a UserError that says what brings it back.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tiny_imagenet import tracking
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import md5, read_json
from tiny_imagenet.repository import dvc

MODELS, RESULTS, TABLE = Path("models"), Path("results"), Path("reports/results.csv")
_TRAINED = ("model.keras", "history.csv", "run.json")
_RECORD = (
    "run_id", "stage", "git", "dependencies", "hashes", "params", "versions", "platform", "device", "threads",
    "backend", "weights", "seed", "profile", "dataset", "images_per_second", "epoch_seconds",
)  # fmt: skip
SIZES = ("parameters", "parameters_200_classes")
"""What the table has of architecture.json."""
_SYSTEM = "system/"
FINAL = "final_"
"""How MLflow's names of the metrics of metrics.json begin."""


class NotAskedError(Exception):
    """A question is not wanted, or what it is about cannot be had: neither right nor wrong."""


@dataclass(frozen=True)
class Tracked:
    """What MLflow has of a model."""

    run: tracking.TrackedRun
    epochs: Mapping[str, float]
    """"<metric> of epoch <step>" -> value; of a step that is there twice, the second as "..., again"."""


@dataclass(frozen=True)
class Evidence:
    """What there is of one model."""

    model: str
    """Or a replicate; or "" for the stages of none."""
    stages: Mapping[str, str]
    """"train" and "evaluate" -> the stage of that kind, as dvc.lock calls it."""
    changed: Sequence[str] | None
    """The lines of `lineage.changed_since_lock`; None where DVC fails."""
    store: Mapping[str, Tracked] | None
    """What `ask_store` returns; None where MLflow's store is away."""

    @property
    def trained(self) -> list[Path]:
        """The files that training makes."""
        return [MODELS / self.model / name for name in _TRAINED]

    @property
    def record(self) -> dict[str, Any]:
        """run.json."""
        return _read(MODELS / self.model / "run.json", _RECORD)

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        return _read(RESULTS / self.model / "metrics.json")

    @property
    def architecture(self) -> dict[str, Any]:
        """architecture.json."""
        return _read(RESULTS / self.model / "architecture.json", SIZES)

    @property
    def history(self) -> pd.DataFrame:
        """history.csv to the last digit, by epoch."""
        path = MODELS / self.model / "history.csv"
        try:
            return pd.read_csv(path, dtype=str).astype(float).set_index("epoch")
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} cannot be read ({error}): {restore(path)}") from None

    @property
    def locked(self) -> dict[str, str]:
        """Path -> MD5, by dvc.lock, of what training depends on and makes."""
        locked = dvc.locked_files(Path.cwd(), self.stages["train"])
        return {path: str(digest) for path, digest in locked.items()}

    @property
    def tracked(self) -> Tracked:
        """What MLflow has; raises NotAskedError where that is nothing."""
        if self.store is None:
            raise NotAskedError("MLflow's store is away, see below")
        if self.model not in self.store:
            raise NotAskedError("MLflow does not have the run")
        return self.store[self.model]


def has_results(model: str) -> bool:
    """Return whether the table has figures of a model, or should have."""
    try:
        has_figures = any(row.get("run_id") for row in table_rows(model))
    except UserError:
        has_figures = False
    needed = (MODELS / model / "run.json", RESULTS / model / "metrics.json", RESULTS / model / "architecture.json")
    return has_figures or all(path.is_file() for path in needed)


def ask_store(models: Sequence[str]) -> dict[str, Tracked]:
    """Return what MLflow has of the runs that the models' run.json name; raises UserError where its store is away."""
    root, tracked = dvc.repository_root(), {}
    for model in models:
        try:
            run_id = str(_read(MODELS / model / "run.json")["run_id"])
        except (UserError, KeyError):
            continue  # whoever needs the file says so
        if run := tracking.find_run(root, run_id):
            epochs: dict[str, float] = {}
            for name in run.metrics:
                if name.startswith((FINAL, _SYSTEM)):
                    continue
                for step, value in tracking.metric_history(root, run.run_id, name):
                    key = f"{name} of epoch {step}"
                    epochs[f"{key}, again" if key in epochs else key] = value
            tracked[model] = Tracked(run, epochs)
    return tracked


def _read(path: Path, needed: Sequence[str] = ()) -> dict[str, Any]:
    return read_json(path, needed, remedy=restore(path))


def table_rows(model: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of the table, all or a model's, as `parse_table` does."""
    try:
        rows = parse_table(TABLE.read_text(encoding="utf-8"))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{TABLE} cannot be read ({error}): {restore(TABLE)}") from None
    return [row for row in rows if model in (None, row.get("model"))]


def parse_table(text: str) -> list[dict[str, Any]]:
    """Return the rows of a CSV; a cell that is a number is one, to the last digit."""
    rows = csv.DictReader(io.StringIO(text))
    return [{str(column): _number(cell) for column, cell in row.items()} for row in rows]


def _number(cell: object) -> object:
    try:
        return float(str(cell))
    except ValueError:
        return cell


def current_md5(path: Path) -> str | None:
    """Return the MD5 of the bytes, and not what DVC remembers of a file of that size and time."""
    return md5(path) if path.is_file() else None


def see_folder(folder: Path, wanted: str | None) -> None:
    """See that a folder is the one that dvc.lock has by this hash; raises UserError with the first file that is not."""
    found = dvc.folder_md5(folder)
    if found == wanted:
        return
    files, locked = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}, {}
    if wanted is not None:
        locked = dvc.cached_folder(wanted)
    for name in sorted(files | locked.keys()):
        digest = current_md5(folder / name)
        if locked and digest != locked.get(name):
            remedy = restore(folder / name, digest, locked.get(name))
            raise UserError(f"{folder / name} is {digest}, {locked.get(name)} in DVC's record of the folder: {remedy}")
    raise UserError(f"{folder} is {found}, {wanted} in dvc.lock: `git checkout dvc.lock`, or `dvc repro`")


def restore(path: Path, found: str | None = None, wanted: str | None = None) -> str:
    """Return what brings back a file that DVC has made; `found` and `wanted` are MD5s, where they are known."""
    if wanted is None or dvc.cached_file(wanted):
        return f"`rm -f {path}` and `dvc checkout {path}`"
    if dvc.cached_file(found):
        return "`git checkout dvc.lock`, or `dvc repro`"
    # A file and DVC's copy of it are often one, by a hard link; and while there is a copy, DVC takes it for sound.
    copy = f".dvc/cache/files/md5/{wanted[:2]}/{wanted[2:]}"
    return f"DVC has no sound copy: `rm -f {path} {copy}`, then `dvc pull` or `dvc repro`"
