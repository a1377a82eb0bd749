"""The same stages on Keras's other backends, where they are installed: train, be killed, go on, evaluate."""

import importlib.util
import json
import os
import shutil
import signal
import sys

import numpy as np
import pandas as pd
import pytest
from repository_copy import Copy, copy_of_repository, tiny
from shared_training import as_processes
from stopped import Training, wait_for_epoch

MODEL = "model_2"
pytestmark = pytest.mark.e2e


def small_model_2(params: dict) -> None:
    tiny(params)
    params["profiles"]["demo"]["training"]["epochs"] = 4
    params["models"][MODEL]["build"] |= {"filters": [4, 4, 4], "dense_units": 16}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Copy:
    copy = copy_of_repository(tmp_path_factory.mktemp("backends") / "repository")
    copy.edit(small_model_2)
    copy.succeed("git", "init", "--quiet")
    copy.succeed("dvc", "repro", "cache", f"architecture@{MODEL}")
    return copy


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_model_2_trains_resumes_after_a_kill_and_is_evaluated(backend, copy, monkeypatch):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    monkeypatch.setenv("KERAS_BACKEND", backend)
    train = (sys.executable, "-m", "stages.train", MODEL)
    training = Training(copy, MODEL, 4)
    copy.succeed(*train)
    expected = training.outputs()
    assert training.record()["backend"].startswith(f"{backend} ")

    process = copy.start(*train)
    wait_for_epoch(process, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    copy.succeed(*train)
    assert training.outputs() == expected
    assert training.record()["resumed_from"][0] >= 2

    copy.succeed(sys.executable, "-m", "stages.evaluate", MODEL)
    metrics = json.loads((copy.root / "results" / MODEL / "metrics.json").read_text())
    assert metrics["epochs"] == 4


def test_two_processes_share_a_training_and_resume_after_one_was_killed(copy, monkeypatch):
    """The first alone writes files and the run; without one of them the other ends, too."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    train = (sys.executable, "-m", "stages.train", MODEL)
    training = Training(copy, MODEL, 4)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    copy.succeed(*train)
    alone = pd.read_csv(training.folder / "history.csv")

    def start_both() -> list:
        return [copy.start(*train, **environment) for environment in as_processes(2)]

    def finish_both() -> dict[str, str]:
        processes = start_both()
        printed = [process.communicate(timeout=900)[0] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)
        return training.outputs()

    runs_before = len(training.own_runs())
    expected = finish_both()
    assert len(training.own_runs()) == runs_before + 1
    assert training.record()["devices"] == 2
    together = pd.read_csv(training.folder / "history.csv")
    np.testing.assert_allclose(together["loss"], alone["loss"], rtol=1e-3)  # Adam, and dropout between

    first, second = start_both()
    wait_for_epoch(first, 2)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    second.communicate(timeout=300)
    assert second.returncode != 0
    assert finish_both() == expected
    assert training.record()["resumed_from"][0] >= 2


def test_processes_with_different_params_refuse_to_train(copy, tmp_path, monkeypatch):
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    other = Copy(tmp_path / "other")
    shutil.copytree(copy.root, other.root, ignore=shutil.ignore_patterns("mlruns", "mlflow.db*", "checkpoints"))
    other.edit(lambda params: params.update(seed=99))
    train = (sys.executable, "-m", "stages.train", MODEL)
    processes = [
        one.start(*train, **environment) for one, environment in zip((copy, other), as_processes(2), strict=True)
    ]
    for process in processes:
        printed, _ = process.communicate(timeout=900)
        assert process.returncode == 1
        assert "error: the processes differ in params, data, code, versions or processor" in printed
