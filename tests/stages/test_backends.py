"""The same stages on Keras's other backends, where they are installed: train, be killed, go on, evaluate."""

import importlib.util
import json
import os
import signal
import sys

import pytest
from repository_copy import Copy, copy_of_repository, tiny
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
def test_model_2_trains_goes_on_after_a_kill_and_is_evaluated(backend, copy, monkeypatch):
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
