"""Sweeps and many trainings on Ray: a node is lost, a sweep is interrupted and killed, two workers do what one does."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from repository_copy import Copy, copy_of_repository
from standin import small_models

from tiny_imagenet.files import md5

pytestmark = pytest.mark.e2e
EPOCHS = 40  # of a tenth of a second or more: time enough to be stopped in the middle
TRIALS = 3
COMMAND = (sys.executable, "-m", "tiny_imagenet")


@pytest.fixture(scope="module", autouse=True)
def _ray_is_quiet() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # the nodes listen on 127.0.0.1 alone
        pytest.importorskip("ray", reason="Ray is not installed: make extras")
        yield


def sweep_of_three(params: dict[str, Any]) -> None:
    small_models(params)
    for key in ("early_stopping", "reduce_learning_rate"):
        del params["models"]["model_2"][key]
    params["sweeps"] = {
        "rates": {
            "model": "model_2",
            "holdout_per_class": 1,
            "trials": TRIALS,
            "epochs": EPOCHS,
            "search": {"optimizer.learning_rate": {"loguniform": [0.001, 0.01]}},
        }
    }


def repository(folder: Path) -> Copy:
    copy = copy_of_repository(folder)
    copy.edit(sweep_of_three)
    copy.commit()
    copy.succeed("dvc", "repro", "cache")
    return copy


def records(copy: Copy) -> dict[float, dict[str, Any]]:
    """Return learning rate -> the record of each trial that is over."""
    found = [json.loads(path.read_text()) for path in copy.root.glob("sweeps/rates/trials/*/trial.json")]
    return {record["values"]["optimizer.learning_rate"]: record for record in found}


def histories(copy: Copy) -> dict[float, list[dict[str, float]]]:
    return {rate: record["history"] for rate, record in records(copy).items()}


def times_begun(copy: Copy) -> list[int]:
    """Return how often each trial's training was begun, and check that no epoch was trained to its end twice."""
    logs = [path.read_text() for path in copy.root.glob("sweeps/rates/trials/*/log")]
    for log in logs:
        epochs = [int(number) for number in re.findall(rf"^epoch +(\d+)/{EPOCHS} ", log, re.MULTILINE)]
        assert epochs == sorted(set(epochs))
        assert len(epochs) >= EPOCHS - log.count("expected: ")  # killed between saving and printing, one is not printed
    return sorted(log.count("expected: ") for log in logs)


def assert_runs_are_whole(copy: Copy) -> None:
    """Check that MLflow has one finished parent and a finished child for each trial, with each epoch once."""
    runs = copy.runs("demo-sweeps").set_index("run_id")
    assert set(runs["status"]) == {"FINISHED"}
    children = runs[runs["tags.mlflow.parentRunId"].notna()]
    (parent,) = set(runs.index) - set(children.index)
    assert set(children["tags.mlflow.parentRunId"]) == {parent}
    assert set(children.index) == {record["run_id"] for record in records(copy).values()}
    for record in records(copy).values():
        for name in ("holdout_accuracy", "loss", "val_accuracy"):
            assert logged(copy, record["run_id"], name) == [
                [epoch, figures[name]] for epoch, figures in enumerate(record["history"], start=1)
            ]


def logged(copy: Copy, run_id: str, metric: str) -> list[list[float]]:
    script = (
        "import json, mlflow, sys; client = mlflow.MlflowClient('sqlite:///mlflow.db');"
        "print(json.dumps([[point.step, point.value] for point in client.get_metric_history(*sys.argv[1:])]))"
    )
    return json.loads(copy.succeed(sys.executable, "-c", script, run_id, metric).splitlines()[-1])


def wait_for(process: subprocess.Popen[str], *patterns: str) -> list[str]:
    """Read what a process prints until each of the patterns has come; return the lines."""
    assert process.stdout is not None
    lines: list[str] = []
    missing = set(patterns)
    for line in process.stdout:
        lines.append(line)
        missing -= {pattern for pattern in missing if re.search(pattern, line)}
        if not missing:
            return lines
    pytest.fail(f"{missing} did not come:\n{''.join(lines)}")


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of the processes that work in a folder or below it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "cwd").resolve().is_relative_to(folder):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [command for command in found if command]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Copy:
    copy = repository(tmp_path_factory.mktemp("undisturbed") / "repository")
    copy.succeed(*COMMAND, "sweep", "rates")
    return copy


def test_a_sweep_leaves_a_table_a_block_and_whole_runs(undisturbed):
    copy = undisturbed
    table = pd.read_csv(copy.root / "sweeps" / "rates" / "results.csv")
    assert list(table["status"]) == ["finished"] * TRIALS
    assert list(table["epochs"]) == [EPOCHS] * TRIALS
    best = [max(figures["holdout_accuracy"] for figures in history) for history in histories(copy).values()]
    assert list(table["holdout_accuracy"]) == sorted(best, reverse=True)
    assert_runs_are_whole(copy)

    before = (copy.root / "params.yaml").read_text()
    written = copy.succeed(*COMMAND, "sweep", "rates", "--write-block", "model_2_swept")
    assert ": epoch " not in written  # nothing runs again
    assert (copy.root / "params.yaml").read_text().startswith(before)
    assert "models.model_2_swept is new" in written
    again = copy.run(*COMMAND, "sweep", "rates", "--write-block", "model_2_swept")
    assert (again.returncode, again.stderr.count("\n")) == (1, 1)
    assert "models.model_2_swept is there already" in again.stderr
    swept = copy.succeed(*COMMAND, "check", "--model", "model_1")
    assert "params.yaml is fine" in swept
    (copy.root / "params.yaml").write_text(before)


def test_a_sweep_on_two_nodes_loses_one_and_nothing_else(undisturbed, tmp_path):
    from ray.cluster_utils import Cluster

    copy = repository(tmp_path / "repository")
    node: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 1024**2}
    cluster = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
    try:
        second = cluster.add_node(**node)
        cluster.wait_for_nodes()
        process = copy.start(*COMMAND, "sweep", "rates", "--address", cluster.address)
        wait_for(process, r"trial 1: epoch 3/", r"trial 2: epoch 3/")  # one on each node
        cluster.remove_node(second, allow_graceful=False)
        rest, _ = process.communicate(timeout=600)
        assert process.returncode == 0, rest
    finally:
        cluster.shutdown()
    assert histories(copy) == histories(undisturbed)
    assert times_begun(copy) == [1] * (TRIALS - 1) + [2]
    assert_runs_are_whole(copy)


def test_a_sweep_that_is_interrupted_and_then_killed_goes_on_with_the_same_command(undisturbed, tmp_path):
    copy = repository(tmp_path / "repository")
    process = copy.start(*COMMAND, "sweep", "rates")
    wait_for(process, r"trial 1: epoch 3/", r"trial 2: epoch 3/")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert processes_of(copy.root) == []
    assert set(copy.runs("demo-sweeps")["status"]) == {"KILLED"}

    process = copy.start(*COMMAND, "sweep", "rates")
    wait_for(process, r"trial [123]: finished")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = records(copy)
    assert 1 <= len(done) < TRIALS
    printed = copy.succeed(*COMMAND, "sweep", "rates")
    assert f"{len(done)} of them done" in printed
    assert printed.count(": finished") == TRIALS - len(done)
    assert histories(copy) == histories(undisturbed)
    assert records(copy).items() >= done.items()
    times_begun(copy)
    assert_runs_are_whole(copy)


def two_models(params: dict[str, Any]) -> None:
    small_models(params)
    params["active"] = ["model_1", "model_2"]


NAMES = ("model_1", "model_2", "model_1-2", "model_2-2")


def bits(copy: Copy) -> dict[str, str]:
    files = [
        path
        for name in NAMES
        for path in (f"models/{name}/model.keras", f"models/{name}/history.csv", f"results/{name}/metrics.json")
    ]
    return {path: md5(copy.root / path) for path in files}


def test_two_workers_give_the_bits_of_one_and_leave_dvc_nothing_to_do(tmp_path):
    results = []
    for workers in ("1", "2"):
        copy = copy_of_repository(tmp_path / workers)
        copy.edit(two_models)
        copy.commit()
        printed = copy.succeed(*COMMAND, "train", "--all", "--seeds", "2", "--workers", workers, "--cores", "1")
        assert f"4 trainings, {workers} at once, 1 cores each" in printed
        assert copy.would_run() == set()
        assert "Data and pipelines are up to date." in copy.succeed("dvc", "status")
        assert processes_of(copy.root) == []
        results.append(bits(copy))
    assert results[0] == results[1]
    assert set(copy.runs()["status"]) == {"FINISHED"}
    assert set(copy.runs()["tags.mlflow.runName"]) == set(NAMES)


def test_interrupted_trainings_end_and_leave_no_process(tmp_path):
    def slow(params: dict[str, Any]) -> None:
        two_models(params)
        params["profiles"]["demo"]["training"]["epochs"] = 2000
        params["models"]["model_2"]["keeps"] = []
        for key in ("early_stopping", "reduce_learning_rate"):
            del params["models"]["model_2"][key]

    copy = copy_of_repository(tmp_path / "repository")
    copy.edit(slow)
    copy.commit()
    process = copy.start(*COMMAND, "train", "--all", "--workers", "2")
    wait_for(process, r"model_1 .*epoch +2/2000", r"model_2 .*epoch +2/2000")
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=180)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    assert processes_of(copy.root) == []
    assert set(copy.runs()["status"]) == {"KILLED"}
    assert {path.parent.name for path in copy.root.glob("checkpoints/*/*.checkpoint")} == {"model_1", "model_2"}


def test_asha_stops_a_trial_that_is_worse_than_those_of_an_earlier_call():
    from tiny_imagenet import cluster
    from tiny_imagenet.sweep_params import Sweep

    tune = cluster.require_ray().tune
    values = {
        "model": "model_2",
        "epochs": 8,
        "search": {"batch_size": {"grid": [8, 16]}},
        "stop_early": {"grace_epochs": 2, "reduction_factor": 2},
    }
    known = {number: [{"holdout_accuracy": 0.5}] * 8 for number in (1, 2, 3)}
    for accuracy, expected in ((0.4, "STOP"), (0.6, "CONTINUE")):
        scheduler = cluster.scheduler(tune, Sweep.model_validate(values), known)
        trial = type("Trial", (), {"trial_id": "new"})()
        scheduler.on_trial_add(None, trial)
        answers = [
            scheduler.on_trial_result(None, trial, {"epoch": epoch, "holdout_accuracy": accuracy}) for epoch in (1, 2)
        ]
        assert answers == ["CONTINUE", expected]
