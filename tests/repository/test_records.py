"""Records: files survive a round trip, and a damaged file is refused with a remedy."""

import json
import math

import pytest

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.repository.records import Architecture, Metrics

COUNTS = {"num_images": 10, "num_train_images": 20, "epochs": 3, "best_epoch": 2}
METRICS = {name: 0.5 for name, field in Metrics.model_fields.items() if field.is_required()} | COUNTS
ARCHITECTURE = {
    "parameters": 12,
    "parameters_200_classes": 34,
    "batch_normalization_layers": 0,
    "layers": [{"name": "dense", "type": "Dense", "output_shape": [10], "parameters": 12}],
    "model_md5": "0" * 32,
}


def test_a_record_survives_a_round_trip_in_the_order_of_its_class(tmp_path):
    path = tmp_path / "architecture.json"
    record = Architecture(**dict(reversed(ARCHITECTURE.items())))
    record.write(path)
    assert Architecture.read(path) == record
    assert list(json.loads(path.read_text())) == list(Architecture.model_fields)


def test_values_that_are_not_set_are_not_written(tmp_path):
    Metrics(**METRICS).write(tmp_path / "metrics.json")
    assert json.loads((tmp_path / "metrics.json").read_text()) == METRICS


def test_numbers_keep_all_digits(tmp_path):
    for value in (0.1 + 0.2, 1e-05, 5e-324, 1 / 3):
        Metrics(**METRICS | {"val_loss": value}).write(tmp_path / "metrics.json")
        assert Metrics.read(tmp_path / "metrics.json").val_loss == value
        assert f'"val_loss": {value!r}' in (tmp_path / "metrics.json").read_text()


def test_the_accuracy_as_served_is_that_of_one_view():
    metrics = Metrics(**METRICS)
    assert metrics.val_accuracy_as_served == metrics.val_accuracy
    two_views = metrics.model_copy(update={"val_accuracy_one_view": 0.125, "num_views": 2})
    assert two_views.val_accuracy_as_served == 0.125


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "metrics.json cannot be read"),
        ("[]", "metrics.json cannot be read"),
        (json.dumps({key: METRICS[key] for key in METRICS if key != "val_loss"}), "val_loss: Field required"),
        (json.dumps(METRICS | {"val_accuracy": "0.5"}), "val_accuracy: Input should be a valid number"),
        (json.dumps(METRICS | {"val_accuracy": 1.5}), "val_accuracy: Input should be less than or equal to 1"),
        (json.dumps(METRICS | {"val_accuracy": math.nan}), "val_accuracy: Input should be"),
        (json.dumps(METRICS | {"epochs": 2.5}), "epochs: Input should be a valid integer"),
    ],
)
def test_a_damaged_file_is_refused_with_the_key_and_a_remedy(tmp_path, content, message):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        Metrics.read(path)
    assert message in str(caught.value)
    assert f"`rm -f {path}` and `dvc checkout {path}` restore it" in str(caught.value)
    with pytest.raises(UserError, match="run `dvc repro`"):
        Metrics.read(path, remedy="run `dvc repro`")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.json cannot be read"):
        Architecture.read(tmp_path / "nothing.json")
