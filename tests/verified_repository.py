"""A repository with the results of two models, in which `verify` finds no failure. Tests change a part of it."""

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from made_results import METRICS, made_params, make_results

from tiny_imagenet.common.files import hashes_below, md5
from tiny_imagenet.config.jobs import Job
from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.table import results_table
from tiny_imagenet.repository import dvc, provenance
from tiny_imagenet.repository.records import RunRecord
from tiny_imagenet.tracking.results import TrackedRun
from tiny_imagenet.verification import checks as verification

MODELS = ("model_1", "model_2")
PARAMS = made_params(active=list(MODELS))
RUN_IDS = {"model_1": "1" * 32, "model_2": "2" * 32}
COMMIT = "c" * 40
CODE, DATA = "src/training/fit.py", "data/cache/train_images.npy"
REPORT = ("pipeline", "files")
DEPENDENCIES = ("src/training", "data/cache", "stages/train.py")
HISTORY = {
    "accuracy": {1: 0.1, 2: 0.4},
    "val_accuracy": {1: 0.2, 2: 0.3},
    "loss": {1: 3.0, 2: 2.0},
    "val_loss": {1: 2.5, 2: 2.1},
    "learning_rate": {1: 0.001, 2: 0.001},
}


class Repository:
    """Two models with files, dvc.lock, git and MLflow, in the working directory."""

    def __init__(self) -> None:
        self.runs: dict[str, TrackedRun] = {}
        self.histories: dict[str, dict[str, dict[int, float]]] = {}
        self.again: dict[tuple[str, str], list[tuple[int, float]]] = {}
        """Duplicate points: run, metric -> step, value."""
        self.files: dict[str, dict[str, str]] = {}
        """Run -> path -> MD5 of its result files."""
        self.models: dict[str, str | None] = {}
        """Run -> MD5 of its model in MLflow."""
        self.changed: list[str] = []
        self.commits = {COMMIT}
        for path in (CODE, DATA, "stages/train.py", "data/overview/report.json"):
            Path(path).parent.mkdir(parents=True)
            Path(path).write_text(f"content of {path}")
        for model in MODELS:
            self._make(PARAMS.job(model))
        self.write_table()
        self.write_lock()

    def _make(self, job: Job) -> None:
        name, run_id = job.name, RUN_IDS[job.name]
        models, results, content = Path("models") / name, Path("results") / name, name.encode() * 100
        make_results(
            Path(),
            name,
            run={
                "run_id": run_id,
                "stage": job.train_stage,
                "git": {"commit": COMMIT, "dirty": False},
                "dependencies": {path: dvc.path_md5(Path(path)) for path in DEPENDENCIES},
                "hashes": {"params": job.fingerprint, "data": "d" * 16},
                "params": {"epochs": 2, "augmentation.zoom": [0.9, 1.1], "weights": None},
                "versions": {"python": "3.11.7", "keras": "3.15.1"},
                "model_md5": hashlib.md5(content, usedforsecurity=False).hexdigest(),
            },
        )
        (models / "model.keras").write_bytes(content)
        self.models[run_id] = md5(models / "model.keras")
        self.files[run_id] = {f"results/{path}": digest for path, digest in hashes_below(results).items()}
        self.files[run_id]["history.csv"] = md5(models / "history.csv")
        self.histories[run_id] = {name: dict(points) for name, points in HISTORY.items()}
        self.runs[run_id] = TrackedRun(
            run_id=run_id,
            name=name,
            status="FINISHED",
            params={
                "epochs": "2",
                "augmentation.zoom": "(0.9, 1.1)",
                "weights": "None",
            },  # a tuple, unless restored
            metrics={
                **{f"final_{name}": float(value) for name, value in METRICS.items()},
                **{name: points[2] for name, points in HISTORY.items()},
                "system/cpu_utilization_percentage": 97.0,
            },
            tags=provenance.run_tags(RunRecord.read(models / "run.json")) | {"mlflow.user": "somebody"},
        )

    def write_lock(self, params: Params = PARAMS) -> None:
        """Write a dvc.lock for the current files."""

        def entries(paths: Iterable[str]) -> list[dict[str, Any]]:
            return [{"path": path, "md5": dvc.path_md5(Path(path))} for path in paths]

        stages = {}
        for job in params.jobs:
            models, results = f"models/{job.name}", f"results/{job.name}"
            trained = [f"{models}/{name}" for name in ("model.keras", "history.csv", "run.json")]
            stages[job.train_stage] = {"deps": entries(DEPENDENCIES), "outs": entries(trained)}
            stages[job.evaluate_stage] = {
                "deps": entries(["data/cache", *trained[:2]]),
                "outs": entries(f"{results}/{name}" for name in ("metrics.json", "architecture.json")),
            }
        stages["compare"] = {
            "deps": entries(["data/overview", "models", "results"]),
            "outs": entries(["reports"]),
        }
        Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))

    def write_table(self) -> None:
        Path("reports").mkdir(exist_ok=True)
        results_table(PARAMS).frame.to_csv("reports/results.csv", index=False)

    def history(self, _: Path, run_id: str, name: str) -> list[tuple[int, float]]:
        points = [*self.histories[run_id].get(name, {}).items()]
        return points + self.again.get((run_id, name), [])

    def add_replicate(self, name: str, params: Params) -> None:
        self._make(params.job(name))
        self.write_lock(params)

    def checks_of(self, params: Params, model: str) -> list[verification.Check]:
        return list(dict(verification.walk(params, [model], evaluate=False))[model])

    def change_run(self, model: str = "model_2", **changes: Any) -> None:
        run = self.runs[RUN_IDS[model]]
        for key, value in changes.items():
            if isinstance(value, dict):
                changes[key] = {name: one for name, one in ({**getattr(run, key), **value}).items() if one is not None}
        self.runs[run.run_id] = replace(run, **changes)

    def checks(self, *models: str) -> dict[tuple[str, str], verification.Check]:
        walked = verification.walk(PARAMS, models, evaluate=False)
        return {(heading, check.subject): check for heading, checks in walked for check in checks}

    def failures(self, *models: str) -> dict[tuple[str, str], str]:
        checks = self.checks(*models)
        assert all("\n" not in check.detail for check in checks.values())
        return {where: check.detail for where, check in checks.items() if check.holds is False}

    def specific_failures(self, *models: str) -> dict[tuple[str, str], str]:
        """Return the failures without those that any changed byte of the results or of the report causes."""
        failures = self.failures(*models)
        return {where: detail for where, detail in failures.items() if where[1] != "run's files" and where != REPORT}

    def skipped(self) -> dict[tuple[str, str], str]:
        return {where: check.detail for where, check in self.checks().items() if check.holds is None}


def edit_json(path: str, **changes: Any) -> None:
    values = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps(values | changes))


def edit(path: str, old: str, new: str) -> None:
    """Replace a part of a file by another of the same length, and keep its time. DVC does not notice this."""
    assert len(old) == len(new)
    before, text = Path(path).stat(), Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip_last_bit(path: Path) -> None:
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def keep_listing(folder: str) -> None:
    """Put the list of a folder's files into DVC's cache, like DVC for outputs."""
    entries = [{"md5": digest, "relpath": name} for name, digest in dvc.folder_files(Path(folder)).items()]
    listing = dvc.cache_path(dvc.path_md5(Path(folder)))
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text(json.dumps(entries, sort_keys=True))
