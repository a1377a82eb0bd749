"""Where pretrained weights come from, errors if they are missing, and that they are loaded into the model."""

import hashlib
import re
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from standin import small_backbone, small_recipe

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.models import weights
from tiny_imagenet.models.registry import build_classifier

FILE = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
MD5 = "4d473c1dd8becc155b73f8504c6f6626"


@pytest.fixture
def keras_home(tmp_path, monkeypatch):
    """Return the folder in which Keras keeps weights, empty."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras home"))
    return tmp_path / "keras home" / "models"


def pretend(monkeypatch, content: bytes) -> None:
    """Let the official file have this content: the real one has 94 MB."""
    publish(monkeypatch, digest=hashlib.md5(content, usedforsecurity=False).hexdigest())


def publish(monkeypatch, architecture: str = "resnet50", *, url: str | None = None, digest: str | None = None) -> None:
    """Let the official file be at another address, or have another digest."""
    published = weights.IMAGENET[architecture]
    monkeypatch.setitem(
        weights.IMAGENET, architecture, weights.Published(url or published.url, digest or published.digest)
    )


def test_no_weights_need_no_file():
    assert weights.weights_file(None, "resnet50") is None


def test_a_path_is_used_unchanged(tmp_path, monkeypatch):
    path = tmp_path / "mine.h5"
    with h5py.File(path, "w"):
        pass
    assert weights.weights_file(str(path), "resnet50") == path
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights.weights_file("~/mine.h5", "resnet50") == path


def test_the_error_without_a_home_names_keras_home(tmp_path, monkeypatch):
    """As in a container with an unknown user id."""

    def no_home(_path: object = None) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    with pytest.raises(UserError, match=r"Could not determine home directory\. Set KERAS_HOME"):
        weights.weights_file("imagenet", "resnet50")
    pretend(monkeypatch, b"weights")
    file = tmp_path / "models" / FILE
    file.parent.mkdir()
    file.write_bytes(b"weights")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert weights.weights_file("imagenet", "resnet50") == file


def test_the_error_without_a_published_file_says_what_to_give():
    with pytest.raises(UserError, match=r"no ImageNet weights are known for my_own.*path of an HDF5 file, or null"):
        weights.weights_file("imagenet", "my_own")


def test_a_missing_path_is_named_with_what_is_allowed(tmp_path):
    with pytest.raises(UserError, match=r"imagenet") as caught:
        weights.weights_file(str(tmp_path / "none.h5"), "resnet50")
    assert str(tmp_path / "none.h5") in str(caught.value)
    assert "null" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a saved .keras model is a zip"])
def test_a_file_that_is_not_hdf5_is_refused_before_anything_runs(content, tmp_path):
    path = tmp_path / "mine.h5"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(f"weights: '{path}' is not an HDF5 file")):
        weights.weights_file(str(path), "resnet50")


def test_a_folder_is_not_a_weights_file(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        weights.weights_file(str(tmp_path), "resnet50")


@pytest.mark.parametrize("architecture", weights.IMAGENET)
def test_offline_the_message_names_file_digest_and_folder_of_each_architecture(architecture, keras_home, monkeypatch):
    published = weights.IMAGENET[architecture]
    publish(monkeypatch, architecture, url=(keras_home / "away" / published.file).as_uri())
    with pytest.raises(UserError) as caught:
        weights.weights_file("imagenet", architecture)
    for part in (architecture, published.file, published.digest, str(keras_home), "params.yaml", "null"):
        assert part in str(caught.value)


def test_a_file_whose_digest_is_a_sha256_is_checked_by_it(keras_home, monkeypatch):
    path = keras_home / weights.IMAGENET["convnext_tiny"].file
    keras_home.mkdir(parents=True)
    path.write_bytes(b"weights")
    with pytest.raises(UserError, match=f"has sha256 {hashlib.sha256(b'weights').hexdigest()}, expected d547c096"):
        weights.weights_file("imagenet", "convnext_tiny")
    publish(monkeypatch, "convnext_tiny", digest=hashlib.sha256(b"weights").hexdigest())
    assert weights.weights_file("imagenet", "convnext_tiny") == path


def test_a_file_with_a_sha256_is_downloaded(keras_home, monkeypatch, tmp_path):
    published = tmp_path / weights.IMAGENET["convnext_tiny"].file
    published.write_bytes(b"no zip archive")
    digest = hashlib.sha256(b"no zip archive").hexdigest()
    publish(monkeypatch, "convnext_tiny", url=published.as_uri(), digest=digest)
    assert weights.weights_file("imagenet", "convnext_tiny").read_bytes() == b"no zip archive"


def test_imagenet_is_found_in_keras_folder(keras_home, monkeypatch):
    keras_home.mkdir(parents=True)
    (keras_home / FILE).write_bytes(b"weights")
    pretend(monkeypatch, b"weights")
    monkeypatch.setattr(weights, "obtain", lambda *_, **__: pytest.fail("fetched what was there"))
    assert weights.weights_file("imagenet", "resnet50") == keras_home / FILE


def test_a_file_with_another_digest_is_refused(keras_home):
    keras_home.mkdir(parents=True)
    (keras_home / FILE).write_bytes(b"cut short")
    with pytest.raises(UserError, match=MD5) as caught:
        weights.weights_file("imagenet", "resnet50")
    assert str(keras_home / FILE) in str(caught.value)
    assert hashlib.md5(b"cut short", usedforsecurity=False).hexdigest() in str(caught.value)
    assert (keras_home / FILE).read_bytes() == b"cut short"  # a user's file is not ours to remove


def test_offline_the_message_says_which_file_to_put_where(keras_home, monkeypatch):
    def offline(*_, hint, **__):
        raise UserError(f"no network\n{hint}")

    monkeypatch.setattr(weights, "obtain", offline)
    with pytest.raises(UserError) as caught:
        weights.weights_file("imagenet", "resnet50")
    message = str(caught.value)
    for part in (FILE, MD5, str(keras_home), "params.yaml", "null", "no network"):
        assert part in message


def test_offline_the_message_does_not_mention_the_datasets_archive(keras_home, monkeypatch, tmp_path):
    publish(monkeypatch, url=(tmp_path / "none" / FILE).as_uri())
    with pytest.raises(UserError, match=FILE) as caught:
        weights.weights_file("imagenet", "resnet50")
    assert "dataset.archive" not in str(caught.value)


def test_a_missing_file_is_downloaded_and_checked(keras_home, monkeypatch, tmp_path):
    published = tmp_path / FILE
    with h5py.File(published, "w") as file:
        file["weight"] = np.arange(3)
    pretend(monkeypatch, published.read_bytes())
    publish(monkeypatch, url=published.as_uri())
    path = weights.weights_file("imagenet", "resnet50")
    assert path == keras_home / FILE
    assert path.read_bytes() == published.read_bytes()


def test_one_process_downloads_a_file_and_the_others_wait(keras_home, monkeypatch, tmp_path):
    published, obtain, found = tmp_path / FILE, weights.obtain, []
    published.write_bytes(b"weights")
    pretend(monkeypatch, b"weights")
    publish(monkeypatch, url=published.as_uri())

    def slowly(path: Path, **options: Any) -> None:
        found.append(path.is_file())
        time.sleep(0.5)
        obtain(path, **options)

    monkeypatch.setattr(weights, "obtain", slowly)
    with ThreadPoolExecutor(3) as pool:
        paths = list(pool.map(weights.weights_file, ["imagenet"] * 3, ["resnet50"] * 3))
    assert paths == [keras_home / FILE] * 3
    assert found.count(False) == 1


def test_a_download_with_another_digest_is_not_kept(keras_home, monkeypatch, tmp_path):
    published = tmp_path / FILE
    with zipfile.ZipFile(published, "w") as file:
        file.writestr("a", "b")
    publish(monkeypatch, url=published.as_uri())
    with pytest.raises(UserError, match=MD5):
        weights.weights_file("imagenet", "resnet50")
    assert not (keras_home / FILE).exists()


@pytest.fixture(scope="module")
def official(keras, tmp_path_factory):
    """Yield a file in the layout of the official one, with other numbers, and the backbone that it was made of.

    The backbone is a small one in the place of ResNet50; the real ones are in test_transfer.py.
    """
    from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "ResNet50", small_backbone)
        backbone = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(64, 64, 3))
        rng = np.random.default_rng(0)
        for weight in backbone.weights:
            weight.assign(rng.uniform(0.5, 1.5, weight.shape).astype(np.float32))
        path = tmp_path_factory.mktemp("weights") / "notop.h5"
        with h5py.File(path, "w") as file:
            save_weights_to_hdf5_group(file, backbone)
        yield path, backbone


def test_every_weight_of_the_file_arrives_in_the_backbone(official):
    path, source = official
    with h5py.File(path) as file:
        saved = {
            name.decode() if isinstance(name, bytes) else name: np.asarray(group[name])
            for group in file.values()
            for name in group.attrs["weight_names"]
        }
    model = build_classifier("resnet50", input_shape=(64, 64, 3), num_classes=3, weights=str(path), dense_units=2)
    backbone = next(layer for layer in model.layers if hasattr(layer, "layers"))
    assert len(saved) == len(backbone.weights) == len(source.weights) == 12
    for weight, original in zip(backbone.weights, source.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), original.numpy(), err_msg=weight.path)
    assert sum(value.size for value in saved.values()) == backbone.count_params()


def test_without_a_file_the_backbone_is_random(keras, official):
    _, source = official
    model = build_classifier("resnet50", input_shape=(64, 64, 3), num_classes=3, dense_units=2)
    backbone = next(layer for layer in model.layers if hasattr(layer, "layers"))
    assert not np.array_equal(backbone.weights[0].numpy(), source.weights[0].numpy())


@pytest.mark.parametrize("kind", ["text", "another suffix", "another model"])
def test_a_file_with_other_content_is_a_user_error(kind, keras, official, tmp_path):
    from tiny_imagenet.training.build import build_model

    path = tmp_path / ("weights" if kind == "another suffix" else "weights.h5")
    if kind == "another model":
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = ["dense"]
            file.create_group("dense").attrs["weight_names"] = []
    else:
        path.write_bytes(b"no weights" if kind == "text" else official[0].read_bytes())
    recipe = small_recipe(architecture="resnet50", build={"dense_units": 2}, weights=str(path))
    with pytest.raises(UserError, match=re.escape(str(path))):
        build_model(recipe, num_classes=3, weights_file=path)


def test_the_page_on_transfer_names_every_file_and_its_digest():
    page = (Path(__file__).parents[2] / "docs" / "transfer.md").read_text(encoding="utf-8")
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in page.splitlines() if "_notop.h5" in line}
    assert set(rows) == set(weights.IMAGENET)
    for architecture, published in weights.IMAGENET.items():
        assert f"`{published.file}`" in rows[architecture]
        assert f"`{published.digest}`" in rows[architecture]


@pytest.mark.parametrize("kind", [hashlib.md5, hashlib.sha256])
def test_kerass_own_file_is_imagenet_by_any_path(kind, tmp_path, monkeypatch):
    file = tmp_path / "notop.h5"
    file.write_bytes(b"weights")
    assert weights.origin(str(file), "resnet50", file) == str(file)
    publish(monkeypatch, "resnet50", digest=kind(b"weights").hexdigest())
    assert weights.origin(str(file), "resnet50", file) == "imagenet"
    assert weights.origin(None, "resnet50", None) is None
    assert weights.origin(str(file), "two_conv", file) == str(file)
