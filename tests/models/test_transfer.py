"""The pretrained architectures against `keras.applications` itself, with files of weights that are made here."""

from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest

from tiny_imagenet.models import weights as pretrained
from tiny_imagenet.models.registry import build_classifier, preprocessing_of

INPUT_SHAPE = (64, 64, 3)
SIDE = 96  # more than InceptionV3's 75, and not the images' own size
pytestmark = pytest.mark.slow
# Architecture -> name in `keras.applications`, module of its `preprocess_input`.
IN_KERAS = {
    "resnet50": ("ResNet50", "resnet"),
    "vgg16": ("VGG16", "vgg16"),
    "inception_v3": ("InceptionV3", "inception_v3"),
    "efficientnet_b0": ("EfficientNetB0", "efficientnet"),
    "efficientnet_v2_s": ("EfficientNetV2S", "efficientnet_v2"),
    "convnext_tiny": ("ConvNeXtTiny", "convnext"),
}


class Made:
    """A file of weights for one architecture, in the layout of the official one, and what is in it."""

    def __init__(self, keras: Any, architecture: str, folder: Path) -> None:
        from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

        self.architecture = architecture
        self.path = folder / pretrained.IMAGENET[architecture].file
        self._keras = keras
        backbone = self.in_keras(weights=None)
        rng = np.random.default_rng(0)
        for weight in backbone.weights:
            if "float" in weight.dtype and not weight.path.endswith("kernel"):  # kernels are random as they come
                weight.assign(np.abs(weight.numpy()) + rng.uniform(0.01, 0.1, weight.shape))
        self.weights = backbone.get_weights()
        with h5py.File(self.path, "w") as file:
            save_weights_to_hdf5_group(file, backbone)

    def in_keras(self, weights: str | None, **given: Any) -> Any:
        make = getattr(self._keras.applications, IN_KERAS[self.architecture][0])
        return make(include_top=False, weights=weights, input_shape=(SIDE, SIDE, 3), **given)


@pytest.fixture(scope="module", params=IN_KERAS)
def made(request, keras, tmp_path_factory):
    """Return a file of weights. Tests share it, because building a backbone takes more than a second."""
    found = Made(keras, request.param, tmp_path_factory.mktemp("weights"))
    yield found
    found.path.unlink()  # up to 110 MB
    keras.backend.clear_session()


@pytest.fixture(scope="module")
def model(made):
    """Return our model with the weights of the file."""
    return build(made.architecture, weights=str(made.path))


@pytest.fixture(scope="module")
def theirs(made):
    """Return Keras's own pretrained model, for which Keras fetches the file itself, and what it asks for."""
    asked = {}

    def fetch(name: str, origin: str, *, cache_subdir: str, file_hash: str) -> str:
        asked.update(name=name, url=origin, folder=cache_subdir, digest=file_hash)
        return str(made.path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("keras.src.utils.file_utils.get_file", fetch)
        return made.in_keras("imagenet", pooling="avg"), asked


def build(architecture: str, **given: Any) -> Any:
    preprocessing = "caffe" if architecture == "resnet50" else None  # its own default is the paper's
    values = {"preprocessing": preprocessing, "input_size": SIDE, "dense_units": None}
    return build_classifier(architecture, input_shape=INPUT_SHAPE, num_classes=7, **values | given)


def backbone_of(model: Any) -> Any:
    return next(layer for layer in model.layers if hasattr(layer, "layers"))


def test_every_weight_of_the_file_arrives_in_the_backbone(made, model):
    found = backbone_of(model).get_weights()
    assert len(found) == len(made.weights)
    assert [place for place, (one, other) in enumerate(zip(found, made.weights, strict=True))
            if one.shape != other.shape or (one != other).any()] == []  # fmt: skip


def test_the_features_are_those_of_keras_own_pretrained_model_on_the_same_pixels(made, model, theirs, keras):
    """Pixels are preprocessed by Keras's own `preprocess_input`."""
    images = np.random.default_rng(1).integers(0, 256, (3, *INPUT_SHAPE), np.uint8)
    large = np.stack([cv2.resize(image.astype(np.float32), (SIDE, SIDE)) for image in images])
    preprocessed = getattr(keras.applications, IN_KERAS[made.architecture][1]).preprocess_input(large)
    dropout = next(layer for layer in model.layers if type(layer).__name__ == "Dropout")
    # Layer by layer: `predict_on_batch` would first trace each model, which takes up to half a minute.
    expected, features = (
        keras.ops.convert_to_numpy(network(pixels, training=False))
        for network, pixels in ((theirs[0], preprocessed), (keras.Model(model.inputs[0], dropout.input), images))
    )
    assert expected.std() > 1e-3  # else the comparison would show nothing
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * expected.std())


def test_the_file_is_the_one_that_keras_downloads(made, theirs):
    published = pretrained.IMAGENET[made.architecture]
    assert theirs[1] == {"name": published.file, "url": published.url, "folder": "models", "digest": published.digest}


def test_parameters_are_the_backbones_and_the_heads(made, model):
    backbone = sum(weights.size for weights in made.weights if weights.dtype != np.int32)
    features = {"vgg16": 512, "convnext_tiny": 768, "resnet50": 2048, "inception_v3": 2048}.get(made.architecture, 1280)
    # Normalization counts the batches that it was adapted to in one integer, which Keras counts as a parameter.
    counters = sum(weights.size for weights in made.weights if weights.dtype == np.int32)
    assert model.count_params() == backbone + counters + (features + 1) * 7


def test_a_saved_efficientnet_keeps_the_normalization_of_its_file(keras, tmp_path):
    """That all models are saved to the bit is in test_models; this one has a layer with a state beside its weights."""
    from tiny_imagenet.models.saved_model import load_model, save_model

    made = Made(keras, "efficientnet_b0", tmp_path)
    model = build(made.architecture, weights=str(made.path))
    save_model(model, tmp_path / "model.keras", wnids=list("abcdefg"), class_names=list("abcdefg"))
    images = np.random.default_rng(1).integers(0, 256, (2, *INPUT_SHAPE), np.uint8)
    loaded = load_model(tmp_path / "model.keras")
    assert loaded.inputs[0].dtype == "uint8"
    np.testing.assert_array_equal(loaded([images], training=False), model(images, training=False))


def test_every_architecture_with_weights_is_here_and_has_a_published_file():
    from tiny_imagenet.models.registry import architectures, build_arguments

    with_weights = {name for name in architectures() if "weights" in build_arguments(name)}
    assert with_weights == set(IN_KERAS) == set(pretrained.IMAGENET)


def test_by_default_an_architecture_preprocesses_as_its_weights_expect():
    expected = {"vgg16": "caffe", "inception_v3": "tf", "two_conv": "rescale"}
    assert {name: preprocessing_of(name, None) for name in expected} == expected
    assert preprocessing_of("vgg16", "rescale") == "rescale"


def test_at_the_images_own_size_nothing_is_resized(keras):
    names = [layer.name for layer in build("vgg16", input_size=64).layers]
    assert "upscale" not in names
    assert "upscale" in [layer.name for layer in build("vgg16", input_size=65).layers]
