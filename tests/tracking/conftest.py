"""Stores and a small model that the tests of this room share. A new store takes 5 s to make."""

import shutil

import numpy as np
import pytest

from tiny_imagenet.tracking import store


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch):
    for name in ("TRACKING_URI", "REGISTRY_URI", "RUN_ID", "EXPERIMENT_ID", "EXPERIMENT_NAME"):
        monkeypatch.setenv(f"MLFLOW_{name}", "")  # so that the value that MLflow sets is removed after the test
        monkeypatch.delenv(f"MLFLOW_{name}")


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """Return an empty database of MLflow. The name of its folder needs quotes in an address."""
    root = tmp_path_factory.mktemp("made in") / "feature%2Ffoo"
    root.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")
        store.connect(root)
    return root / "mlflow.db"


@pytest.fixture(scope="module")
def root(tmp_path_factory, empty_store):
    """Return the root of a repository with a store."""
    root = tmp_path_factory.mktemp("a repository")
    shutil.copy(empty_store, root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "")
        store.connect(root)
        yield root


@pytest.fixture
def client(root):
    """Return a client of the store in `root`."""
    import mlflow

    return mlflow.MlflowClient(store.tracking_uri(root))


@pytest.fixture(scope="session")
def small(tmp_path_factory, keras):
    """Return a model, its file, and what is logged with it: the arguments of `add_model`."""
    from tiny_imagenet.models import saved_model
    from tiny_imagenet.models.registry import build_classifier

    model = build_classifier("two_conv", input_shape=(64, 64, 3), num_classes=2, filters=[2], dense_units=2)
    path = tmp_path_factory.mktemp("small") / "model.keras"
    classes = {"wnids": ["n1", "n2"], "class_names": ["one", "two"]}
    saved_model.save_model(model, path, **classes)
    return model, path, ["keras", "numpy"], classes, np.zeros((1, 64, 64, 3), np.uint8)
