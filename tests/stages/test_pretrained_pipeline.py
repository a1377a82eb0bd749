"""A pretrained model through the pipeline: weights from a file, the head first, then all, a kill, its own table."""

import os
import signal
import sys
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from repository_copy import Copy, copy_of_repository, tiny
from stopped import Training, wait_for_epoch

MODEL = "efficientnet_b0"
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def weights(keras, tmp_path_factory) -> str:
    """Return a file in the layout of Keras's own, with random weights: ImageNet's would have to be downloaded."""
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    keras.utils.set_random_seed(1)
    backbone = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(64, 64, 3))
    path = tmp_path_factory.mktemp("weights") / "notop.h5"
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, backbone)
    return str(path)


@pytest.fixture(scope="module")
def copy(weights, tmp_path_factory) -> Copy:
    def with_weights(params: dict[str, Any]) -> None:
        tiny(params)
        training = params["profiles"]["demo"]["training"]
        del training["weights"]
        training["epochs"] = 4
        params["active"] = [MODEL]
        params["models"][MODEL] |= {"weights": weights, "build": {"input_size": 64}}
        params["models"][MODEL]["fine_tuning"]["head_epochs"] = 2

    copy = copy_of_repository(tmp_path_factory.mktemp("transfer") / "repository")
    copy.edit(with_weights)
    copy.commit()
    return copy


def test_a_pretrained_model_trains_in_two_phases_resumes_and_has_its_own_table(copy):
    training = Training(copy, MODEL, 4)
    copy.succeed("dvc", "repro")
    expected = training.outputs()
    history = pd.read_csv(training.folder / "history.csv")
    assert list(history["phase"]) == [1, 1, 2, 2]
    assert np.isfinite(history["loss"]).all()
    results = (copy.root / "reports" / "results.md").read_text()
    assert "## Pretrained on ImageNet" in results
    assert "Do not compare them with models from scratch" in results

    training.forget()
    process = copy.start(sys.executable, "-m", "stages.train", MODEL)
    wait_for_epoch(process, 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    training.run()
    assert training.outputs() == expected
    assert training.record()["resumed_from"][0] >= 3
