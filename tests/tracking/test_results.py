"""Results in MLflow: runs are completed or restored; one run is current, one model is the champion."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_results import make_results
from made_runs import points, write_run

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.repository.records import RunRecord
from tiny_imagenet.tracking import results, store
from tiny_imagenet.tracking.additions import add_model
from tiny_imagenet.tracking.results import (
    add_results,
    champion_file,
    describe_experiment,
    find_run,
    register_champion,
    supersede,
)


def result(
    run_id: str = "0" * 32, *, name: str = "model_1", losses: Sequence[float] = (2.0, 1.0), **metrics: float
) -> RunRecord:
    """Write the files of a training into the working directory, and return its run.json."""
    shutil.rmtree(Path("models") / name, ignore_errors=True)
    shutil.rmtree(Path("results") / name, ignore_errors=True)
    run = {"run_id": run_id, "experiment": "restoring", "epoch_seconds": [10.0, 20.0]}
    make_results(Path(), name, run=run, metrics={"val_accuracy": 0.5} | metrics)
    rows = "".join(f"{epoch},0.5,0.5,{loss},1.5\n" for epoch, loss in enumerate(losses, start=1))
    (Path("models") / name / "history.csv").write_text(f"epoch,accuracy,val_accuracy,loss,val_loss\n{rows}")
    return RunRecord.read(Path("models") / name / "run.json")


def complete(root, record, small, name="model_1"):
    return results.complete(
        root,
        name,
        record,
        tags={"workspace": "here"},
        description="a row",
        log_model=lambda run_id: add_model(run_id, *small),
    )


@pytest.fixture
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_missing_run_is_restored_once_from_the_files(root, client, working_directory, small):
    record = result()
    (first, restored), (second, again) = (complete(root, record, small) for _ in range(2))
    assert (restored, again) == (True, False)
    assert first.run_id == second.run_id
    assert find_run(root, "0" * 32).run_id == first.run_id
    run = client.get_run(first.run_id)
    assert run.data.tags["restored_from"] == "0" * 32
    assert run.data.tags["mlflow.note.content"] == "a row"
    assert (run.info.run_name, run.info.status) == ("model_1", "FINISHED")
    assert (run.info.end_time - run.info.start_time) == 30_000
    assert run.data.params == {"epochs": "2"}
    assert points(client, first.run_id, "loss") == [(1, 2.0), (2, 1.0)]
    assert points(client, first.run_id, "final_val_accuracy") == [(0, 0.5)]
    assert {file.path for file in client.list_artifacts(first.run_id)} >= {"history.csv", "results"}
    assert len(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{first.run_id}'")) == 1


def test_an_incomplete_run_is_completed(root, client, working_directory, small):
    run_id = write_run(root, experiment="restoring", epochs=1)
    store.client().update_run(run_id, status="RUNNING")  # the server could not be reached when it ended
    run, restored = complete(root, result(run_id, losses=(1.0, 0.5)), small)
    assert (run.run_id, restored, run.status) == (run_id, False, "FINISHED")
    assert sorted(points(client, run_id, "loss")) == [(1, 1.0), (2, 0.5)]
    assert run.metrics["final_val_accuracy"] == 0.5


def test_only_changed_results_are_logged_again(root, client, working_directory, small):
    run_id = write_run(root)
    for accuracy in (0.5, 0.5, 0.25):
        complete(root, result(run_id, val_accuracy=accuracy, num_images=200), small)
    assert sorted(points(client, run_id, "final_val_accuracy")) == [(0, 0.25), (0, 0.5)]
    assert client.get_run(run_id).data.metrics["final_val_accuracy"] == 0.25
    assert points(client, run_id, "final_num_images") == [(0, 200.0)]


def test_one_finished_run_of_a_workspace_is_current(root, client):
    name, here = "superseding", {"workspace": "here"}
    first, second = (write_run(root, experiment="demo", name=name, tags=here) for _ in range(2))
    elsewhere = write_run(root, experiment="demo", name=name, tags={"workspace": "there"})
    other = write_run(root, experiment="demo", name="other", tags=here)

    def superseded():
        return [client.get_run(run).data.tags.get("superseded_by") for run in (first, second, elsewhere, other)]

    supersede(root, find_run(root, second), here)
    assert superseded() == [second, None, None, None]
    assert not find_run(root, first).is_current
    supersede(root, find_run(root, first), here)  # as after a switch back, from DVC's cache
    assert superseded() == [None, first, None, None]


def test_the_champion_is_registered_once_and_the_alias_moves(root, client, working_directory, small):
    runs = []
    for number, name in enumerate(("model_1", "model_2")):
        runs.append(complete(root, result(f"{number + 1:032}", name=name), small, name)[0])
    with pytest.raises(UserError, match="has no tiny-imagenet@champion yet"), champion_file(root):
        pass
    registered = [register_champion(root, run, "a row") for run in (*runs, runs[1], runs[0])]
    assert [(registration.version, registration.other) for registration in registered] == [
        ("1", None), ("2", "version 1, model_1"), ("2", None), ("1", "version 2, model_2"),
    ]  # fmt: skip
    assert all(registration.is_champion for registration in registered)
    assert len(client.search_model_versions("name = 'tiny-imagenet'")) == 2
    version = client.get_model_version_by_alias("tiny-imagenet", "champion")
    assert (version.run_id, version.description) == (runs[0].run_id, "a row")
    with champion_file(root) as (path, name):
        assert (path.read_bytes(), name) == (small[1].read_bytes(), "version 1, model_1")


def test_an_experiment_has_the_latest_description(root, client):
    for text in ("a table", "another"):
        describe_experiment(root, "described", text)
    assert client.get_experiment_by_name("described").tags["mlflow.note.content"] == "another"


def test_add_results_returns_false_if_the_store_does_not_have_the_run(root, tmp_path):
    assert add_results(root, "0123456789abcdef0123456789abcdef", {"val_accuracy": 0.5}, tmp_path) is False


def test_add_results_raises_if_the_store_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="cannot be used"):
        add_results(tmp_path, "0" * 32, {"val_accuracy": 0.5}, tmp_path)
