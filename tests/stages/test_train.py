"""What makes a checkpoint one of the same training, and what a training that fails leaves."""

from unittest.mock import Mock

import pytest
import yaml
from made_results import VALUES

from stages import train
from stages.train import training_key
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import parse_params

PARAMS = parse_params(VALUES)
HASHES = {"data/cache/train_images.npy": "a", "src/tiny_imagenet/training/train.py": "b", "weights": "c"}
NUMERICS = {"device": ["cpu", "some", 2], "threads": "2 cores", "backend": "tensorflow 2", "keras": "3"}
KEY = training_key(PARAMS, "model_2", HASHES, NUMERICS)


@pytest.mark.parametrize("path", HASHES)
def test_other_data_code_or_weights_make_another_training(path):
    assert training_key(PARAMS, "model_2", HASHES | {path: "changed"}, NUMERICS) != KEY


@pytest.mark.parametrize("name", NUMERICS)
def test_another_machine_or_version_makes_another_training(name):
    assert training_key(PARAMS, "model_2", HASHES, NUMERICS | {name: "changed"}) != KEY


@pytest.mark.parametrize("change", [{"seed": 77}, {"determinism": "fast"}, {"devices": 2}, {"augmentation": "none"}])
def test_other_params_make_another_training(change):
    changed = parse_params(VALUES | change)
    assert (training_key(changed, "model_2", HASHES, NUMERICS) != KEY) == (change.get("augmentation") is None)


def test_the_same_is_the_same_training_and_another_model_is_not():
    assert training_key(parse_params(VALUES), "model_2", dict(reversed(HASHES.items())), NUMERICS) == KEY
    assert training_key(PARAMS, "model_1", HASHES, NUMERICS) != KEY


def test_a_training_that_fails_leaves_why_and_one_that_does_not_takes_it_away(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(VALUES))
    why = tmp_path / "checkpoints" / "model_2.failed"

    for error, said in [(UserError("NaN in epoch 3"), "NaN in epoch 3\n"), (MemoryError(), "MemoryError\n")]:
        monkeypatch.setattr(train, "_train", Mock(side_effect=error))
        with pytest.raises(type(error)):
            train.main("model_2")
        assert why.read_text() == said
    monkeypatch.setattr(train, "_train", lambda *_: None)
    train.main("model_2")
    assert not why.exists()
