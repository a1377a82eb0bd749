"""Many trainings on Ray: two workers do what one does, an interrupt, a node that is lost, one that lacks the files."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from ray_runs import COMMAND, lose, processes_of, ray_installed, two_nodes, wait_for
from repository_copy import Copy, copy_of_repository
from standin import small_models

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import md5
from tiny_imagenet.parallel.cluster.machines import connected

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module", autouse=True)
def _ray():
    with ray_installed():
        yield


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


def test_two_workers_give_the_same_bits_as_one_and_dvc_has_nothing_to_do(tmp_path):
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


def long_trainings(params: dict[str, Any], epochs: int) -> None:
    two_models(params)
    params["profiles"]["demo"]["training"]["epochs"] = epochs
    for key in ("early_stopping", "reduce_learning_rate"):
        del params["models"]["model_2"][key]


def test_interrupted_trainings_end_and_leave_no_process(tmp_path):
    copy = copy_of_repository(tmp_path / "repository")
    copy.edit(lambda params: long_trainings(params, 2000))
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


def test_a_killed_command_leaves_no_process_and_is_resumed_by_the_same_command(tmp_path):
    copy = copy_of_repository(tmp_path / "repository")
    copy.edit(lambda params: long_trainings(params, 60))
    copy.commit()
    command = (*COMMAND, "train", "--all", "--workers", "2", "--cores", "1")
    process = copy.start(*command)
    wait_for(process, r"model_1 .*epoch +2/60", r"model_2 .*epoch +2/60")
    os.kill(process.pid, signal.SIGKILL)  # it alone, as the kernel does that has no memory left
    process.communicate(timeout=180)
    deadline = time.monotonic() + 90
    while (left := processes_of(copy.root)) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left == []
    copy.succeed(*command)
    assert copy.would_run() == set()
    for model in ("model_1", "model_2"):
        record = json.loads((copy.root / "models" / model / "run.json").read_text())
        assert record["resumed_from"][0] >= 2


def test_a_training_whose_node_is_lost_resumes_on_another_node(tmp_path):
    copy = copy_of_repository(tmp_path / "repository")
    copy.edit(lambda params: long_trainings(params, 80))
    copy.commit()
    with two_nodes() as (nodes, second):
        process = copy.start(*COMMAND, "train", "--all", "--address", nodes.address)
        wait_for(process, r"model_1 .*epoch +1/80", r"model_2 .*epoch +1/80")  # one on each node
        lose(nodes, second)
        rest, _ = process.communicate(timeout=600)
    assert process.returncode == 0, rest
    assert copy.would_run() == set()
    resumed = {
        model: json.loads((copy.root / "models" / model / "run.json").read_text())["resumed_from"]
        for model in ("model_1", "model_2")
    }
    (after,) = [epoch for epochs in resumed.values() for epoch in epochs]  # one of the two, once
    assert 1 <= after < 80
    for model in resumed:
        assert list(pd.read_csv(copy.root / "models" / model / "history.csv")["epoch"]) == list(range(1, 81))
    runs = copy.runs()
    assert sorted(runs["tags.mlflow.runName"]) == ["model_1", "model_2"]
    assert set(runs["status"]) == {"FINISHED"}


def test_a_machine_that_does_not_see_the_files_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "touch", lambda *_: None)  # as on a disk of its own
    with connected(None, tmp_path) as machines:
        with pytest.raises(UserError, match=f"does not see {tmp_path}/checkpoints: every machine"):
            machines.require_shared(tmp_path / "checkpoints")
        monkeypatch.undo()
        machines.require_shared(tmp_path / "checkpoints")
    assert list((tmp_path / "checkpoints").iterdir()) == []
