"""What a training that fails leaves behind."""

from types import SimpleNamespace
from unittest.mock import MagicMock, Mock

import pytest
import yaml
from made_results import VALUES

from stages import train
from tiny_imagenet.backend.runtime import Device
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import parse_params


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


@pytest.mark.parametrize(("kind", "is_said"), [("cpu", True), ("gpu", False)])
def test_a_training_says_that_its_precision_will_be_slow_on_a_cpu(kind, is_said, keras, tmp_path, monkeypatch, capsys):
    values = {**VALUES, "models": VALUES["models"] | {"model_2": {**VALUES["models"]["model_2"]}}}
    values["models"]["model_2"]["precision"] = "mixed_bfloat16"
    (tmp_path / "cpuinfo").write_text("model name\t: Old CPU\nflags\t\t: avx2\n")
    monkeypatch.setattr(train.processor, "_CPUINFO", tmp_path / "cpuinfo")
    for name in ("workspace.require_architecture", "runtime.prepare", "devices.join", "provenance.training_setup"):
        monkeypatch.setattr(f"stages.train.{name}", MagicMock())
    packed = SimpleNamespace(num_classes=10, train=[0], val=[0])
    monkeypatch.setattr("tiny_imagenet.input_pipeline.packed.open_packed", Mock(return_value=packed))
    monkeypatch.setattr(train.runtime, "device", lambda: Device(kind, "one", 1, 1.0))
    monkeypatch.setattr("tiny_imagenet.training.checkpoint.open_checkpoint", Mock(side_effect=UserError("far enough")))
    params = parse_params(values)
    with pytest.raises(UserError, match="far enough"):
        train._train(params, params.job("model_2"))
    assert ("model_2: mixed_bfloat16 will be slow: Old CPU has" in capsys.readouterr().out) == is_said
