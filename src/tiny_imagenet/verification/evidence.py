"""Read the files, dvc.lock and the MLflow run of a training, in the working directory.

A missing or damaged file is a UserError that says how to restore it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.tables import parse_csv, read_csv
from tiny_imagenet.config.jobs import Job
from tiny_imagenet.reporting.table import TYPES
from tiny_imagenet.repository import dvc
from tiny_imagenet.repository.paths import MODELS, REPORTS, RESULTS, TABLE
from tiny_imagenet.repository.records import Architecture, Metrics, RunRecord, read_history
from tiny_imagenet.tracking.results import TrackedRun, find_run, metric_history

SIZES = ("parameters", "parameters_200_classes")
"""Keys of architecture.json that are in the table."""
FINAL = "final_"
"""Prefix in MLflow of the metrics of metrics.json."""
_SYSTEM = "system/"
_MADE_BY_DVC = ("data", *(path.as_posix() for path in (MODELS, RESULTS, REPORTS)))


class SkippedError(Exception):
    """A check is not wanted, or MLflow lacks its subject: the check neither holds nor fails."""


@dataclass(frozen=True)
class Tracked:
    """The run of a training in MLflow."""

    run: TrackedRun
    epochs: Mapping[str, float]
    """"<metric> of epoch <step>" -> value; a second value of a step has the key "..., again"."""


@dataclass(frozen=True)
class Evidence:
    """Files and run of one training. Each file is read when it is used, so that checks fail separately."""

    job: Job
    store: Mapping[str, Tracked] | None
    """From `read_store`; None if MLflow's store cannot be reached."""
    path_md5: Callable[[Path], str | None] = dvc.path_md5
    """`dvc.path_md5`, possibly cached."""

    @property
    def record(self) -> RunRecord:
        """run.json."""
        return RunRecord.read(MODELS / self.job.name / "run.json")

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""
        return Metrics.read(RESULTS / self.job.name / "metrics.json").as_dict()

    @property
    def sizes(self) -> dict[str, Any]:
        """SIZES, from architecture.json."""
        return Architecture.read(RESULTS / self.job.name / "architecture.json").model_dump(include={*SIZES})

    @property
    def history(self) -> pd.DataFrame:
        """history.csv by epoch, exact to the last digit."""
        path = MODELS / self.job.name / "history.csv"
        return read_history(path, remedy=restore(path)).set_index("epoch")

    @property
    def tracked(self) -> Tracked:
        """The run in MLflow; raise SkippedError if there is none."""
        if self.store is None:
            raise SkippedError("MLflow's store cannot be reached, see below")
        if self.job.name not in self.store:
            raise SkippedError("MLflow does not have the run")
        return self.store[self.job.name]


def has_results(name: str) -> bool:
    """Return whether the table has, or should have, results of a training."""
    try:
        has_row = any(row.get("run_id") for row in table_rows(name))
    except UserError:
        has_row = False
    needed = (MODELS / name / "run.json", RESULTS / name / "metrics.json", RESULTS / name / "architecture.json")
    return has_row or all(path.is_file() for path in needed)


def read_store(names: Sequence[str]) -> dict[str, Tracked]:
    """Return the run in MLflow of each training; raise UserError if the store cannot be reached."""
    root, tracked = dvc.repository_root(), {}
    for name in names:
        try:
            run_id = RunRecord.read(MODELS / name / "run.json").run_id
        except UserError:
            continue  # reported by the checks that need the file
        if run := find_run(root, run_id):
            epochs: dict[str, float] = {}
            for metric in run.metrics:
                if metric.startswith((FINAL, _SYSTEM)):
                    continue
                for step, value in metric_history(root, run.run_id, metric):
                    key = f"{metric} of epoch {step}"
                    epochs[f"{key}, again" if key in epochs else key] = value
            tracked[name] = Tracked(run, epochs)
    return tracked


def table_rows(model: str | None = None) -> list[dict[str, Any]]:
    """Return the rows of the table, of all models or of one: numbers exact to the last digit, "" for empty cells."""
    rows = _rows(read_csv(TABLE, TYPES, float, remedy=restore(TABLE)))
    return [row for row in rows if model in (None, row["model"])]


def written_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows that `table_rows` would return for this table."""
    return _rows(parse_csv(frame.to_csv(index=False), TYPES, float))


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = frame.to_dict("records")
    return [{str(column): "" if pd.isna(value) else value for column, value in row.items()} for row in rows]


def differences(
    stage: str, path_md5: Callable[[Path], str | None], recorded: Mapping[str, str] | None = None
) -> Iterator[tuple[str, str]]:
    """Yield each dependency and output of a stage that differs from dvc.lock, as a message and a remedy.

    `recorded` has the MD5 of each dependency in run.json, if they must be the same. Raise UserError if dvc.lock lacks
    the stage.
    """
    dependencies, outputs = (dvc.locked_files(Path.cwd(), stage, [kind]) for kind in ("deps", "outs"))
    locked, recorded = dependencies | outputs, dependencies if recorded is None else recorded
    for name in sorted(locked.keys() | recorded.keys()):
        if stage == "compare" and Path(name) in (MODELS, RESULTS):  # checked for each training
            continue
        path, current, by_lock = Path(name), path_md5(Path(name)), locked.get(name)
        by_run = by_lock if name in outputs else recorded.get(name)
        if by_run != by_lock:
            shown = f"{short(current)}, {short(by_run)} in run.json, {short(by_lock)} in dvc.lock"
            yield f"{name} is {shown}", "`git checkout dvc.lock`, or `dvc repro`"
        elif current != by_lock:
            if path.is_dir():
                path, current, by_lock = _first_difference(path, current, by_lock)
            made = path.parts[0] in _MADE_BY_DVC
            remedy = restore(path, current, by_lock) if made else f"`git checkout {path}`, or `dvc repro`"
            yield f"{path} is {short(current)}, {short(by_lock)} in dvc.lock", remedy


def _first_difference(folder: Path, current: str | None, locked: str | None) -> tuple[Path, str | None, str | None]:
    """Return the first file that differs, with both MD5s; the folder if DVC's cache has no list of its files."""
    files, listed = dvc.folder_files(folder), dvc.cached_folder(locked) if locked else {}
    for name in sorted(files.keys() | listed.keys()) if listed else []:
        if files.get(name) != listed.get(name):
            return folder / name, files.get(name), listed.get(name)
    return folder, current, locked


def restore(path: Path, current: str | None = None, wanted: str | None = None) -> str:
    """Return the commands that restore an output of DVC: `current` is its MD5, `wanted` the expected one, if known."""
    if current is not None and wanted is None:
        return f"`rm {path}`"  # it should not exist
    remove = f"rm -rf {path}" if path.is_dir() else f"rm -f {path}"
    if wanted is None or dvc.cached_file(wanted):
        return f"`{remove}` and `dvc checkout {path}`"
    if dvc.cached_file(current):
        return "`git checkout dvc.lock`, or `dvc repro`"
    # A file and DVC's copy are often the same, by a hard link, and DVC trusts its copy without a check.
    copy, root = dvc.cache_path(wanted), dvc.repository_root()
    copy = copy.relative_to(root) if copy.is_relative_to(root) else copy
    return f"DVC has no intact copy: `{remove} {copy}`, then `dvc pull` or `dvc repro`"


def short(digest: str | None) -> str:
    """Return the first eight digits of a hash, or "missing"."""
    return digest[:8] if digest else "missing"
