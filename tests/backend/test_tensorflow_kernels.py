"""The faster kernels give the results of plain Keras, up to rounding, and saved models do not have them."""

from typing import Any

import numpy as np
import pytest
from standin import STANDINS, packed_digits, small_recipe

SGD = {"name": "sgd", "learning_rate": 0.05}


@pytest.fixture(scope="module")
def kernels(keras):
    if keras.backend.backend() != "tensorflow":
        pytest.skip("these are TensorFlow's kernels")
    from tiny_imagenet.backend import tensorflow_kernels

    return tensorflow_kernels


@pytest.fixture
def build(keras, kernels, monkeypatch):
    """Build a compiled model, with the faster kernels (fused) or with plain Keras."""
    from tiny_imagenet.training.build import build_model

    def build(*, fused: bool, **changes: Any) -> Any:
        keras.utils.set_random_seed(5)
        with monkeypatch.context() as patch:
            if not fused:
                patch.setattr("tiny_imagenet.backend.runtime.use_fast_kernels", lambda _: None)
            return build_model(small_recipe(**changes), num_classes=10, weights_file=None)

    return build


def train_both(make: Any, steps: int, **changes: Any) -> tuple[Any, Any]:
    # Noise, not digits: if pixels are equal, rounding decides which one a max pool selects.
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 64, 64, 3), np.uint8), rng.integers(0, 10, 60)
    models = make(fused=True, **changes), make(fused=False, **changes)
    for model in models:
        for _ in range(steps):
            model.train_on_batch(images, labels)
    return models


def replaced(model: Any) -> list[str]:
    return [layer.name for layer in model._flatten_layers(include_self=False) if "call" in vars(layer)]


# Layers and optimizers have kernels of their own: each model and each optimizer is here, not each pair.
@pytest.mark.parametrize(
    ("model", "optimizer"), [("model_1", "adamw"), ("model_2", "adam"), ("model_4", "sgd"), ("model_4", "adam")]
)
def test_steps_change_the_weights_like_plain_keras(model, optimizer, build):
    changes = STANDINS[model] | {"optimizer": {"name": optimizer, "learning_rate": 0.01}}
    fused, plain = train_both(build, 3, **changes)
    assert replaced(fused)
    assert not replaced(plain)
    start = build(fused=False, **changes).get_weights()
    for weight, before, ours, expected in zip(
        plain.weights, start, fused.get_weights(), plain.get_weights(), strict=True
    ):
        # The gradient of a bias before batch normalization is a rounding error, which Adam enlarges to full steps.
        if weight.path.endswith("bias") and model == "model_4" and "probabilities" not in weight.path:
            continue
        assert np.abs(ours - expected).max() <= 1e-2 * np.abs(expected - before).max() + 1e-6, weight.path


@pytest.mark.parametrize("shape", [(6, 5, 4, 3), (7, 3)], ids=["images", "rows"])
def test_batch_normalization_has_kerass_values_gradients_and_moving_averages(shape, keras, kernels):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    inputs, upstream = rng.normal(3, 2, shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    results = []
    for call in (None, kernels._normalize):
        layer = keras.layers.BatchNormalization(momentum=0.7)
        layer.build(shape)
        layer.set_weights(
            [rng_values.astype(np.float32) for rng_values in np.random.default_rng(1).uniform(1, 2, (4, 3))]
        )
        watched = tf.constant(inputs)
        with tf.GradientTape() as tape:
            tape.watch(watched)
            outputs = call(layer, watched, training=True) if call else layer(watched, training=True)
        gradients = tape.gradient(outputs, [watched, *layer.trainable_weights], output_gradients=tf.constant(upstream))
        results.append([outputs, *gradients, *layer.get_weights()])
    for plain, fused in zip(*results, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(("shape", "axis"), [((4, 3, 5, 5), 1), ((6, 7, 3), -1), ((5, 3), 1)])
def test_batch_normalization_of_other_axes_and_ranks_has_kerass_values(shape, axis, keras, kernels):
    inputs = np.random.default_rng(0).normal(2, 3, shape).astype(np.float32)
    layer = keras.layers.BatchNormalization(axis=axis)
    layer.build(shape)
    expected = layer(inputs, training=True)
    np.testing.assert_allclose(kernels._normalize(layer, inputs, training=True), expected, rtol=2e-4, atol=2e-5)


def test_frozen_batch_normalization_uses_its_averages(keras, kernels):
    layer = keras.layers.BatchNormalization()
    layer.build((4, 3))
    rows = np.random.default_rng(0).normal(5, 1, (4, 3)).astype(np.float32)
    expected = layer(rows, training=False)
    np.testing.assert_array_equal(kernels._normalize(layer, rows, training=False), expected)
    layer.trainable = False
    np.testing.assert_array_equal(kernels._normalize(layer, rows, training=True), expected)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize(
    "kind",
    [
        ("Dense", {}),
        ("Conv2D", {"kernel_size": 3}),
        ("Conv2D", {"kernel_size": 1}),
        ("Conv2D", {"kernel_size": 1, "strides": 2}),
        ("Conv2D", {"kernel_size": 1, "strides": (2, 3), "padding": "same"}),
        ("Conv2D", {"kernel_size": 1, "dilation_rate": 2}),
        ("Conv2D", {"kernel_size": 1, "groups": 2}),
    ],
    ids=str,
)
def test_layers_have_kerass_values_and_gradients(kind, use_bias, activation, keras, kernels):
    import tensorflow as tf

    rng = np.random.default_rng(0)
    name, own = kind
    shape = (3, 6, 5, 4) if name == "Conv2D" else (6, 4)
    layer = getattr(keras.layers, name)(8, **own, use_bias=use_bias, activation=activation)
    layer.build(shape)
    inputs = tf.constant(rng.normal(size=shape).astype(np.float32))
    results = []
    for call in (type(layer).call, kernels._convolve if name == "Conv2D" else kernels._multiply):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = call(layer, inputs)
        upstream = tf.constant(np.random.default_rng(1).normal(size=outputs.shape).astype(np.float32))
        gradients = tape.gradient(outputs, [inputs, *layer.trainable_weights], output_gradients=upstream)
        results.append([outputs, *gradients])
    for plain, fused in zip(*results, strict=True):
        np.testing.assert_allclose(fused, plain, rtol=1e-4, atol=1e-5)


def test_a_convolution_of_one_pixel_accepts_images_of_any_size(keras, kernels):
    import tensorflow as tf

    layer = keras.layers.Conv2D(8, 1)
    layer.build((None, None, None, 4))
    compiled = tf.function(lambda inputs: kernels._convolve(layer, inputs),
                           input_signature=[tf.TensorSpec((None, None, None, 4))])  # fmt: skip
    inputs = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype(np.float32)
    np.testing.assert_allclose(compiled(inputs), layer(inputs), rtol=1e-4, atol=1e-5)


def test_adam_updates_like_keras_step_by_step(build, keras):
    fused, plain = (
        build(fused=fused, optimizer={"name": "adam", "learning_rate": 0.01, "clip_norm": 1.0})
        for fused in (True, False)
    )
    rng = np.random.default_rng(0)
    for _ in range(5):
        gradients = [rng.normal(size=weight.shape).astype(np.float32) for weight in plain.trainable_weights]
        for model in (fused, plain):
            model.optimizer.apply([keras.ops.convert_to_tensor(gradient) for gradient in gradients],
                                  model.trainable_weights)  # fmt: skip
    for one, other in zip(fused.optimizer.variables, plain.optimizer.variables, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-5, atol=1e-9)
    for ours, expected in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("changes", [{"precision": "mixed_bfloat16"}, {"precision": "mixed_float16"}])
def test_layers_in_half_precision_are_not_changed(changes, build):
    assert replaced(build(fused=True, **changes)) in ([], ["probabilities"])  # the last layer is in single precision


def test_the_saved_model_is_plain_keras(build, keras, tmp_path):
    fused, plain = (build(fused=fused, **STANDINS["model_4"]) for fused in (True, False))
    assert type(fused.get_layer("probabilities")) is keras.layers.Dense
    fused.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not replaced(loaded)
    images = packed_digits(20, 10).train.images
    np.testing.assert_array_equal(loaded.predict_on_batch(images), plain.predict_on_batch(images))
