"""Each link of a number's provenance, broken by hand: found, named, and nothing else with it.

Made files and a made store; tests/stages/test_verify.py has a real pipeline.
"""

import copy
import hashlib
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from made_results import METRICS, RUN, VALUES, made_params, make_results

from tiny_imagenet.cli import app
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import hashes_below, md5
from tiny_imagenet.config.jobs import Job
from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.table import results_table
from tiny_imagenet.repository import dvc, git, provenance
from tiny_imagenet.repository.records import Metrics, RunRecord
from tiny_imagenet.tracking.results import TrackedRun
from tiny_imagenet.verification import checks as verification
from tiny_imagenet.verification import evidence
from tiny_imagenet.verification.evidence import Evidence, has_results, table_rows, written_rows

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
SUBJECTS = ["files", "stages", "recipe", "commit", "run", "final metrics", "epochs", "run's files", "table"]


class Repository:
    """Two models with all that stands for their numbers, in the working directory; tests change it."""

    def __init__(self) -> None:
        self.runs: dict[str, TrackedRun] = {}
        self.histories: dict[str, dict[str, dict[int, float]]] = {}
        self.again: dict[tuple[str, str], list[tuple[int, float]]] = {}
        """Points that are there a second time: run, metric -> step, value."""
        self.files: dict[str, dict[str, str]] = {}
        """What each run has of the results: path -> MD5."""
        self.models: dict[str, str | None] = {}
        """The MD5 of each run's model in MLflow."""
        self.changed: list[str] = []
        self.commits = {COMMIT}
        for path in (CODE, DATA, "stages/train.py", "data/overview/report.json"):
            Path(path).parent.mkdir(parents=True)
            Path(path).write_text(f"what is in {path}")
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
            params={"epochs": "2", "augmentation.zoom": "(0.9, 1.1)", "weights": "None"},  # a tuple, as in a training
            metrics={
                **{f"final_{name}": float(value) for name, value in METRICS.items()},
                **{name: points[2] for name, points in HISTORY.items()},
                "system/cpu_utilization_percentage": 97.0,
            },
            tags=provenance.run_tags(RunRecord.read(models / "run.json")) | {"mlflow.user": "somebody"},
        )

    def write_lock(self, params: Params = PARAMS) -> None:
        """Write dvc.lock as the files are now."""

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

    def asked(self, params: Params, model: str) -> list[verification.Check]:
        return list(dict(verification.walk(params, [model], evaluate=False))[model])

    def change_run(self, model: str = "model_2", **changes: Any) -> None:
        run = self.runs[RUN_IDS[model]]
        for key, value in changes.items():
            if isinstance(value, dict):
                changes[key] = {name: one for name, one in ({**getattr(run, key), **value}).items() if one is not None}
        self.runs[run.run_id] = replace(run, **changes)

    def answers(self, *models: str) -> dict[tuple[str, str], verification.Check]:
        walked = verification.walk(PARAMS, models, evaluate=False)
        return {(heading, check.subject): check for heading, checks in walked for check in checks}

    def failures(self, *models: str) -> dict[tuple[str, str], str]:
        answers = self.answers(*models)
        assert all("\n" not in check.detail for check in answers.values())
        return {where: check.detail for where, check in answers.items() if check.holds is False}

    def failures_within(self, *models: str) -> dict[tuple[str, str], str]:
        """Return the failures without those that any byte of the results, or of the report, causes."""
        found = self.failures(*models)
        return {where: detail for where, detail in found.items() if where[1] != "run's files" and where != REPORT}

    def not_asked(self) -> dict[tuple[str, str], str]:
        return {where: check.detail for where, check in self.answers().items() if check.holds is None}


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Repository:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")
    made = Repository()
    monkeypatch.setattr(dvc, "changed_since_lock", lambda _: made.changed)
    monkeypatch.setattr(git, "commit_exists", lambda _, commit: commit in made.commits)
    monkeypatch.setattr(evidence, "find_run", lambda _, run_id: made.runs.get(run_id))
    monkeypatch.setattr(verification, "model_md5", lambda _, run_id: made.models[run_id])
    monkeypatch.setattr(evidence, "metric_history", made.history)
    monkeypatch.setattr(verification, "result_hashes", lambda _, run_id: made.files[run_id])
    return made


def edit_json(path: str, **changes: Any) -> None:
    values = json.loads(Path(path).read_text())
    Path(path).write_text(json.dumps(values | changes))


def edit(path: str, old: str, new: str) -> None:
    """Replace a part of a file by another of the same length, and keep its time: what DVC does not see."""
    assert len(old) == len(new)
    before, text = Path(path).stat(), Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new, 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip_last_bit(path: Path) -> None:
    before, content = path.stat(), path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_where_nothing_was_touched_everything_holds(repository):
    answers = repository.answers()
    assert list(answers) == [
        *((model, subject) for model in MODELS for subject in [*SUBJECTS, "evaluation"]),
        ("pipeline", "stages"),
        ("pipeline", "files"),
        ("pipeline", "table"),
    ]
    assert repository.failures() == {}
    assert set(repository.not_asked()) == {(model, "evaluation") for model in MODELS}


# --- folders ---


def keep_listing(folder: str) -> None:
    """Put the list of a folder's files into DVC's cache, as DVC does for what its stages make."""
    entries = [{"md5": digest, "relpath": name} for name, digest in dvc.folder_files(Path(folder)).items()]
    listing = dvc.cache_path(dvc.folder_md5(Path(folder)))
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text(json.dumps(entries, sort_keys=True))


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("results/model_2/metrics.json", ("model_2", "files")),
        ("results/model_2/architecture.json", ("model_2", "files")),
        ("reports/results.csv", REPORT),
        ("data/overview/report.json", REPORT),
    ],
)
def test_any_byte_of_an_output_is_found(repository, path, where):
    flip_last_bit(Path(path))
    failures = repository.failures()
    assert f"{path if where != REPORT else Path(path).parent} is " in failures[where]
    assert "`git checkout dvc.lock`, or `dvc repro`" in failures[where] or "dvc pull" in failures[where]


@pytest.mark.parametrize("folder", ["reports", "data/cache", "src/training"])
def test_the_first_file_that_differs_in_a_folder_is_named_if_dvc_has_its_list(repository, folder):
    keep_listing(folder)
    where = REPORT if folder == "reports" else ("model_1", "files")
    more, [path] = Path(folder) / "more.txt", [*Path(folder).iterdir()]
    remedy = {"src/training": f"`git checkout {more}`"}.get(folder, f"`rm {more}`")
    more.touch()
    assert f"{more} is d41d8cd9, missing in dvc.lock: {remedy}" in repository.failures()[where]
    more.unlink()
    was = md5(path)
    flip_last_bit(path)
    detail = repository.failures()[where]
    assert f"{path} is {md5(path)[:8]}, {was[:8]} in dvc.lock: " in detail
    assert (f"`git checkout {path}`" if folder == "src/training" else f"rm -f {path}") in detail


def test_bytecode_and_half_written_files_are_no_difference(repository):
    for folder in ("src/training/__pycache__", "data/cache"):
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "fit.cpython-311.pyc.partial").touch()
    (Path("src/training/__pycache__") / "fit.cpython-311.pyc").touch()
    assert repository.failures() == {}


def test_another_model_in_mlflow_is_found(repository):
    repository.models[RUN_IDS["model_2"]] = None
    assert "the run's model is " in repository.failures()["model_2", "run"]


def test_a_replicate_is_followed_like_a_model(repository):
    params = made_params(active=list(MODELS), replicates={"models": ["model_2"], "seeds": [7]})
    RUN_IDS["model_2-7"] = "7" * 32
    try:
        repository.add_replicate("model_2-7", params)
        assert [check.detail for check in repository.asked(params, "model_2-7") if check.holds is False] == []
        edit("results/model_2-7/metrics.json", "0.3861", "0.9861")
        flip_last_bit(Path("models/model_2-7/model.keras"))
        repository.changed = ["replicate@model_2-7: changed outs: models/model_2-7/model.keras (modified)"]
        failed = {check.subject: check.detail for check in repository.asked(params, "model_2-7") if not check.holds}
        assert set(failed) == {"files", "stages", "final metrics", "run's files", "evaluation"}
        assert "models/model_2-7/model.keras is " in failed["files"]
        assert "results/model_2-7/metrics.json is " in failed["files"]
        assert "model_2-7" in dict(verification.walk(params, evaluate=False))
    finally:
        del RUN_IDS["model_2-7"]


# --- files ---


def test_a_metric_that_was_written_by_hand_is_in_neither_mlflow_nor_the_table(repository):
    edit("results/model_2/metrics.json", "0.3861", "0.9861")
    failures = repository.failures_within()
    assert set(failures) == {("model_2", "files"), ("model_2", "final metrics"), ("model_2", "table")}
    assert "val_accuracy is 0.3861 in MLflow, 0.9861 in metrics.json (-0.6)" in failures["model_2", "final metrics"]
    assert "val_accuracy is 0.3861 in reports/results.csv, 0.9861 by the files" in failures["model_2", "table"]


@pytest.mark.parametrize(("old", "new"), [("0.3861", "0.3862"), ("0.3861", "0.38610000000000005"), ("425.8", "4e400")])
def test_a_digit_of_the_table_is_named_with_its_column(repository, old, new):
    lines = Path("reports/results.csv").read_text().splitlines(keepends=True)
    assert lines[2].startswith("model_2")
    Path("reports/results.csv").write_text(lines[0] + lines[1] + lines[2].replace(f",{old},", f",{new},", 1))
    failures = repository.failures_within()
    assert set(failures) == {("model_2", "table")}
    assert f" is {float(new)} in reports/results.csv, {old} by the files" in failures["model_2", "table"]
    assert "`dvc checkout reports results/model_2`" in failures["model_2", "table"]


def test_the_same_number_written_in_another_way_is_the_same(repository):
    text = Path("reports/results.csv").read_text()
    Path("reports/results.csv").write_text(text.replace(",0.3861,", ",3.861e-1,"))
    assert repository.failures_within() == {}


def test_rows_of_the_table_that_are_twice_there_missing_or_of_others_are_named(repository):
    header, first, second = Path("reports/results.csv").read_text().splitlines()
    Path("reports/results.csv").write_text("\n".join([header, first, first, second.replace("model_2", "model_9")]))
    failures = repository.failures_within()
    assert "has 2 rows of model_1" in failures["model_1", "table"]
    assert "has 0 rows of model_2" in failures["model_2", "table"]
    assert "has a row of model_9" in failures["pipeline", "table"]
    assert len(failures) == 3


@pytest.mark.parametrize("name", ["model.keras", "history.csv", "run.json"])
def test_a_byte_of_a_trained_file_is_found_whatever_its_size_and_time(repository, name):
    path = Path("models/model_2") / name
    was = md5(path)
    flip_last_bit(path)
    assert f"{path} is {md5(path)[:8]}, {was[:8]} in dvc.lock" in repository.failures_within()["model_2", "files"]


def test_what_mends_a_file_depends_on_what_dvc_still_has(repository):
    path = Path("models/model_2/model.keras")
    sound, wanted = path.read_bytes(), md5(path)
    copy = dvc.cache_path(wanted).relative_to(Path.cwd())
    edit(str(path), "model_2", "model_3")
    assert f"`rm -f {path} {copy}`, then `dvc pull` or `dvc repro`" in repository.failures_within()["model_2", "files"]
    copy.parent.mkdir(parents=True)
    copy.write_bytes(path.read_bytes())  # as through a hard link
    assert f"`rm -f {path} {copy}`, then `dvc pull` or `dvc repro`" in repository.failures_within()["model_2", "files"]
    copy.write_bytes(sound)
    assert f"`rm -f {path}` and `dvc checkout {path}`" in repository.failures_within()["model_2", "files"]
    path.write_bytes(sound)
    Path("dvc.lock").write_text(Path("dvc.lock").read_text().replace(wanted, "f" * 32))
    assert "`git checkout dvc.lock`" in repository.failures_within()["model_2", "files"]


def test_a_missing_model_file_is_named(repository):
    Path("models/model_2/model.keras").unlink()
    assert set(repository.failures_within()) == {("model_2", "files")}
    assert "models/model_2/model.keras is missing" in repository.failures_within()["model_2", "files"]


@pytest.mark.parametrize(
    ("path", "subjects"),
    [
        ("models/model_2/run.json", {"files", "recipe", "commit", "run", "table"}),
        ("models/model_2/history.csv", {"files", "epochs"}),
        ("results/model_2/metrics.json", {"files", "final metrics", "table"}),
        ("results/model_2/architecture.json", {"files", "table"}),
    ],
)
@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"epoch,loss\n1,x\n"])
def test_a_broken_file_is_a_failed_check_with_its_path(repository, path, subjects, content):
    Path(path).write_bytes(content)
    failures = repository.failures_within()
    assert set(failures) == {("model_2", subject) for subject in subjects}
    assert all(path in detail for detail in failures.values())


@pytest.mark.parametrize("path", ["models/model_2/run.json", "results/model_2/architecture.json"])
def test_a_file_that_lacks_what_is_needed_is_a_failed_check_with_its_path(repository, path):
    Path(path).write_text("{}")
    assert path in repository.failures_within()["model_2", "table"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'"', b"model\nmodel_2,1,2,3\n", b"a\0b"])
def test_a_broken_table_is_a_failed_check_of_each_model(repository, content):
    Path("reports/results.csv").write_bytes(content)
    failures = repository.failures_within()
    assert {("model_1", "table"), ("model_2", "table")} <= set(failures)
    assert all("reports/results.csv" in detail for detail in failures.values())


@pytest.mark.parametrize("key", ["git", "hashes", "dependencies", "params", "versions", "epoch_seconds"])
@pytest.mark.parametrize("value", [None, [1], {"a": {}}])
def test_a_record_of_other_types_is_no_traceback(repository, key, value):
    edit_json("models/model_2/run.json", **{key: value})
    assert ("model_2", "files") in repository.failures_within()


# --- MLflow ---


@pytest.mark.parametrize(
    ("change", "subject", "said"),
    [
        (
            {"metrics": {"final_val_accuracy": 0.9}},
            "final metrics",
            "val_accuracy is 0.9 in MLflow, 0.3861 in metrics.json",
        ),
        (
            {"metrics": {"final_val_accuracy": 0.38610000000000005}},
            "final metrics",
            "val_accuracy is 0.38610000000000005",
        ),
        ({"metrics": {"final_val_loss": None}}, "final metrics", "val_loss is nothing in MLflow, 2.5 in metrics.json"),
        ({"metrics": {"final_more": 1.0}}, "final metrics", "more is 1.0 in MLflow, nothing in metrics.json"),
        ({"params": {"epochs": "3"}}, "run", "param epochs is 3 in MLflow, 2 in run.json"),
        ({"params": {"more": "3"}}, "run", "param more is 3 in MLflow, nothing in run.json"),
        ({"params": {"weights": None}}, "run", "param weights is nothing in MLflow, None in run.json"),
        ({"tags": {"git.commit": "d" * 40}}, "run", f"tag git.commit is {'d' * 40} in MLflow, {COMMIT} in run.json"),
        ({"tags": {"hardware": None}}, "run", "tag hardware is nothing in MLflow"),
        ({"tags": {"superseded_by": "3" * 32}}, "run", "is superseded by another: `tiny-imagenet sync`"),
        ({"status": "KILLED"}, "run", "is KILLED, not FINISHED: `tiny-imagenet sync`"),
        ({"name": "model_1"}, "run", "is named model_1"),
    ],
)
def test_what_differs_in_the_run_is_named(repository, change, subject, said):
    repository.change_run(**change)
    failures = repository.failures_within()
    assert set(failures) == {("model_2", subject)}
    assert said in failures["model_2", subject]


@pytest.mark.parametrize(
    ("name", "points", "said"),
    [
        ("loss", {3: 1.5}, "loss of epoch 3 is 1.5 in MLflow, nothing in history.csv"),
        ("loss", {0: 1.5}, "loss of epoch 0 is 1.5 in MLflow, nothing in history.csv"),
        ("loss", {2: 2.0000000000000004}, "loss of epoch 2 is 2.0000000000000004 in MLflow, 2.0 in history.csv"),
        ("more", {1: 1.5}, "more of epoch 1 is 1.5 in MLflow, nothing in history.csv"),
    ],
)
def test_an_epoch_too_many_or_another_is_named(repository, name, points, said):
    repository.histories[RUN_IDS["model_2"]].setdefault(name, {}).update(points)
    repository.change_run(metrics={name: 1.5})
    failures = repository.failures_within()
    assert set(failures) == {("model_2", "epochs")}
    assert said in failures["model_2", "epochs"]


def test_an_epoch_that_is_there_twice_is_named(repository):
    repository.again[RUN_IDS["model_2"], "loss"] = [(1, 2.5)]
    failures = repository.failures_within()
    assert set(failures) == {("model_2", "epochs")}
    assert "loss of epoch 1, again is 2.5 in MLflow, nothing in history.csv" in failures["model_2", "epochs"]


@pytest.mark.parametrize("name", ["history.csv", "results/metrics.json"])
@pytest.mark.parametrize("digest", ["f" * 32, None])
def test_a_file_of_the_run_that_is_another_or_gone_is_named(repository, name, digest):
    files = repository.files[RUN_IDS["model_2"]]
    files[name] = digest
    if digest is None:
        del files[name]
    failures = repository.failures()
    assert set(failures) == {("model_2", "run's files")}
    assert f"{name} is {'ffffffff' if digest else 'missing'} in MLflow" in failures["model_2", "run's files"]


def test_pretrained_weights_that_were_replaced_are_named(repository, tmp_path):
    weights = tmp_path / "weights.h5"
    weights.write_bytes(b"as they were")
    hashes = {"params": PARAMS.job("model_2").fingerprint, "data": "d" * 16, "weights": md5(weights)}
    edit_json("models/model_2/run.json", weights=str(weights), hashes=hashes)
    assert ("model_2", "recipe") not in repository.failures("model_2")
    weights.write_bytes(b"others")
    assert "the pretrained weights" in repository.failures("model_2")["model_2", "recipe"]


def test_an_epoch_too_few_is_named(repository):
    del repository.histories[RUN_IDS["model_2"]]["loss"][1]
    assert (
        "loss of epoch 1 is nothing in MLflow, 3.0 in history.csv" in repository.failures_within()["model_2", "epochs"]
    )


def test_of_many_offenders_five_are_named_and_all_are_counted(repository):
    for points in repository.histories[RUN_IDS["model_2"]].values():
        points.update(dict.fromkeys(range(1, 101), 0.5))
    detail = repository.failures_within()["model_2", "epochs"]
    assert detail.count(" in MLflow, ") == 5
    assert "; ... 500 in all: " in detail


def test_a_run_that_mlflow_does_not_have_is_one_failure_and_what_hangs_on_it_is_not_asked(repository):
    del repository.runs[RUN_IDS["model_2"]]
    failures = repository.failures_within()
    assert set(failures) == {("model_2", "run")}
    assert RUN_IDS["model_2"] in failures["model_2", "run"]
    assert "`tiny-imagenet sync`" in failures["model_2", "run"]
    assert {("model_2", "final metrics"), ("model_2", "epochs")} <= set(repository.not_asked())


def test_a_restored_run_holds_and_is_named_beside_the_one_that_it_stands_for(repository):
    edit_json("models/model_2/run.json", git={"commit": COMMIT, "dirty": True})
    repository.write_lock()
    repository.change_run(run_id="3" * 32, params={"augmentation.zoom": "[0.9, 1.1]"}, tags={"git.dirty": "true"})
    for of_runs in (repository.histories, repository.models, repository.files):
        of_runs["3" * 32] = of_runs.pop(RUN_IDS["model_2"])
    answers = repository.answers()
    assert repository.failures_within() == {}
    assert f"{'3' * 32}, restored from {RUN_IDS['model_2']}" in answers["model_2", "run"].detail
    assert "changes since are in run.json" in answers["model_2", "commit"].detail


def test_a_store_that_is_away_is_one_failure_and_the_other_questions_are_asked(repository, monkeypatch):
    def away(root: Path, run_id: str) -> None:
        raise UserError("MLflow's store http://nowhere:5000 cannot be used: refused\nStart its server.")

    monkeypatch.setattr(evidence, "find_run", away)
    edit("results/model_2/metrics.json", "0.3861", "0.9861")
    failures = repository.failures_within()
    assert set(failures) == {("pipeline", "MLflow"), ("model_2", "files"), ("model_2", "table")}
    assert "http://nowhere:5000" in failures["pipeline", "MLflow"]
    assert repository.not_asked()["model_1", "run"] == "MLflow's store is away, see below"


# --- git, DVC, data, code, params ---


def test_a_commit_that_git_does_not_have_is_named(repository):
    repository.commits.clear()
    failures = repository.failures_within("model_1")
    assert set(failures) == {("model_1", "commit")}
    assert f"git does not have {COMMIT}" in failures["model_1", "commit"]


@pytest.mark.parametrize(
    ("git", "tags", "remark"),
    [
        ({"commit": COMMIT, "dirty": True}, {"git.dirty": "true"}, "changes since are in run.json"),
        ({"commit": None, "dirty": None}, {"git.commit": "none", "git.dirty": "unknown"}, "without git"),
    ],
)
def test_a_dirty_tree_and_none_at_all_are_remarks(repository, git, tags, remark):
    edit_json("models/model_2/run.json", git=git)
    repository.write_lock()
    repository.change_run(tags=tags)
    assert repository.failures_within() == {}
    assert remark in repository.answers()["model_2", "commit"].detail


def test_a_commit_that_git_refused_to_tell_is_not_taken_for_none(repository):
    refused = {"commit": None, "dirty": None, "problem": "fatal: detected dubious ownership in repository"}
    edit_json("models/model_2/run.json", git=refused)
    repository.write_lock()
    repository.change_run(tags={"git.commit": "refused", "git.dirty": "unknown"})
    failures = repository.failures_within()
    assert set(failures) == {("model_2", "commit")}
    assert "git did not answer (fatal: detected dubious ownership" in failures["model_2", "commit"]


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        (CODE, "`git checkout src/training`, or `dvc repro`"),
        ("stages/train.py", "`git checkout stages/train.py`, or `dvc repro`"),
        (DATA, "DVC has no sound copy: `rm -rf data/cache .dvc/cache/files/md5/"),
    ],
)
def test_a_byte_of_data_or_code_is_found_for_each_model_that_depends_on_it(repository, path, remedy):
    dependency = Path(path if path in DEPENDENCIES else Path(path).parent)
    was = dvc.path_md5(dependency)
    flip_last_bit(Path(path))
    failures = repository.failures_within()
    assert set(failures) == {(model, "files") for model in MODELS}
    now = dvc.path_md5(dependency)
    assert f"{dependency} is {now[:8]}, {was[:8]} in dvc.lock: {remedy}" in failures["model_1", "files"]


@pytest.mark.parametrize("path", ["stages/train.py", DATA])
def test_a_dependency_that_is_gone_is_named(repository, path):
    if path == DATA:
        keep_listing("data/cache")
    Path(path).unlink()
    assert f"{path} is missing" in repository.failures_within()["model_2", "files"]


def test_a_hash_in_dvc_lock_is_named(repository):
    was = dvc.folder_md5(Path("data/cache"))
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["train@model_1"]["deps"][1]["md5"] = "f" * 32
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    failures = repository.failures_within()
    assert set(failures) == {("model_1", "files")}
    assert f"data/cache is {was[:8]}, {was[:8]} in run.json, ffffffff in dvc.lock" in failures["model_1", "files"]
    assert "`git checkout dvc.lock`" in failures["model_1", "files"]


def test_a_dependency_that_only_one_of_dvc_lock_and_run_json_has_is_named(repository):
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["train@model_2"]["deps"][2]["path"] = "src/other.py"
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    detail = repository.failures_within()["model_2", "files"]
    assert "src/other.py is missing, missing in run.json" in detail
    digest = md5(Path("stages/train.py"))[:8]
    assert f"stages/train.py is {digest}, {digest} in run.json, missing in dvc.lock" in detail


def test_each_large_file_is_read_once(repository, monkeypatch):
    hashed, path_md5 = [], dvc.path_md5
    monkeypatch.setattr(dvc, "path_md5", lambda path: hashed.append(path) or path_md5(path))
    repository.answers()
    assert hashed.count(Path("models/model_1/model.keras")) == hashed.count(Path("data/cache")) == 1


@pytest.mark.parametrize("content", ["", "{", "stages: {}", "stages: []", "stages: {train@model_2: {deps: 3}}", "\x00"])
def test_a_broken_dvc_lock_is_no_traceback(repository, content):
    Path("dvc.lock").write_text(content)
    assert {("model_1", "files"), ("model_2", "files")} <= set(repository.failures_within())


def test_another_recipe_in_params_is_named(repository):
    changed = VALUES["models"]["model_2"] | {"optimizer": {"name": "adam", "learning_rate": 0.002}}
    params = made_params(active=list(MODELS), models=VALUES["models"] | {"model_2": changed})
    found = {
        check.subject: check
        for name, checks in verification.walk(params, ["model_2"], evaluate=False)
        for check in checks
    }
    assert not found["recipe"].holds
    assert params.job("model_2").fingerprint in found["recipe"].detail
    assert PARAMS.job("model_2").fingerprint in found["recipe"].detail


def test_what_dvc_finds_stale_is_said_of_its_model_and_the_rest_of_the_pipeline(repository):
    repository.changed += [
        "train@model_2: changed deps: stages/train.py: modified",
        "evaluate@model_1: changed outs: results/model_1: modified",
        "cache: changed deps: src/x.py: modified",
        "compare: changed command",
    ]
    failures = repository.failures_within()
    assert set(failures) == {("model_2", "stages"), ("model_1", "stages"), ("pipeline", "stages")}
    assert failures["pipeline", "stages"].count("; ") == 1
    assert "train@model_2: changed deps: stages/train.py: modified" in failures["model_2", "stages"]
    assert set(repository.failures_within("model_2")) == {("model_2", "stages"), ("pipeline", "stages")}


def test_where_dvc_fails_that_is_one_failure(repository, monkeypatch):
    def fail(root: Path) -> list[str]:
        raise FileNotFoundError(2, "No such file or directory", "dvc")

    monkeypatch.setattr(dvc, "changed_since_lock", fail)
    assert set(repository.failures_within()) == {("pipeline", "stages")}
    assert ("model_1", "stages") in repository.not_asked()


# --- which models, and the command ---


def test_a_model_without_results_fails_only_where_it_is_named(repository):
    for path in ("models/model_2/run.json", "results/model_2/metrics.json"):
        Path(path).unlink()
    repository.write_table()
    assert repository.failures_within() == {}
    assert "`dvc repro`" in repository.not_asked()["model_2", "results"]
    assert set(repository.failures("model_2")) == {("model_2", "results"), REPORT}


def test_a_model_whose_files_are_gone_but_whose_figures_are_in_the_table_fails(repository):
    Path("results/model_2/metrics.json").unlink()
    failures = repository.failures_within()
    assert set(failures) == {("model_2", "files"), ("model_2", "final metrics"), ("model_2", "table")}
    assert "results/model_2/metrics.json" in failures["model_2", "table"]


@pytest.fixture
def verify(repository, monkeypatch, capsys):
    """Run `tiny-imagenet verify --no-evaluation` and return its exit code, output and errors."""
    values = VALUES | {"active": list(MODELS)}
    Path("params.yaml").write_text(yaml.safe_dump(values))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tiny-imagenet", "verify", "--no-evaluation", *arguments])
        with pytest.raises(SystemExit) as caught:
            app.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return run


def test_the_command_has_a_heading_for_each_model_and_a_line_for_each_check(verify):
    code, output, errors = verify()
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert [line for line in lines[:-1] if not line.startswith("  ")] == ["model_1", "model_2", "pipeline"]
    assert lines[1] == "  ok         files          data, code, model and results are those of dvc.lock"
    assert lines[10] == "  not asked  evaluation     the model was not measured again"
    assert lines[-1] == "21 checks passed; not asked: 2"


def test_the_command_exits_with_1_and_counts_what_does_not_hold(verify):
    edit("results/model_2/metrics.json", "0.3861", "0.9861")
    code, output, errors = verify("model_2")
    assert code == 1
    assert "  FAILS      final metrics  val_accuracy is 0.3861 in MLflow" in output
    assert errors == "error: 4 of 12 checks failed, see above\n"
    assert verify("model_1")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model_22"], "did you mean 'model_2'"),
        (["model_3"], "`active` does not name it"),
        (["model_1", "--determinism", "model_2"], "not both"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_one_message(verify, arguments, said):
    code, output, errors = verify(*arguments)
    assert (code, output) == (1, "")
    assert said in errors
    assert "Traceback" not in errors


def test_without_a_table_there_is_one_message(verify):
    Path("reports/results.csv").unlink()
    code, output, errors = verify()
    assert (code, output) == (1, "")
    assert errors == "error: there is no reports/results.csv: run `dvc repro`\n"


@pytest.mark.parametrize("flip", [False, True])
def test_a_model_is_measured_again_with_the_recipe_as_its_profile_has_it(flip, monkeypatch, tmp_path, keras):
    """With mirror images where `evaluate` had them: what a profile says of them wins."""
    from tiny_imagenet.evaluation import evaluate
    from tiny_imagenet.input_pipeline import packed
    from tiny_imagenet.models import saved_model

    measured = []

    def measure(model, packed, history, recipe, *, best_epoch):
        measured.append((recipe.flip_at_test, best_epoch))
        architecture = {"parameters": 1, "parameters_200_classes": 2}
        return SimpleNamespace(metrics=Metrics.model_validate(METRICS), architecture=architecture)

    def write(_, folder, *, model_md5):
        (folder / "per_class.csv").write_text("recall\n0.5\n")

    profiles = copy.deepcopy(VALUES["profiles"])
    profiles["demo"]["training"]["flip_at_test"] = flip
    monkeypatch.chdir(tmp_path)
    make_results(Path(), "resnet18")
    edit_json("results/resnet18/architecture.json", parameters=1, parameters_200_classes=2)
    monkeypatch.setattr(saved_model, "load_model", lambda _: None)
    monkeypatch.setattr(packed, "open_packed", lambda _: None)
    monkeypatch.setattr(evaluate, "evaluate", measure)
    monkeypatch.setattr(evaluate, "write_evaluation", write)
    Path("results/resnet18/per_class.csv").write_text("recall\n0.5\n")
    evidence = Evidence(made_params(profiles=profiles).job("resnet18"), None)
    said = verification._evaluation(evidence, evaluate=True)
    assert f"{len(METRICS) + 2} metrics measured again, the same to the last digit; 1 files" in said
    assert measured == [(flip, RUN["best_epoch"])]
    Path("results/resnet18/per_class.csv").write_text("recall\n0.9\n")
    with pytest.raises(UserError, match=r"per_class.csv is not what the model gives"):
        verification._evaluation(evidence, evaluate=True)


@pytest.mark.parametrize("model", ["nan", "inf", "null", "true"])
def test_a_row_is_read_as_it_was_written_also_where_names_look_like_numbers(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    params = made_params(active=[model, "model_1"], models=VALUES["models"] | {model: VALUES["models"]["model_2"]})
    run = {"run_id": "1" * 31 + "e", "device": "1e5", "weights": "007"}
    make_results(Path(), model, run=run | {"hashes": {"params": params.job(model).fingerprint}})
    frame = results_table(params).frame
    Path("reports").mkdir()
    frame.to_csv("reports/results.csv", index=False)
    (row,) = table_rows(model)
    assert {key: row[key] for key in run} == run
    assert row["val_accuracy"] == METRICS["val_accuracy"]
    assert (row["epochs"], row["parameters_paper"]) == (METRICS["epochs"], "")
    assert has_results(model)
    assert table_rows() == written_rows(frame)
