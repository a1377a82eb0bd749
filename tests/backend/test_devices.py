"""A training on two CPU devices, or in two processes, gives the losses of a training on one device."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_training import MARK, as_processes

from tiny_imagenet.backend import devices
from tiny_imagenet.backend.devices import BatchShare, WholeBatch
from tiny_imagenet.common.errors import UserError

ROOT = Path(__file__).parents[2]
ROUNDING = 1e-5
"""Relative. Two devices add the numbers of a batch in another order than one."""
# Plain gradient descent: Adam divides by the size of a gradient, and would make a full step of a rounding error.
SGD = {"optimizer": {"name": "sgd", "learning_rate": 0.01}, "epochs": 2}
NORMALIZED = SGD | {
    "architecture": "deep_conv_dropout",
    "build": {"filters": [4, 4, 4], "dense_units": 16, "dropout": 0.0},
    "batches_per_epoch": 1,
}
"""A model with batch normalization, trained for two steps."""
REGULARIZED = {"build": {"filters": [4, 4], "dense_units": 16, "l2": 0.01}, "label_smoothing": 0.1}
PARTS = {"holdout_per_class": 2, "paper_protocol_every_epoch": True}
needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")


def start(backend: str, environment: dict[str, str] | None = None, **settings: Any) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "tests" / "shared_training.py"), json.dumps(settings)]
    paths = [str(ROOT / "tests"), str(ROOT / "src")]
    variables = os.environ | {"KERAS_BACKEND": backend, "PYTHONPATH": os.pathsep.join(paths)} | (environment or {})
    return subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=600)
    marked = [line for line in output.splitlines() if line.startswith(MARK)]
    assert process.returncode == 0, output + errors
    return json.loads(marked[-1].removeprefix(MARK))


def trained(backend: str, **settings: Any) -> dict[str, Any]:
    return finish(start(backend, **settings))


def refusal(backend: str, environment: dict[str, str] | None = None, **settings: Any) -> str:
    process = start(backend, environment, **settings)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 1, errors
    assert "Traceback" not in errors
    return errors.strip().splitlines()[-1]


def assert_same_history(result: dict[str, Any], expected: dict[str, Any]) -> None:
    assert result["history"].keys() == expected["history"].keys()
    for name, values in expected["history"].items():
        np.testing.assert_allclose(result["history"][name], values, rtol=ROUNDING, err_msg=name)
    np.testing.assert_allclose(result["predicted"], expected["predicted"], rtol=1e-3)


@pytest.fixture
def no_processes(monkeypatch):
    for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID"):
        monkeypatch.delenv(f"KERAS_DISTRIBUTION_{name}", raising=False)


class TestBatchShare:
    @pytest.mark.parametrize("num_images", [16, 8, 7, 5, 2, 1])
    def test_each_image_is_loaded_by_one_process_or_by_all(self, num_images):
        images = np.arange(num_images)
        parts = [BatchShare(devices=4, processes=2, process=process).part(images) for process in range(2)]
        if num_images % 4 == 0:
            assert np.concatenate(parts).tolist() == images.tolist()
            assert len(parts[0]) == len(parts[1])
        else:
            assert [part.tolist() for part in parts] == [images.tolist()] * 2

    def test_only_a_batch_that_cannot_be_divided_equally_is_marked(self):
        share = BatchShare(devices=2)
        batch = (np.zeros((3, 2)), np.zeros(3))
        assert all(isinstance(array, WholeBatch) for array in share.marked(batch, 3))
        assert share.marked(batch, 4) is batch
        assert BatchShare().marked(batch, 3) is batch

    def test_a_batch_that_the_devices_cannot_share_is_refused(self, keras):
        with pytest.raises(UserError, match="multiple of 3"):
            BatchShare(devices=3).check(64, {"training": 640})

    def test_a_last_batch_that_they_cannot_share_is_refused_on_tensorflow(self, keras):
        share = BatchShare(devices=2)
        share.check(4, {"training": 14, "held-out": 0})
        with pytest.raises(UserError, match=r"9 validation images leave a last batch of 1.*KERAS_BACKEND=jax"):
            share.check(4, {"training": 14, "validation": 9})


class TestDevices:
    def test_more_devices_than_available_are_refused_with_their_number(self, keras, no_processes):
        available = devices.count("all")
        message = f"devices: {available + 1} in params.yaml, but tensorflow has {available} here"
        with pytest.raises(UserError, match=message):
            devices.count(available + 1)
        assert devices.count(1) == 1

    def test_torch_is_refused(self, monkeypatch):
        monkeypatch.setattr(devices, "_backend", lambda: "torch")
        for wanted in (2, "all"):
            with pytest.raises(UserError, match="not possible on torch"):
                devices.count(wanted)
        assert devices.count(1) == 1


class TestProcesses:
    @pytest.mark.parametrize(
        "values",
        [
            {"NUM_PROCESSES": "2"},
            {"NUM_PROCESSES": "2", "PROCESS_ID": "0"},
            {"NUM_PROCESSES": "2", "PROCESS_ID": "2", "JOB_ADDRESSES": "127.0.0.1:1"},
            {"NUM_PROCESSES": "two", "PROCESS_ID": "0", "JOB_ADDRESSES": "127.0.0.1:1"},
        ],
    )
    def test_incomplete_or_invalid_variables_are_refused(self, values, monkeypatch, no_processes):
        for name, value in values.items():
            monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
        with pytest.raises(UserError, match=r"found .*KERAS_DISTRIBUTION_NUM_PROCESSES.*to 0, 1, "):
            devices.process()

    def test_without_variables_there_is_one_process(self, no_processes):
        assert devices.process() == 0
        devices.join()
        devices.require_same("anything", "value")

    def test_another_backend_than_jax_is_refused(self, monkeypatch):
        for name, value in {"NUM_PROCESSES": "2", "PROCESS_ID": "1", "JOB_ADDRESSES": "127.0.0.1:1"}.items():
            monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
        monkeypatch.setattr(devices, "_backend", lambda: "tensorflow")
        assert devices.process() == 1
        with pytest.raises(UserError, match="need KERAS_BACKEND=jax, not tensorflow"):
            devices.join()

    @pytest.mark.parametrize("address", ["127.0.0.1:1", "127.0.0.1:port", "127.0.0.1"])
    def test_an_address_where_no_process_listens_is_refused(self, address, monkeypatch):
        for name, value in {"NUM_PROCESSES": "2", "PROCESS_ID": "1", "JOB_ADDRESSES": address}.items():
            monkeypatch.setenv(f"KERAS_DISTRIBUTION_{name}", value)
        monkeypatch.setattr(devices, "_backend", lambda: "jax")
        monkeypatch.setattr(devices, "_PATIENCE_SECONDS", 0)
        with pytest.raises(UserError, match=f"the first process does not answer at '{address}'"):
            devices.join()


@pytest.mark.e2e
def test_two_tensorflow_devices_train_like_one():
    """Batch normalization normalizes over both halves of the batch."""
    one, two = (start("tensorflow", devices=number, recipe=NORMALIZED) for number in (1, "all"))
    expected, result = finish(one), finish(two)
    assert (expected["devices"], result["devices"]) == (1, 2)
    assert result["weights"] != expected["weights"]  # otherwise nothing was shared
    assert_same_history(result, expected)


@pytest.mark.e2e
@pytest.mark.parametrize("recipe", [SGD, SGD | REGULARIZED, SGD | PARTS], ids=["plain", "l2 and smoothing", "parts"])
@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=needs_jax)])
def test_two_devices_train_like_one(backend, recipe):
    expected = trained(backend, devices=1, recipe=recipe)
    result = trained(backend, devices=2, recipe=recipe)
    assert result["weights"] != expected["weights"]
    assert_same_history(result, expected)


@pytest.mark.e2e
@needs_jax
@pytest.mark.parametrize("recipe", [NORMALIZED, SGD | {"architecture": "three_conv", "build": {
    "filters": [4, 4, 4], "dense_units": 16, "dropout": 0.5}}], ids=["batch normalization", "dropout"])  # fmt: skip
def test_batch_normalization_and_dropout_on_two_jax_devices_equal_those_on_one(recipe):
    assert_same_history(trained("jax", devices=2, recipe=recipe), trained("jax", devices=1, recipe=recipe))


@pytest.mark.e2e
@needs_jax
def test_two_jax_devices_weight_a_smaller_last_batch_like_one():
    sizes = {"num_train": 195, "num_val": 93, "recipe": SGD}
    assert_same_history(trained("jax", devices=2, **sizes), trained("jax", devices=1, **sizes))


@pytest.mark.e2e
@pytest.mark.parametrize("backend", ["tensorflow", pytest.param("jax", marks=needs_jax)])
def test_a_stopped_training_on_two_devices_resumes_to_the_same_bits(backend, tmp_path):
    dropout = {"architecture": "three_conv", "build": {"filters": [4, 4, 4], "dense_units": 16, "dropout": 0.5}}
    settings = {"devices": 2, "recipe": dropout | {"early_stopping": {"monitor": "val_loss", "patience": 5,
                                                                   "restore_best_weights": True}}}  # fmt: skip
    expected = trained(backend, folder=str(tmp_path / "whole"), **settings)
    stopped = tmp_path / "stopped"
    assert trained(backend, folder=str(stopped), stop_after=2, **settings) == {"stopped": True}
    result = trained(backend, folder=str(stopped), **settings)
    assert result["resumed_from"] == [2]
    assert result["history"] == expected["history"]
    assert result["weights"] == expected["weights"]


@pytest.mark.e2e
@needs_jax
def test_more_jax_devices_than_available_are_refused():
    assert "jax has 2 here (cpu:0, cpu:1)" in refusal("jax", devices=3)


@pytest.mark.e2e
@needs_jax
@pytest.mark.parametrize("cpu_devices", [1, 2])
def test_two_processes_train_like_one_device(cpu_devices):
    sizes = {"num_train": 195, "num_val": 93, "recipe": SGD}
    running = [
        start("jax", environment, devices="all", cpu_devices=cpu_devices, **sizes) for environment in as_processes(2)
    ]
    first, second = (finish(process) for process in running)
    assert first["devices"] == 2 * cpu_devices
    assert (first["history"], first["weights"]) == (second["history"], second["weights"])
    assert_same_history(first, trained("jax", devices=1, **sizes))
