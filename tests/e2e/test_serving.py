"""The model of a run in MLflow, served by MLflow: plain pixels in, the same probabilities out as from `model.keras`."""

import json
from functools import partial

import numpy as np
import pytest
import requests
from servers import HOST, Server, answers, free_port

MODEL = "model_2"
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def served(made, tmp_path_factory):
    run = json.loads((made.root / "models" / MODEL / "run.json").read_text())["run_id"]
    port, log = free_port(), tmp_path_factory.mktemp("served") / "log"
    command = ["mlflow", "models", "serve", "-m", f"runs:/{run}/model", "--env-manager", "local", "--port", str(port)]
    is_ready = partial(answers, f"http://{HOST}:{port}/ping")
    with Server(command, port, is_ready, made.root, log, made.environment()).running() as server:
        yield server


def test_images_as_json_get_the_probabilities_of_the_kept_model(served, made, keras):
    images = np.load(made.root / "data" / "cache" / "val_images.npy")[:2]
    answer = requests.post(f"{served.url}/invocations", json={"inputs": images.tolist()}, timeout=60)
    assert answer.status_code == 200, answer.text
    kept = keras.models.load_model(made.root / "models" / MODEL / "model.keras", compile=False)
    expected = kept.predict(images, verbose=0)
    np.testing.assert_allclose(answer.json()["predictions"], expected, rtol=0, atol=1e-6)
    assert expected.shape == (2, 10)
    assert np.ptp(expected, axis=0).max() > 1e-4  # the two are not answered alike


def test_images_of_another_size_are_refused(served, made):
    images = np.load(made.root / "data" / "cache" / "val_images.npy")[:2, :32]
    answer = requests.post(f"{served.url}/invocations", json={"inputs": images.tolist()}, timeout=60)
    assert answer.status_code == 400
    assert "(-1, 64, 64, 3)" in answer.text
