"""The `.keras` file: the same bytes for the same model, and a clear error if it cannot be read."""

import json
import re
import time
import zipfile

import numpy as np
import pytest
from made_zips import DAMAGE, with_header

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.models.saved_model import load_model, read_metadata, save_model

WNIDS = ["n01443537", "n01629819"]
NAMES = ["goldfish", "Salamandra, »européen«"]


@pytest.fixture(scope="module")
def model(keras):
    from tiny_imagenet.models.registry import build_classifier

    model = build_classifier("two_conv", input_shape=(64, 64, 3), num_classes=2, filters=[2], dense_units=3)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.train_on_batch(np.zeros((2, 64, 64, 3), np.uint8), np.array([0, 1]))  # gives the optimizer a state
    return model


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "new" / "folder" / "model.keras"
    save_model(model, path, wnids=WNIDS, class_names=NAMES)
    return path


def test_the_same_model_saved_a_second_later_has_the_same_bytes(model, saved, tmp_path):
    time.sleep(1.1)  # Keras writes seconds
    save_model(model, tmp_path / "model.keras", wnids=WNIDS, class_names=NAMES)
    assert (tmp_path / "model.keras").read_bytes() == saved.read_bytes()


def test_the_file_contains_no_memory_address(saved):
    with zipfile.ZipFile(saved) as archive:
        config = archive.read("config.json").decode()
    ids = [int(number) for number in re.findall(r'"shared_object_id": (\d+)', config)]
    assert max(ids, default=0) < 1000


def test_only_the_model_is_left_in_the_folder(saved):
    assert [file.name for file in saved.parent.iterdir()] == ["model.keras"]


def test_a_failed_save_leaves_the_old_file_and_nothing_else(model, saved, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(saved.read_bytes())
    with pytest.raises(TypeError):
        save_model(model, path, wnids=WNIDS, class_names=[object()])  # type: ignore[list-item]
    assert path.read_bytes() == saved.read_bytes()
    assert list(tmp_path.iterdir()) == [path]


def test_plain_keras_loads_it_and_gives_the_same_bits(keras, model, saved):
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    expected = model.predict_on_batch(images)
    np.testing.assert_array_equal(keras.saving.load_model(saved).predict_on_batch(images), expected)
    np.testing.assert_array_equal(load_model(saved).predict_on_batch(images), expected)


def test_the_optimizers_state_is_not_saved(model, saved):
    assert not load_model(saved).compiled
    with zipfile.ZipFile(saved) as archive:
        assert b"optimizer" not in archive.read("model.weights.h5")
        assert not json.loads(archive.read("config.json")).get("compile_config")


def test_saving_does_not_change_the_model(model, saved):
    assert model.compiled
    assert model.optimizer.iterations == 1


def test_metadata_names_the_classes_in_label_order(keras, saved):
    metadata = read_metadata(saved)
    assert metadata["wnids"] == WNIDS
    assert metadata["class_names"] == NAMES
    assert metadata["keras_version"] == keras.__version__


EMPTY_ZIP = b"PK\x05\x06" + bytes(18)


@pytest.mark.parametrize("content", [None, b"", b"no model", "half", EMPTY_ZIP])
def test_a_file_that_is_not_a_model_is_a_user_error(content, keras, saved, tmp_path):
    path = tmp_path / "model.keras"
    if content is not None:
        whole = saved.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if content == "half" else content)
    for read in (load_model, read_metadata):
        with pytest.raises(UserError, match=re.escape(str(path))):
            read(path)


@pytest.mark.parametrize(("field", "value"), DAMAGE)
def test_a_model_with_a_damaged_directory_is_a_user_error(field, value, saved, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(saved.read_bytes())
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_metadata(with_header(path, "metadata.json", field, value))


def test_a_folder_is_not_a_model(keras, tmp_path):
    for read in (load_model, read_metadata):
        with pytest.raises(UserError, match=re.escape(str(tmp_path))):
            read(tmp_path)


def rewritten(saved, path, member, content):
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if name != member or content is not None:
                target.writestr(name, content if name == member else source.read(name))


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("model.weights.h5", None),
        ("model.weights.h5", b"no weights"),
        ("config.json", None),
        ("config.json", b"no JSON"),
        ("config.json", b"{}"),
        ("config.json", b'{"module": "keras.layers", "class_name": "Unheard", "config": {}, "registered_name": null}'),
    ],
)
def test_a_model_with_a_missing_or_wrong_part_is_a_user_error(member, content, keras, saved, tmp_path):
    path = tmp_path / "model.keras"
    rewritten(saved, path, member, content)
    with pytest.raises(UserError, match=re.escape(str(path))):
        load_model(path)


def test_a_layer_that_keras_does_not_know_is_a_user_error(keras, saved, tmp_path):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(saved) as archive:
        config = archive.read("config.json").replace(b'"class_name": "Flatten"', b'"class_name": "OfTomorrow"')
    rewritten(saved, path, "config.json", config)
    with pytest.raises(UserError, match="OfTomorrow"):
        load_model(path)


@pytest.mark.parametrize("content", [b"no JSON", None])
def test_unreadable_metadata_is_a_user_error(content, saved, tmp_path):
    path = tmp_path / "model.keras"
    rewritten(saved, path, "metadata.json", content)
    with pytest.raises(UserError, match=re.escape(str(path))):
        read_metadata(path)
