"""What a training that fails leaves behind."""

from unittest.mock import Mock

import pytest
import yaml
from made_results import VALUES

from stages import train
from tiny_imagenet.common.errors import UserError


def test_a_failed_training_records_the_reason_and_a_successful_one_removes_it(tmp_path, monkeypatch):
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
