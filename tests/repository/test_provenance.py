"""The origin of a training: its key, tags and environment."""

import shutil
from pathlib import Path

import pytest
from made_results import ROOT, VALUES

from tiny_imagenet.config.params import parse_params
from tiny_imagenet.repository import provenance
from tiny_imagenet.repository.provenance import training_key
from tiny_imagenet.repository.records import GitState, TrainingSetup

PARAMS = parse_params(VALUES)
JOB = PARAMS.job("model_2")
HASHES = {"data/cache": "a.dir", "src/tiny_imagenet/training": "b.dir", "weights": "c"}
NUMERICS = {"device": ["cpu", "some", 2], "threads": "2 cores", "backend": "tensorflow 2", "keras": "3"}
KEY = training_key(JOB, HASHES, NUMERICS)


@pytest.mark.parametrize("path", HASHES)
def test_other_data_code_or_weights_change_the_key(path):
    assert training_key(JOB, HASHES | {path: "changed"}, NUMERICS) != KEY


@pytest.mark.parametrize("name", NUMERICS)
def test_another_machine_or_version_changes_the_key(name):
    assert training_key(JOB, HASHES, NUMERICS | {name: "changed"}) != KEY


@pytest.mark.parametrize("change", [{"seed": 77}, {"determinism": "fast"}, {"devices": 2}, {"augmentation": "none"}])
def test_params_that_affect_the_training_change_the_key(change):
    changed = parse_params(VALUES | change)
    assert (training_key(changed.job("model_2"), HASHES, NUMERICS) != KEY) == (change.get("augmentation") is None)


def test_the_same_inputs_in_any_order_give_the_same_key():
    assert training_key(parse_params(VALUES).job("model_2"), dict(reversed(HASHES.items())), NUMERICS) == KEY
    assert training_key(PARAMS.job("model_1"), HASHES, NUMERICS) != KEY


def test_the_tags_of_a_run_name_its_origin():
    setup = TrainingSetup.model_construct(
        stage="train@model_1",
        git=GitState(commit=None, dirty=None),
        hashes={"params": "12", "data": "34"},
        device="CPU",
        platform="Linux",
        dependencies={"a.py": "56"},
        versions={"keras": "3"},
    )
    assert provenance.run_tags(setup) == {
        "dvc.stage": "train@model_1", "git.commit": "none", "git.dirty": "unknown", "params_hash": "12",
        "data_hash": "34", "hardware": "CPU", "platform": "Linux", "dependency.a.py": "56", "version.keras": "3",
    }  # fmt: skip
    dirty = setup.model_copy(update={"git": GitState(commit="78", dirty=True)})
    assert provenance.run_tags(dirty)["git.commit"] == "78"
    assert provenance.run_tags(dirty)["git.dirty"] == "true"


def test_another_package_changes_the_hash_of_the_environment(tmp_path, monkeypatch):
    before = provenance.environment_hash()
    assert provenance.environment_hash() == before
    package = tmp_path / "some_package-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert provenance.environment_hash() != before


@pytest.fixture
def set_up(tmp_path, monkeypatch):
    """Return a function that returns the hashes of a training, in a folder with data, code and dvc.yaml."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    for name in ("data/cache/train_images.npy", "data/cache/train_labels.npy", "data/cache/val_images.npy",
                 "data/cache/val_labels.npy", "data/cache/classes.csv", "src/tiny_imagenet/training/train.py",
                 "data/overview/report.json"):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(provenance.runtime, "device", lambda: "CPU of a test")
    monkeypatch.setattr(provenance.runtime, "backend", lambda: "keras of a test")
    monkeypatch.setattr(provenance.runtime, "numerics", lambda: NUMERICS)
    monkeypatch.setattr(provenance.devices, "count", lambda number: number)
    monkeypatch.setattr(provenance, "environment_hash", lambda: "of a test")  # the real one takes a second

    def set_up() -> dict[str, str]:
        images = {"classes": 10, "train": 40, "val": 20}
        setup = provenance.training_setup(
            PARAMS, JOB, images=images, preprocessing="rescale", architecture="", weights=None, weights_file=None
        )
        return setup.hashes

    return set_up


@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy", "val_images.npy", "val_labels.npy"])
def test_other_images_or_labels_change_the_data_hash_and_the_key(name, set_up):
    before = set_up()
    assert set_up() == before
    Path("data/cache", name).write_text("changed")
    after = set_up()
    assert {key for key in before if before[key] != after[key]} == {"data", "training"}


@pytest.mark.parametrize(
    ("name", "changed"),
    [("src/tiny_imagenet/training/train.py", {"training"}), ("data/overview/report.json", set())],
)
def test_other_code_changes_the_key_only_and_another_report_changes_nothing(name, changed, set_up):
    before = set_up()
    Path(name).write_text("changed")
    after = set_up()
    assert {key for key in before if before[key] != after[key]} == changed
