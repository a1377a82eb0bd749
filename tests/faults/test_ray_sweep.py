"""Sweeps on Ray: what one leaves, a node that is lost, an interrupt, a kill, and bad trials."""

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray_runs import COMMAND, lose, processes_of, ray_installed, two_nodes, wait_for
from repository_copy import Copy, copy_of_repository
from standin import small_models

pytestmark = pytest.mark.faults
EPOCHS = 40  # of a tenth of a second or more: time enough to be stopped in the middle
TRIALS = 3


@pytest.fixture(scope="module", autouse=True)
def _ray():
    with ray_installed():
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


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Copy:
    copy = repository(tmp_path_factory.mktemp("undisturbed") / "repository")
    copy.succeed(*COMMAND, "sweep", "rates")
    return copy


def test_a_sweep_leaves_a_table_a_block_and_complete_runs(undisturbed):
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
    assert "models.model_2_swept exists already" in again.stderr
    swept = copy.succeed(*COMMAND, "check", "--model", "model_1")
    assert "params.yaml is valid" in swept
    (copy.root / "params.yaml").write_text(before)


def test_a_sweep_on_two_nodes_loses_one_and_nothing_else(undisturbed, tmp_path):
    copy = repository(tmp_path / "repository")
    with two_nodes() as (cluster, second):
        process = copy.start(*COMMAND, "sweep", "rates", "--address", cluster.address)
        wait_for(process, r"trial 1: epoch 3/", r"trial 2: epoch 3/")  # one on each node
        lose(cluster, second)
        rest, _ = process.communicate(timeout=600)
    assert process.returncode == 0, rest
    assert histories(copy) == histories(undisturbed)
    assert times_begun(copy) == [1] * (TRIALS - 1) + [2]
    assert_runs_are_whole(copy)


def test_an_interrupted_and_killed_sweep_is_resumed_by_the_same_command(undisturbed, tmp_path):
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


def test_a_trial_that_diverges_is_named_and_the_others_continue(tmp_path):
    def diverging(params: dict[str, Any]) -> None:
        small_models(params)
        params["models"]["model_1"]["optimizer"] = {"name": "sgd", "learning_rate": 0.1}
        # Each step multiplies the weights by 1 - 2 * 1000 * 0.1: their squares overflow within ten.
        params["sweeps"] = {
            "penalties": {
                "model": "model_1",
                "holdout_per_class": 1,
                "epochs": 4,
                "search": {"build.l2": {"grid": [1000.0, 0.0]}},
                "stop_early": {"grace_epochs": 3, "reduction_factor": 2},
            }
        }

    copy = copy_of_repository(tmp_path / "repository")
    copy.edit(diverging)
    copy.commit()
    printed = copy.succeed(*COMMAND, "sweep", "penalties")
    assert "trial 1: failed: " in printed
    assert "the training has diverged" in printed
    table = pd.read_csv(copy.root / "sweeps" / "penalties" / "results.csv").set_index("trial")
    assert dict(table["status"]) == {1: "failed", 2: "finished"}
    runs = copy.runs("demo-sweeps").set_index("tags.mlflow.runName")
    assert dict(runs["status"]) == {"penalties": "FINISHED", "penalties-1": "FAILED", "penalties-2": "FINISHED"}


def test_asha_stops_a_trial_that_is_worse_than_those_of_an_earlier_call():
    from tiny_imagenet.parallel.cluster.machines import require
    from tiny_imagenet.parallel.cluster.trials import scheduler as asha_of
    from tiny_imagenet.parallel.sweep.schema import Sweep

    tune = require().tune
    values = {
        "model": "model_2",
        "epochs": 8,
        "search": {"batch_size": {"grid": [8, 16]}},
        "stop_early": {"grace_epochs": 2, "reduction_factor": 2},
    }
    known = {number: [{"holdout_accuracy": 0.5}] * 8 for number in (1, 2, 3)}
    for accuracy, expected in ((0.4, "STOP"), (0.6, "CONTINUE")):
        scheduler = asha_of(tune, Sweep.model_validate(values), known)
        trial = type("Trial", (), {"trial_id": "new"})()
        scheduler.on_trial_add(None, trial)
        answers = [
            scheduler.on_trial_result(None, trial, {"epoch": epoch, "holdout_accuracy": accuracy}) for epoch in (1, 2)
        ]
        assert answers == ["CONTINUE", expected]
