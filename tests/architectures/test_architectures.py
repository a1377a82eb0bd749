"""Every registered architecture by one set of tests, with the blocks of params.yaml."""

import ast
import copy
import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from standin import small_backbone

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import load_params, parse_params
from tiny_imagenet.models import weights
from tiny_imagenet.models.registry import architecture_source, architectures, build_classifier, check_models

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
# The committed params.yaml as plain values.
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
INPUT_SHAPE = (64, 64, 3)
pytestmark = pytest.mark.slow

# The paper's figure 9.
PARAMETERS = {
    "model_1": 13_070_472,
    "model_2": 2_555_656,
    "model_3": 140_382_728,
    "model_4": 8_866_376,
    "model_5": 25_890_888,
}
# The paper's figures 5 to 8: type, output shape without the batch, parameters.
FIGURES: dict[str, list[tuple[str, tuple[int, ...], int]]] = {
    "model_1": [
        ("Conv2D", (62, 62, 32), 896),
        ("MaxPooling2D", (31, 31, 32), 0),
        ("Conv2D", (29, 29, 64), 18_496),
        ("MaxPooling2D", (14, 14, 64), 0),
        ("Flatten", (12_544,), 0),
        ("Dense", (1_024,), 12_846_080),
        ("Dense", (200,), 205_000),
    ],
    "model_2": [
        ("Conv2D", (62, 62, 32), 896),
        ("MaxPooling2D", (31, 31, 32), 0),
        ("Conv2D", (29, 29, 64), 18_496),
        ("MaxPooling2D", (14, 14, 64), 0),
        ("Conv2D", (12, 12, 128), 73_856),
        ("MaxPooling2D", (6, 6, 128), 0),
        ("Flatten", (4_608,), 0),
        ("Dense", (512,), 2_359_808),
        ("Dropout", (512,), 0),
        ("Dense", (200,), 102_600),
    ],
    "model_3": [
        ("Conv2D", (64, 64, 64), 1_792),
        ("BatchNormalization", (64, 64, 64), 256),
        ("Activation", (64, 64, 64), 0),
        ("Conv2D", (64, 64, 64), 36_928),
        ("BatchNormalization", (64, 64, 64), 256),
        ("Activation", (64, 64, 64), 0),
        ("MaxPooling2D", (32, 32, 64), 0),
        ("Conv2D", (32, 32, 128), 73_856),
        ("BatchNormalization", (32, 32, 128), 512),
        ("Activation", (32, 32, 128), 0),
        ("Conv2D", (32, 32, 128), 147_584),
        ("BatchNormalization", (32, 32, 128), 512),
        ("Activation", (32, 32, 128), 0),
        ("MaxPooling2D", (16, 16, 128), 0),
        ("Conv2D", (16, 16, 256), 295_168),
        ("BatchNormalization", (16, 16, 256), 1_024),
        ("Activation", (16, 16, 256), 0),
        ("Conv2D", (16, 16, 512), 1_180_160),
        ("BatchNormalization", (16, 16, 512), 2_048),
        ("Activation", (16, 16, 512), 0),
        ("MaxPooling2D", (8, 8, 512), 0),
        ("Flatten", (32_768,), 0),
        ("Dense", (4_096,), 134_221_824),
        ("BatchNormalization", (4_096,), 16_384),
        ("Activation", (4_096,), 0),
        ("Dense", (1_024,), 4_195_328),
        ("BatchNormalization", (1_024,), 4_096),
        ("Activation", (1_024,), 0),
        ("Dense", (200,), 205_000),
    ],
    "model_4": [
        ("Conv2D", (64, 64, 64), 1_792),
        ("BatchNormalization", (64, 64, 64), 256),
        ("Activation", (64, 64, 64), 0),
        ("MaxPooling2D", (32, 32, 64), 0),
        ("Conv2D", (32, 32, 128), 73_856),
        ("BatchNormalization", (32, 32, 128), 512),
        ("Activation", (32, 32, 128), 0),
        ("MaxPooling2D", (16, 16, 128), 0),
        ("Conv2D", (16, 16, 256), 295_168),
        ("BatchNormalization", (16, 16, 256), 1_024),
        ("Activation", (16, 16, 256), 0),
        ("MaxPooling2D", (8, 8, 256), 0),
        ("Flatten", (16_384,), 0),
        ("Dense", (512,), 8_389_120),
        ("BatchNormalization", (512,), 2_048),
        ("Activation", (512,), 0),
        ("Dropout", (512,), 0),
        ("Dense", (200,), 102_600),
    ],
    # The paper has no figure of model 5; this is the one head that makes its count.
    "model_5": [
        ("Functional", (2, 2, 2_048), 23_587_712),
        ("GlobalAveragePooling2D", (2_048,), 0),
        ("Dense", (1_024,), 2_098_176),
        ("Dropout", (1_024,), 0),
        ("Dense", (200,), 205_000),
    ],
}
# Model 3 is 560 MB. Tests of its structure build it with fewer dense units.
# Backbones see 80 x 80 pixels: more than the images have, more than InceptionV3 needs, and not many.
SMALLER: dict[str, dict[str, Any]] = {
    "deep_conv": {"dense_units": [64, 32]},
    **{name: {"input_size": 80} for name in weights.IMAGENET if name != "resnet50"},
}


def smaller(model: str) -> tuple[str, dict[str, Any]]:
    """Return the architecture of a block, and arguments for a size that is quick to differentiate and to save."""
    block = PARAMS.models[model]
    return block.architecture, block.build | SMALLER.get(block.architecture, {})


def small(model: str, **given: Any) -> Any:
    """Return the model of a block in that size, with 10 classes."""
    architecture, build = smaller(model)
    return build_classifier(architecture, input_shape=INPUT_SHAPE, num_classes=10, **build | given)


DISTINCT = {json.dumps(smaller(model)): model for model in reversed(PARAMS.models)}.values()
"""The first block of each architecture with other arguments. What else blocks differ in changes no model."""


@pytest.fixture(scope="module", params=DISTINCT)
def built(request, keras):
    """Yield the small model of a block; its batch normalization remembers only the last batch."""
    yield small(request.param, batch_normalization_momentum=0.0)
    keras.backend.clear_session()


def pixels(num_images: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (num_images, *INPUT_SHAPE), np.uint8)


def all_layers(model: Any) -> Iterator[Any]:
    """Yield the layers, those of models inside models too."""
    for layer in model.layers:
        yield layer
        yield from all_layers(layer) if hasattr(layer, "layers") else ()


def test_every_architecture_has_a_block_in_params_and_a_published_count():
    assert {block.architecture for block in PARAMS.models.values()} == set(architectures())
    assert set(PARAMS.active) == set(PARAMETERS)


@pytest.mark.parametrize("model", FIGURES)
def test_the_papers_figures_add_up_to_its_parameter_counts(model):
    assert sum(parameters for *_, parameters in FIGURES[model]) == PARAMETERS[model]


@pytest.mark.parametrize("architecture", architectures())
def test_an_architecture_is_one_build_function_with_a_docstring_and_only_keywords(architecture):
    tree = ast.parse(architecture_source(architecture))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert [function.name for function in functions] == ["build"]
    assert not functions[0].args.args
    assert ast.get_docstring(tree)


@pytest.fixture(scope="module", params=PARAMETERS)
def whole(request, keras):
    """Yield (name, model): full size, 200 classes, one at a time, because model 3 takes 560 MB."""
    block = PARAMS.models[request.param]
    given = {"input_shape": INPUT_SHAPE, "num_classes": 200, "preprocessing": block.preprocessing}
    yield request.param, build_classifier(block.architecture, **given, **block.build)
    keras.backend.clear_session()


def test_the_parameters_are_exactly_the_papers(whole):
    name, model = whole
    assert model.count_params() == PARAMETERS[name]


def test_the_layers_are_those_of_the_papers_figure(whole):
    name, model = whole
    layers = [
        (type(layer).__name__.replace("ReLU", "Activation"), layer.output.shape[1:], layer.count_params())
        for layer in model.layers
        if type(layer).__name__ not in {"InputLayer", "Rescaling"}
    ]
    assert layers == FIGURES[name]


def test_input_is_uint8_pixels_and_output_is_float32_for_each_class(whole):
    _, model = whole
    assert (model.input_shape, model.inputs[0].dtype) == ((None, *INPUT_SHAPE), "uint8")
    assert (model.output_shape, model.outputs[0].dtype) == ((None, 200), "float32")


def test_the_output_is_probabilities(whole, keras):
    _, model = whole
    probabilities = keras.ops.convert_to_numpy(model(pixels(2), training=False))
    assert probabilities.shape == (2, 200)
    assert probabilities.min() >= 0
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)


def test_the_first_layer_scales_pixels_to_0_to_1(whole, keras):
    _, model = whole
    images = pixels(1)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model.layers[1](images)), images / 255, rtol=1e-6)


def test_every_layer_is_trained_and_the_model_is_not_compiled(whole):
    _, model = whole
    assert all(layer.trainable for layer in all_layers(model))
    assert not model.compiled


def test_every_weight_gets_a_gradient(built, keras):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("the tape is TensorFlow's")
    import tensorflow as tf

    labels = np.arange(8)
    built(pixels(8), training=True)  # averages of this batch: with those of a new layer, deep features fade away
    for layer in all_layers(built):
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.ones(layer.gamma.shape))  # ConvNeXt starts with 1e-6: gradients would vanish
    with tf.GradientTape() as tape:
        # Inference mode: in training mode the bias before a batch normalization has no effect, by construction.
        predicted = built(pixels(8), training=False)
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, predicted))
    gradients = tape.gradient(loss, built.trainable_weights)
    largest = {
        weight.path: 0.0 if gradient is None else float(np.abs(gradient.numpy()).max())
        for weight, gradient in zip(built.trainable_weights, gradients, strict=True)
    }
    assert {path: value for path, value in largest.items() if not 1e-7 < value < np.inf} == {}


def test_a_saved_model_gives_the_same_bits(built, tmp_path):
    from tiny_imagenet.models.saved_model import load_model, save_model

    path = tmp_path / "model.keras"
    save_model(built, path, wnids=[f"n{label}" for label in range(10)], class_names=list("abcdefghij"))
    loaded = load_model(path)
    images = pixels(4)
    # Layer by layer: `predict_on_batch` would first trace each model, which takes up to half a minute.
    np.testing.assert_array_equal(loaded([images], training=False), built(images, training=False))
    assert loaded.count_params() == built.count_params()


def test_only_model_1s_last_convolution_is_penalised(keras):
    penalised = [layer for layer in small("model_1").layers if getattr(layer, "kernel_regularizer", None)]
    assert [(type(layer).__name__, layer.filters) for layer in penalised] == [("Conv2D", 64)]
    assert penalised[0].kernel_regularizer.l2 == pytest.approx(0.01)


def test_model_3_penalises_every_kernel_before_its_last_layer(keras):
    layers = [layer for layer in small("model_3").layers if hasattr(layer, "kernel")]
    assert [layer.kernel_regularizer.l2 for layer in layers[:-1]] == pytest.approx([0.001] * 8)


def test_model_3_pools_3x3_with_stride_2(keras):
    pools = [layer for layer in small("model_3").layers if type(layer).__name__ == "MaxPooling2D"]
    assert [(pool.pool_size, pool.strides) for pool in pools] == [((3, 3), (2, 2))] * 3


@pytest.mark.parametrize("model", ["model_3", "model_4"])
def test_the_kernels_before_the_last_layer_are_he_normal(model, keras):
    layers = [layer for layer in small(model).layers if hasattr(layer, "kernel")][:-1]
    assert {type(layer.kernel_initializer).__name__ for layer in layers} == {"HeNormal"}


@pytest.mark.parametrize(("model", "rates"), [("model_1", []), ("model_2", [0.5]), ("model_3", []), ("model_4", [0.5])])
def test_dropout_is_where_the_paper_has_it(model, rates, keras):
    assert [layer.rate for layer in small(model).layers if type(layer).__name__ == "Dropout"] == rates


def test_caffe_preprocessing_is_what_keras_does_for_its_resnet(keras):
    from tiny_imagenet.models.blocks import image_input

    images = pixels(2)
    model = keras.Model(*image_input(INPUT_SHAPE, "caffe"))
    expected = keras.applications.resnet.preprocess_input(images.astype(np.float32))
    np.testing.assert_allclose(model.predict_on_batch(images), expected, atol=1e-4)


def test_preprocessing_is_chosen_by_its_name(keras):
    rescaled, caffe = small("model_2"), small("model_2", preprocessing="caffe")
    caffe.set_weights(rescaled.get_weights())
    assert not np.allclose(rescaled.predict_on_batch(pixels(2)), caffe.predict_on_batch(pixels(2)))


@pytest.mark.parametrize(
    ("model", "num_layers"),
    [
        ("model_1", 0),
        ("model_3", 8),
        ("model_4", 4),
        ("model_5", 53),
        ("model_4_tuned", 6),
        ("resnet18", 20),
        ("fast_3_hours", 8),
    ],
)
def test_the_batch_normalization_momentum_reaches_every_layer_even_of_backbones(model, num_layers, keras):
    def momenta(**given: Any) -> list[float]:
        layers = all_layers(small(model, **given))
        return [layer.momentum for layer in layers if type(layer).__name__ == "BatchNormalization"]

    assert momenta(batch_normalization_momentum=0.5) == [0.5] * num_layers
    assert all(momentum >= 0.99 for momentum in momenta())


def test_a_momentum_of_zero_remembers_only_the_last_batch(keras):
    model = small("model_4", batch_normalization_momentum=0.0)
    convolution, normalization = model.layers[2:4]
    images = pixels(4)
    model(images, training=True)
    seen = keras.Model(model.inputs, convolution.output).predict_on_batch(images)
    remembered = keras.ops.convert_to_numpy(normalization.moving_mean)
    np.testing.assert_allclose(remembered, seen.mean((0, 1, 2)), rtol=1e-3, atol=1e-4)


# --- every argument has an effect ---

# Values of each keyword argument, the first of which is what the others are compared with.
ARGUMENTS: dict[str, list[Any]] = {
    "preprocessing": ["rescale", "caffe", "tf", "none"],
    "filters": [(3, 4), (4, 3), (3, 5)],
    "convolutions": [(1, 2), (2, 1)],
    "dense_units": [3, 4],
    "l2": [0.25, 0.0, 0.5],
    "dropout": [0.25, 0.0, 0.75],
    "input_size": [80, 96],
    "blocks_per_stage": [1, 2],
    "residual_blocks": [(1,), (0,), (2,)],
}
OF_ARCHITECTURE: dict[str, dict[str, list[Any]]] = {
    "deep_conv": {"dense_units": [(3, 4), (4, 3), (3,)]},
    "efficientnet_b0": {"preprocessing": ["none"]},  # these three scale pixels themselves
    "efficientnet_v2_s": {"preprocessing": ["none"]},
    "convnext_tiny": {"preprocessing": ["none"]},
}
TRANSFER = [name for name in architectures() if name in weights.IMAGENET]


@pytest.fixture
def configuration(keras, monkeypatch):
    """Return the layers of an architecture and its weights' shapes as text; backbones are small ones."""

    def backbone(*, pooling: str | None = None, **given: Any) -> Any:
        body = small_backbone(**given)
        pooled = keras.layers.GlobalAveragePooling2D()(body.output) if pooling == "avg" else body.output
        return keras.Model(body.input, pooled, name="backbone")

    for name in ("ResNet50", "VGG16", "InceptionV3", "EfficientNetB0", "EfficientNetV2S", "ConvNeXtTiny"):
        assert hasattr(keras.applications, name)
        monkeypatch.setattr(keras.applications, name, backbone)

    def of(architecture: str, **given: Any) -> str:
        model = build_classifier(architecture, input_shape=INPUT_SHAPE, num_classes=5, **given)
        made = json.dumps([model.get_config(), [tuple(weight.shape) for weight in model.weights]], default=str)
        without_addresses = re.sub(r'"shared_object_id": \d+', "", made)
        return re.sub(r'"(\w+?)_\d+"', r'"\1"', without_addresses)  # Keras numbers the layers of a process through

    return of


def keywords(architecture: str) -> dict[str, list[Any]]:
    """Return the values to try of each argument of an architecture's `build`; its file is what names them."""
    build = importlib.import_module(f"tiny_imagenet.architectures.{architecture}").build
    names = inspect.signature(build).parameters.keys() - {"input_shape", "num_classes", "weights"}
    return {name: (ARGUMENTS | OF_ARCHITECTURE.get(architecture, {}))[name] for name in sorted(names)}


@pytest.mark.parametrize("architecture", architectures())
def test_every_value_of_every_argument_makes_another_model(architecture, configuration):
    values = keywords(architecture)
    usual = {name: choices[0] for name, choices in values.items()}
    before = configuration(architecture, **usual)
    assert configuration(architecture, **usual) == before
    for name, choices in values.items():
        made = [configuration(architecture, **usual | {name: value}) for value in choices]
        assert len({before, *made}) == len(choices), name


@pytest.mark.parametrize("architecture", TRANSFER)
@pytest.mark.usefixtures("configuration")  # with small backbones
def test_the_head_of_a_transfer_model_follows_its_arguments(architecture):
    preprocessing = keywords(architecture)["preprocessing"][0]
    model = build_classifier(
        architecture, input_shape=INPUT_SHAPE, num_classes=7, preprocessing=preprocessing, dense_units=5, dropout=0.125,
        input_size=80,
    )  # fmt: skip
    assert [layer.rate for layer in model.layers if type(layer).__name__ == "Dropout"] == [0.125]
    backbone = next(layer for layer in model.layers if layer.name == "backbone")
    assert backbone.input_shape == (None, 80, 80, 3)
    assert model.count_params() == backbone.count_params() + (4 + 1) * 5 + (5 + 1) * 7  # the backbone has 4 features


# --- what is refused before Keras is imported ---


@pytest.mark.parametrize(
    ("model", "trained", "channels"),
    # Kernels, gamma and beta, dense layer; channels that are normalized, each with two moving averages.
    [
        ("fast_15_minutes", 1_620_968, 32 + 64 + 128 + 3 * 256),
        ("fast_30_minutes", 1_694_952, 32 + 3 * 64 + 128 + 3 * 256),
        ("fast_3_hours", 6_670_600, 64 + 3 * 128 + 256 + 3 * 512),
    ],
)
def test_resnet9_has_the_parameters_of_its_layers(model, trained, channels, keras):
    block = PARAMS.models[model]
    filters = block.build.get("filters", [64, 128, 256, 512])
    blocks = block.build.get("residual_blocks", [1, 0, 1])
    kernels = [9 * before * after for before, after in pairwise([3, *filters])]
    kernels += [2 * 9 * size * size * number for size, number in zip(filters[1:], blocks, strict=True)]
    assert sum(kernels) + 2 * channels + (filters[-1] + 1) * 200 == trained
    built = build_classifier(block.architecture, input_shape=INPUT_SHAPE, num_classes=200, **block.build)
    assert built.count_params() == trained + 2 * channels
    convolutions = [layer.output.shape[1] for layer in built.layers if type(layer).__name__ == "Conv2D"]
    assert max(convolutions) == 32  # no work at 64 x 64


def test_resnet9_needs_a_number_of_blocks_for_each_stage(keras):
    with pytest.raises(UserError, match="`filters` has 1 stages after the stem, `residual_blocks` 2"):
        build_classifier("resnet9", input_shape=INPUT_SHAPE, num_classes=10, filters=(4, 4), residual_blocks=(1, 1))


def message_for(block: dict[str, Any], model: str = "model_1") -> str:
    values = copy.deepcopy(VALUES)
    values["models"][model] |= block
    params = parse_params(values)
    with pytest.raises(UserError) as caught:
        check_models(params)
    return str(caught.value)


def test_the_committed_blocks_are_accepted():
    check_models(PARAMS)


def test_an_unknown_architecture_is_refused_with_the_nearest_and_all_names():
    message = message_for({"architecture": "two_convs"})
    assert "models.model_1.architecture" in message
    assert "'two_convs' (did you mean 'two_conv'?)" in message
    assert ", ".join(architectures()) in message


@pytest.mark.parametrize("name", ["_blocks", "__init__", "resnet50/../two_conv"])
def test_a_module_that_is_not_an_architecture_is_refused(name):
    values = copy.deepcopy(VALUES)
    values["models"]["model_1"]["architecture"] = name
    with pytest.raises(UserError, match=r"models\.model_1\.architecture"):
        check_models(parse_params(values))


@pytest.mark.parametrize(
    ("model", "build", "expected"),
    [
        ("model_1", {"dense_unit": 8}, ["'dense_unit' (did you mean 'dense_units'?)", "filters, dense_units, l2"]),
        ("model_1", {"dropout": 0.5}, ["'dropout'", "filters, dense_units, l2"]),
        ("model_1", {"num_classes": 7}, ["'num_classes'"]),
        ("model_5", {"weights": "a.h5"}, ["'weights'"]),
        ("model_1", {"dense_units": "1024"}, ["build.dense_units", "'1024'"]),
        ("model_1", {"dense_units": 0}, ["build.dense_units", "greater than or equal to 1", "got 0"]),
        ("model_1", {"dense_units": True}, ["build.dense_units", "True"]),
        ("model_1", {"dense_units": 1.5}, ["build.dense_units", "1.5"]),
        ("model_1", {"dense_units": None}, ["build.dense_units", "None"]),
        ("model_1", {"filters": 32}, ["build.filters", "32"]),
        ("model_1", {"filters": []}, ["build.filters"]),
        ("model_1", {"filters": [32, "64"]}, ["build.filters.1", "'64'"]),
        ("model_1", {"l2": -0.1}, ["build.l2", "greater than or equal to 0", "-0.1"]),
        ("model_1", {"l2": float("inf")}, ["build.l2", "inf"]),
        ("model_2", {"dropout": 1.0}, ["build.dropout", "less than 1", "1.0"]),
        ("model_3", {"dense_units": 4096}, ["build.dense_units", "4096"]),
        ("inception_v3", {"input_size": 74}, ["build.input_size", "greater than or equal to 75", "got 74"]),
        ("vgg16", {"input_size": 63}, ["build.input_size", "greater than or equal to 64", "got 63"]),
        ("vgg16", {"dense_units": 0}, ["build.dense_units", "got 0"]),
    ],
)
def test_build_arguments_are_checked_against_the_architectures_signature(model, build, expected):
    message = message_for({"build": build}, model)
    assert f"models.{model}.build" in message
    assert [fragment for fragment in expected if fragment not in message] == []


@pytest.mark.parametrize("model", ["efficientnet_b0", "efficientnet_v2_s", "convnext_tiny"])
def test_scaling_before_a_backbone_that_scales_is_refused(model):
    message = message_for({"preprocessing": "rescale"}, model)
    assert (
        f"models.{model}.preprocessing: 'rescale' would scale pixels twice, because {model} scales them itself"
        in message
    )


def test_the_values_of_preprocessing_are_the_same_in_a_block_and_in_an_architecture():
    from tiny_imagenet.config.recipe import ModelParams
    from tiny_imagenet.models.argument_types import Preprocessing

    in_block = get_args(get_args(ModelParams.model_fields["preprocessing"].annotation)[0])
    assert in_block == get_args(Preprocessing)


@pytest.mark.parametrize("model", ["model_1", "model_2", "model_3", "model_4"])
def test_weights_for_a_model_without_weights_are_refused(model):
    message = message_for({"weights": "imagenet"}, model)
    assert f"models.{model}.weights" in message


LIGHT_MODULES = [
    "tiny_imagenet.models.registry",
    "tiny_imagenet.models.saved_model",
    "tiny_imagenet.tracking",
    "tiny_imagenet.cli.predict",
    "tiny_imagenet.cli.reference",
    "tiny_imagenet.parallel.sweep.run",
    "tiny_imagenet.parallel.workers",
    "tiny_imagenet.tracking.sync",
    "tiny_imagenet.verification.checks",
    "stages.download",
    "stages.reorganize",
    "stages.cache",
    "stages.architecture",
    "stages.compare",
    "stages.train",
    "stages.evaluate",
]


def test_importing_the_package_or_a_stage_imports_neither_keras_nor_a_backend_nor_mlflow():
    script = (
        "import importlib, sys\n"
        f"for name in {LIGHT_MODULES}:\n"
        "    importlib.import_module(name)\n"
        "    heavy = {'keras', 'tensorflow', 'jax', 'torch', 'mlflow'} & set(sys.modules)\n"
        "    assert not heavy, f'{name} imports {heavy}'\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- the models that are not the paper's ---


@pytest.fixture(scope="module")
def resnet18(keras):
    return build_classifier("resnet18", input_shape=INPUT_SHAPE, num_classes=200)


def test_resnet18_equals_torchvisions_except_for_stem_and_head(resnet18):
    """torchvision's has 11,689,512 parameters, with a 7x7 stem of 3 to 64 channels and 1,000 classes."""
    trained = sum(int(np.prod(weight.shape)) for weight in resnet18.trainable_weights)
    assert trained == 11_689_512 - 7 * 7 * 3 * 64 + 3 * 3 * 3 * 64 - 513 * 1000 + 513 * 200 == 11_271_432
    channels = 64 + 4 * 64 + 5 * 128 + 5 * 256 + 5 * 512  # each has a moving mean and a moving variance
    assert resnet18.count_params() == trained + 2 * channels == 11_281_032


def test_resnet18_keeps_the_size_of_images_until_its_second_stage(resnet18):
    convolutions = [layer for layer in resnet18.layers if type(layer).__name__ == "Conv2D"]
    assert (convolutions[0].kernel_size, convolutions[0].strides) == ((3, 3), (1, 1))
    sums = [tuple(layer.output.shape[1:]) for layer in resnet18.layers if type(layer).__name__ == "Add"]
    assert sums == [
        (side, side, channels) for side, channels in ((64, 64), (32, 128), (16, 256), (8, 512)) for _ in "12"
    ]
    assert not any("Pooling2D" in type(layer).__name__ for layer in resnet18.layers[:-2])


def test_a_shortcut_is_the_input_itself_if_shapes_are_the_same(resnet18):
    projections = [layer for layer in resnet18.layers if getattr(layer, "kernel_size", None) == (1, 1)]
    assert [(layer.filters, layer.strides) for layer in projections] == [(128, (2, 2)), (256, (2, 2)), (512, (2, 2))]


def test_model_4_tuned_is_plain_and_no_larger_than_model_4(keras):
    model = build_classifier(
        "plain_conv", input_shape=INPUT_SHAPE, num_classes=200, **PARAMS.models["model_4_tuned"].build
    )
    assert model.count_params() == 4_610_376 <= PARAMETERS["model_4"]
    ancestors = [len(operation.arguments.keras_tensors) for layer in model.layers for operation in layer._inbound_nodes]
    assert max(ancestors) == 1  # no layer joins two others


def test_stages_without_a_number_of_convolutions_are_refused(keras):
    with pytest.raises(UserError, match="`filters` has 2 stages, but `convolutions` has 4"):
        build_classifier("plain_conv", input_shape=INPUT_SHAPE, num_classes=10, filters=(8, 8))
