"""Checks of the MLflow run: a difference from the files is found, and nothing else fails."""

from pathlib import Path

import pytest
from verified_repository import COMMIT, RUN_IDS, edit, edit_json

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.verification import evidence


def test_a_changed_model_in_mlflow_is_found(repository):
    repository.models[RUN_IDS["model_2"]] = None
    assert "the run's model is " in repository.failures()["model_2", "run"]


@pytest.mark.parametrize(
    ("change", "subject", "message"),
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
def test_a_difference_in_the_run_is_named(repository, change, subject, message):
    repository.change_run(**change)
    failures = repository.specific_failures()
    assert set(failures) == {("model_2", subject)}
    assert message in failures["model_2", subject]


@pytest.mark.parametrize(
    ("name", "points", "message"),
    [
        ("loss", {3: 1.5}, "loss of epoch 3 is 1.5 in MLflow, nothing in history.csv"),
        ("loss", {0: 1.5}, "loss of epoch 0 is 1.5 in MLflow, nothing in history.csv"),
        ("loss", {2: 2.0000000000000004}, "loss of epoch 2 is 2.0000000000000004 in MLflow, 2.0 in history.csv"),
        ("more", {1: 1.5}, "more of epoch 1 is 1.5 in MLflow, nothing in history.csv"),
    ],
)
def test_additional_and_changed_epochs_are_named(repository, name, points, message):
    repository.histories[RUN_IDS["model_2"]].setdefault(name, {}).update(points)
    repository.change_run(metrics={name: 1.5})
    failures = repository.specific_failures()
    assert set(failures) == {("model_2", "epochs")}
    assert message in failures["model_2", "epochs"]


def test_a_duplicate_epoch_is_named(repository):
    repository.again[RUN_IDS["model_2"], "loss"] = [(1, 2.5)]
    failures = repository.specific_failures()
    assert set(failures) == {("model_2", "epochs")}
    assert "loss of epoch 1, again is 2.5 in MLflow, nothing in history.csv" in failures["model_2", "epochs"]


@pytest.mark.parametrize("name", ["history.csv", "results/metrics.json"])
@pytest.mark.parametrize("digest", ["f" * 32, None])
def test_a_changed_or_missing_file_of_the_run_is_named(repository, name, digest):
    files = repository.files[RUN_IDS["model_2"]]
    files[name] = digest
    if digest is None:
        del files[name]
    failures = repository.failures()
    assert set(failures) == {("model_2", "run's files")}
    assert f"{name} is {'ffffffff' if digest else 'missing'} in MLflow" in failures["model_2", "run's files"]


def test_a_missing_epoch_is_named(repository):
    del repository.histories[RUN_IDS["model_2"]]["loss"][1]
    failure = repository.specific_failures()["model_2", "epochs"]
    assert "loss of epoch 1 is nothing in MLflow, 3.0 in history.csv" in failure


def test_five_of_many_differences_are_named_and_all_are_counted(repository):
    for points in repository.histories[RUN_IDS["model_2"]].values():
        points.update(dict.fromkeys(range(1, 101), 0.5))
    detail = repository.specific_failures()["model_2", "epochs"]
    assert detail.count(" in MLflow, ") == 5
    assert "; ... 500 in all: " in detail


def test_a_missing_run_is_one_failure_and_dependent_checks_are_skipped(repository):
    del repository.runs[RUN_IDS["model_2"]]
    failures = repository.specific_failures()
    assert set(failures) == {("model_2", "run")}
    assert RUN_IDS["model_2"] in failures["model_2", "run"]
    assert "`tiny-imagenet sync`" in failures["model_2", "run"]
    assert {("model_2", "final metrics"), ("model_2", "epochs")} <= set(repository.skipped())


def test_a_restored_run_passes_and_is_named_with_the_original(repository):
    edit_json("models/model_2/run.json", git={"commit": COMMIT, "dirty": True})
    repository.write_lock()
    repository.change_run(run_id="3" * 32, params={"augmentation.zoom": "[0.9, 1.1]"}, tags={"git.dirty": "true"})
    for by_run in (repository.histories, repository.models, repository.files):
        by_run["3" * 32] = by_run.pop(RUN_IDS["model_2"])
    checks = repository.checks()
    assert repository.specific_failures() == {}
    assert f"{'3' * 32}, restored from {RUN_IDS['model_2']}" in checks["model_2", "run"].detail
    assert "later changes are in run.json" in checks["model_2", "commit"].detail


def test_a_store_that_cannot_be_reached_is_one_failure_and_other_checks_are_made(repository, monkeypatch):
    def away(root: Path, run_id: str) -> None:
        raise UserError("MLflow's store http://nowhere:5000 cannot be used: refused\nStart its server.")

    monkeypatch.setattr(evidence, "find_run", away)
    edit("results/model_2/metrics.json", "0.3861", "0.9861")
    failures = repository.specific_failures()
    assert set(failures) == {("pipeline", "MLflow"), ("model_2", "files"), ("model_2", "table")}
    assert "http://nowhere:5000" in failures["pipeline", "MLflow"]
    assert repository.skipped()["model_1", "run"] == "MLflow's store cannot be reached, see below"
