"""MLflow's server goes away in the middle of a training: nothing stops, and nothing is lost."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from repository_copy import Copy, copy_of_repository, stages_run
from servers import HOST, free_port
from standin import small_models
from stopped import wait_for_epoch

MODEL, EPOCHS = "model_2", 150  # enough to be under way when the server is back, also where it starts slowly
pytestmark = pytest.mark.faults

LOGGED = """
import json, mlflow, sys
client = mlflow.MlflowClient()
run = client.get_run(sys.argv[1])
models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{sys.argv[1]}'")
print(json.dumps({
    "status": run.info.status,
    "steps": {name: sorted(point.step for point in client.get_metric_history(sys.argv[1], name))
              for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")},
    "final": run.data.metrics.get("final_val_accuracy"),
    "files": sorted(found.path for found in client.list_artifacts(sys.argv[1])),
    "models": len(models),
}))
"""


@pytest.fixture
def copy(tmp_path) -> Copy:
    def one_model(params: dict) -> None:
        small_models(params)
        params["active"] = [MODEL]
        params["models"][MODEL]["early_stopping"] = None
        params["profiles"]["demo"]["training"]["epochs"] = EPOCHS

    copy = copy_of_repository(tmp_path / "repository")
    copy.edit(one_model)
    copy.commit()
    copy.succeed("dvc", "repro", "cache", f"architecture@{MODEL}")
    return copy


def steps(copy: Copy, uri: str) -> list[int]:
    """Return the steps of the loss of the one run."""
    script = (
        "import mlflow; client = mlflow.MlflowClient(); [run] = mlflow.search_runs("
        "experiment_names=['demo'], filter_string=\"attributes.status = 'RUNNING'\", output_format='list');"
        "print(*(point.step for point in client.get_metric_history(run.info.run_id, 'loss')))"
    )
    printed = copy.succeed(sys.executable, "-c", script, MLFLOW_TRACKING_URI=uri)
    return sorted(int(step) for step in printed.splitlines()[-1].split())


@contextmanager
def held(process: subprocess.Popen[str]) -> Iterator[None]:
    """Let a training wait: a server takes seconds to start, and these epochs none."""
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGCONT)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    printed = ""
    assert process.stdout is not None
    while text not in printed:
        line = process.stdout.readline()
        assert line, printed
        printed += line


def test_outages_of_the_server_stop_no_training_and_lose_no_epoch(copy, mlflow_server):
    uri = mlflow_server.url
    # Refused at once, the store is asked again soon: an epoch takes a fraction of a second here.
    process = copy.start("dvc", "repro", MLFLOW_TRACKING_URI=uri, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    wait_for_epoch(process, 2)
    with held(process):
        mlflow_server.stop()
    wait_for(process, "the training continues")
    with held(process):
        mlflow_server.start()
    wait_for(process, "is back; the missing epochs are logged")
    with held(process):
        before = steps(copy, uri)
        mlflow_server.stop()
    assert before == list(range(1, before[-1] + 1))
    rest, _ = process.communicate(timeout=600)
    assert process.returncode != 0  # `compare` says that the table is there, and the runs are not
    assert "the table is complete, see reports/results.md, but its runs in MLflow are not" in rest.replace("\n", " ")
    assert "Traceback" not in rest
    assert (copy.root / "reports" / "results.md").is_file()

    mlflow_server.start()
    printed = copy.succeed("dvc", "repro", MLFLOW_TRACKING_URI=uri)
    assert stages_run(printed) == ["compare"]
    run_id = json.loads((copy.root / "models" / MODEL / "run.json").read_text())["run_id"]
    found = json.loads(copy.succeed(sys.executable, "-c", LOGGED, run_id, MLFLOW_TRACKING_URI=uri).splitlines()[-1])
    assert set(map(tuple, found["steps"].values())) == {tuple(range(1, EPOCHS + 1))}
    assert (found["status"], found["models"]) == ("FINISHED", 1)
    assert found["files"] == ["history.csv", "results"]
    metrics = json.loads((copy.root / "results" / MODEL / "metrics.json").read_text())
    assert found["final"] == metrics["val_accuracy"]


def test_a_wrong_address_is_one_message_before_the_first_epoch(copy):
    uri = f"http://me:secret@{HOST}:{free_port()}"
    done = copy.run("dvc", "repro", f"train@{MODEL}", MLFLOW_TRACKING_URI=uri)
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert f"MLflow's store {uri.replace('me:secret@', '')} cannot be used" in printed
    assert "secret" not in printed
    assert "Traceback" not in printed
    assert "epoch  1/" not in printed
