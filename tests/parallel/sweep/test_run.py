"""A sweep in the process that starts it: which trials are the same, and what their records keep."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from made_results import VALUES

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import Params, parse_params
from tiny_imagenet.parallel.cluster.machines import Allotment
from tiny_imagenet.parallel.cluster.trials import Report
from tiny_imagenet.parallel.sweep import progress as sweep_progress
from tiny_imagenet.parallel.sweep import run
from tiny_imagenet.parallel.sweep.plan import plan
from tiny_imagenet.parallel.sweep.progress import Progress
from tiny_imagenet.parallel.sweep.results import read_record

ROOT = Path(__file__).parents[3]


def params(**changes: Any) -> Params:
    search = {"optimizer.learning_rate": {"loguniform": [0.001, 0.01]}}
    values = {"model": "model_2", "epochs": 2, "trials": 3, "search": search}
    return parse_params(json.loads(json.dumps(VALUES)) | {"sweeps": {"rates": values | changes}})


def hdf5(content: bytes) -> bytes:
    """Return bytes that look like an HDF5 file from outside."""
    return b"\x89HDF\r\n\x1a\n" + content


def keys(given: Params) -> list[str]:
    planned = plan(given, "rates")
    hashes = run._dependencies(given.job("model_2"), {trial.number: trial.recipe for trial in planned.trials})
    return list(run._keys(given, planned, hashes).values())


def test_the_key_of_a_trial_changes_with_what_decides_its_result(monkeypatch):
    monkeypatch.chdir(ROOT)
    before = keys(params())
    assert len(set(before)) == 3
    assert keys(params(trials=5))[:3] == before
    assert keys(params().model_copy(update={"models": params().models | {"x": params().models["model_1"]}})) == before
    changed = [
        params(epochs=3),
        params(holdout_per_class=3),
        params(stop_early={"grace_epochs": 1}),
        params().model_copy(update={"seed": 7}),
    ]
    for different in changed:
        assert not set(keys(different)) & set(before)
    # Another metric ranks the same trials, unless the metric stopped some of them early.
    assert keys(params(metric="holdout_loss")) == before
    stopped = {"stop_early": {"grace_epochs": 1}}
    assert not set(keys(params(metric="holdout_loss", **stopped))) & set(keys(params(**stopped)))
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert not set(keys(params())) & set(before)


def test_other_pretrained_weights_make_another_trial(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    weights = tmp_path / "weights.h5"
    weights.write_bytes(hdf5(b"some"))
    search = {"weights": {"grid": [str(weights)]}}
    given = params(model="model_5", trials=1, search=search)
    before = keys(given)
    weights.write_bytes(hdf5(b"others"))
    assert not set(keys(given)) & set(before)


def test_another_architecture_makes_another_trial(monkeypatch):
    monkeypatch.chdir(ROOT)
    before = keys(params())
    monkeypatch.setattr(run, "architecture_source", lambda name: f"another {name}")
    assert not set(keys(params())) & set(before)


def test_trials_with_other_weights_do_not_change_the_others(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    files = [tmp_path / name for name in ("a.h5", "b.h5")]
    for path in files:
        path.write_bytes(hdf5(path.name.encode()))
    one, two = (
        keys(params(model="model_5", trials=1, search={"weights": {"grid": [str(path) for path in chosen]}}))
        for chosen in (files[:1], files)
    )
    assert two[:1] == one


class Machines:
    """A cluster that runs trials one after the other, in this process."""

    def require_shared(self, folder: Path) -> None:
        assert folder.name == "rates"

    def allot(self, *_: Any) -> Allotment:
        return Allotment(1, 1, gpus=1)  # so that no variable is set here

    def run_trials(self, _: Any, function: Any, __: Any, numbers: list[int], *, progress: Any, **___: Any) -> None:
        for number in numbers:
            progress.started(number)
            try:
                function(number, lambda report, number=number: progress.reported(number, report))
            except UserError as error:
                progress.ended(number, str(error))
            else:
                progress.ended(number, None)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Run a sweep of one trial with the given weights; call `meanwhile` when Ray starts."""

    def start(weights: Path, meanwhile: Callable[[], object]) -> None:
        @contextmanager
        def connected(*_: Any) -> Iterator[Machines]:
            meanwhile()
            yield Machines()

        monkeypatch.setattr(run.machines, "connected", connected)
        given = params(model="model_5", trials=1, search={"weights": {"grid": [str(weights)]}})
        run.run(given, "rates", workers=None, cores=None, address=None)

    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(run.dvc, "repro", lambda *_: None)
    monkeypatch.setattr(run.machines, "require", lambda *_: None)
    monkeypatch.setattr(run, "run_trials", Machines().run_trials)
    monkeypatch.setattr(sweep_progress, "open_run", lambda *_, name, **__: Run(name))
    return start


@pytest.mark.parametrize("kind", ["architecture", "weights"])
def test_a_trial_is_refused_if_an_input_changes_during_the_sweep(kind, started, tmp_path, monkeypatch):
    weights = tmp_path / "weights.h5"
    weights.write_bytes(hdf5(b"some"))

    def change() -> None:
        if kind == "weights":
            weights.write_bytes(hdf5(b"others"))
        else:
            monkeypatch.setattr(run, "architecture_source", lambda name: f"another {name}")

    named = f"weights {weights}" if kind == "weights" else "the architecture resnet50"
    with pytest.raises(UserError, match=rf"trial 1: {re.escape(named)} changed while the sweep ran; rerun it"):
        started(weights, change)
    assert not list(tmp_path.glob("sweeps/rates/trials/*/trial.json"))


def test_a_trial_gets_the_commands_environment_variables(started, tmp_path, monkeypatch):
    (tmp_path / "weights.h5").write_bytes(hdf5(b"some"))
    values = {"KERAS_BACKEND": "jax", "KERAS_HOME": "/weights"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    environments = []

    def train_trial(order: run.Order, report: Report) -> None:
        environments.append(order.environment)
        raise UserError("it trains nothing")

    monkeypatch.setattr(run, "train_trial", train_trial)
    with pytest.raises(UserError, match="it trains nothing"):
        started(tmp_path / "weights.h5", lambda: None)
    assert environments == [values]


class Run:
    """A stand-in for an MLflow run."""

    def __init__(self, name: str):
        self.run_id, self.epochs, self.status, self.is_away = name, [], "RUNNING", False

    def log_epoch(self, epoch: int, figures: dict[str, float]) -> None:
        self.epochs.append((epoch, figures["holdout_accuracy"]))

    def log_history(self, history: list[dict[str, float]]) -> None:
        for number, figures in enumerate(history, start=1):
            self.log_epoch(number, figures)

    def end(self, status: str) -> bool:
        self.status = status
        return not self.is_away


@pytest.fixture
def progress(tmp_path, monkeypatch):
    """Return the progress of a sweep of three trials, its runs by name, and its folders."""
    runs: dict[str, Run] = {}

    def open_run(*_: Any, name: str, resume: str | None, **__: Any) -> Run:
        runs[name] = Run(resume or f"id of {name}")
        return runs[name]

    monkeypatch.setattr(sweep_progress, "open_run", open_run)
    monkeypatch.setattr(sweep_progress.dvc, "repository_root", lambda: tmp_path)
    given = params()
    planned = plan(given, "rates")
    folders = {trial.number: tmp_path / str(trial.number) for trial in planned.trials}
    return Progress(given, planned, Run("parent"), folders, {}), runs, folders  # type: ignore[arg-type]


def epoch(number: int, accuracy: float) -> dict[str, Any]:
    return {"epoch": number, "metrics": {"holdout_accuracy": accuracy}, "time_total_s": 1.0}


def test_an_epoch_that_is_reported_twice_counts_once(progress):
    course, runs, folders = progress
    course.started(1)
    course.reported(1, epoch(1, 0.1))
    course.started(1)  # its node was lost
    course.reported(1, epoch(1, 0.1))
    course.reported(1, epoch(2, 0.2))
    course.reported(1, {"finished": True})
    course.ended(1, None)
    assert runs["rates-1"].epochs == [(1, 0.1), (2, 0.2)]
    assert runs["rates-1"].status == "FINISHED"
    record = read_record(folders[1])
    assert record is not None
    assert (record.status, record.run_id) == ("finished", "id of rates-1")
    assert record.history == [{"holdout_accuracy": 0.1}, {"holdout_accuracy": 0.2}]


@pytest.mark.parametrize(
    ("reports", "error", "status", "run_status"),
    [
        ([epoch(1, 0.1)], None, "stopped early", "FINISHED"),
        ([epoch(1, 0.1), epoch(2, 0.2)], None, "finished", "FINISHED"),  # killed before its last message
        ([epoch(1, 0.1), {"finished": True}], None, "finished", "FINISHED"),  # the recipe stops early
        ([{"failed": "loss is nan"}], None, "failed", "FAILED"),
        ([epoch(1, 0.1)], "the node died", None, "FAILED"),
        ([epoch(1, 0.1), {"refused": "images changed"}], "images changed", None, "FAILED"),
    ],
)
def test_a_record_has_how_the_trial_ended(reports, error, status, run_status, progress):
    course, runs, folders = progress
    course.started(2)
    (folders[2] / "key.checkpoint").write_bytes(b"weights")
    for report in reports:
        course.reported(2, report)
    course.ended(2, None if "refused" in reports[-1] else error)  # Ray knows nothing of a refusal
    record = read_record(folders[2])
    assert (record and record.status) == status
    assert runs["rates-2"].status == run_status
    assert (folders[2] / "key.checkpoint").exists() == (status is None)  # a lost trial resumes from it
    assert course.lost == ({2: error} if error else {})


def test_trials_that_mlflow_missed_are_logged_later(progress, monkeypatch):
    course, runs, folders = progress
    open_run = sweep_progress.open_run

    def away(*_: Any, **__: Any) -> Run:
        raise UserError("MLflow's store is away")

    course.started(1)
    monkeypatch.setattr(sweep_progress, "open_run", away)
    course.started(2)
    runs["rates-1"].is_away = True
    for number in (1, 2):
        course.reported(number, epoch(1, 0.1))
        course.reported(number, {"finished": True})
        course.ended(number, None)
    course.deliver()  # still away
    assert [read_record(folders[number]).in_mlflow for number in (1, 2)] == [False, False]
    monkeypatch.setattr(sweep_progress, "open_run", open_run)
    course.deliver()
    for number in (1, 2):
        record = read_record(folders[number])
        assert (record.in_mlflow, record.run_id) == (True, f"id of rates-{number}")
        assert (runs[f"rates-{number}"].epochs, runs[f"rates-{number}"].status) == ([(1, 0.1)], "FINISHED")


def test_a_stopped_sweep_marks_its_runs_as_killed_and_resumes_them(progress):
    course, runs, _ = progress
    course.started(3)
    course.close()
    assert runs["rates-3"].status == "KILLED"
    first = runs["rates-3"].run_id
    course._runs.clear()
    course.started(3)
    assert runs["rates-3"].run_id == first


def test_a_trial_that_never_started_is_lost_without_a_traceback(progress):
    course, _, folders = progress
    course.ended(2, "its process died as it began")
    assert course.lost == {2: "its process died as it began"}
    assert not (folders[2] / "trial.json").exists()
