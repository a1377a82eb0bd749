"""`build_model`: optimizer, weight decay, learning-rate schedule and trainable weights. One test trains one batch."""

import math
from typing import Any, get_args

import numpy as np
import pytest
from standin import packed_digits, small_recipe

from tiny_imagenet.backend import runtime
from tiny_imagenet.config.recipe import Optimizer


@pytest.fixture
def build(keras):
    """Build and compile the model of a small recipe with some values changed."""
    from tiny_imagenet.training.build import build_model

    def build_small(**changes: Any) -> Any:
        return build_model(small_recipe(**changes), num_classes=10, weights_file=None, steps_per_epoch=100)

    return build_small


@pytest.mark.parametrize("name", get_args(Optimizer.model_fields["name"].annotation))
def test_each_optimizer_name_of_params_is_kerass_optimizer_of_that_name(name, build, keras):
    model = build(optimizer={"name": name, "learning_rate": 0.25})
    assert type(model.optimizer) is type(keras.optimizers.get(name))
    assert float(model.optimizer.learning_rate) == 0.25


def test_all_keys_of_the_optimizer_section_are_passed_to_keras(build):
    settings = {"name": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0005,
              "clip_norm": 2.0, "ema_momentum": 0.99}  # fmt: skip
    config = build(optimizer=settings).optimizer.get_config()
    expected = {"momentum": 0.9, "nesterov": True, "weight_decay": 0.0005, "global_clipnorm": 2.0, "use_ema": True,
                "ema_momentum": 0.99}  # fmt: skip
    assert {key: config[key] for key in expected} == expected


def test_omitted_keys_have_kerass_defaults(build, keras):
    ours = build(optimizer={"name": "adamw", "learning_rate": 0.1}).optimizer.get_config()
    theirs = keras.optimizers.AdamW(learning_rate=0.1).get_config()
    for numbered in (ours, theirs):
        del numbered["name"]
    assert ours == theirs


def test_sgd_without_momentum_has_none(build):
    config = build(optimizer={"name": "sgd", "learning_rate": 0.1}).optimizer.get_config()
    assert (config["momentum"], config["nesterov"]) == (0, False)


def test_weight_decay_changes_kernels_but_no_biases_or_batch_normalization(build, keras):
    """Without a gradient, a step leaves (1 - learning rate x decay) of a weight."""
    model = build(
        architecture="deep_conv_dropout",
        build={"filters": [2], "dense_units": 2},
        optimizer={"name": "sgd", "learning_rate": 0.1, "weight_decay": 0.5},
    )
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    model.optimizer.apply([keras.ops.zeros_like(weight) for weight in model.trainable_weights], model.trainable_weights)
    for weight in model.trainable_weights:
        expected = 0.95 if weight.path.endswith("kernel") else 1.0
        np.testing.assert_allclose(keras.ops.convert_to_numpy(weight), expected, rtol=1e-6)


def test_weight_decay_does_not_change_the_layer_scales_of_convnext(build):
    model = build(
        architecture="convnext_tiny", build={"input_size": 64}, optimizer={"name": "adamw", "learning_rate": 0.1}
    )
    model.optimizer.build(model.trainable_variables)
    decayed = {
        weight.path.split("/")[-1] for weight in model.trainable_weights if model.optimizer._use_weight_decay(weight)
    }
    assert decayed == {"kernel"}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        # 4 epochs of 100 steps; expected: the rate after each epoch
        ({"decay": "cosine"}, [(1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(1, 5)]),
        (
            {"decay": "cosine", "warmup_epochs": 2, "final_fraction": 0.1},
            [0.5, 1.0, 0.1 + 0.9 * 0.5, 0.1],
        ),
        ({"decay": "none", "warmup_epochs": 2}, [0.5, 1.0, 1.0, 1.0]),
        # The warm-up would take all 400 steps; the decay has the last one.
        ({"decay": "cosine", "warmup_epochs": 3.999}, [100 / 399, 200 / 399, 300 / 399, 0.0]),
    ],
)
def test_the_learning_rate_follows_its_schedule_step_by_step(build, keras, schedule, expected):
    optimizer = build(optimizer={"name": "sgd", "learning_rate": 0.01}, learning_rate_schedule=schedule).optimizer
    rates = []
    for steps in (100, 200, 300, 400):
        optimizer.iterations.assign(steps)
        rates.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
    np.testing.assert_allclose(rates, 0.01 * np.array(expected), rtol=1e-4, atol=1e-9)


def test_the_model_has_the_batch_normalization_momentum_of_the_recipe(build):
    model = build(
        architecture="deep_conv_dropout", build={"filters": [2], "dense_units": 2}, batch_normalization_momentum=0.25
    )
    assert {layer.momentum for layer in model.layers if hasattr(layer, "momentum")} == {0.25}


def test_if_only_the_head_is_trainable_no_weight_of_the_backbone_is(build):
    model = build(architecture="resnet50", build={"dense_units": 4, "dropout": 0.0}, trainable="head")
    assert [weight.path.split("/")[-1] for weight in model.trainable_weights] == ["kernel", "bias"] * 2
    assert [weight.shape for weight in model.trainable_weights] == [(2048, 4), (4,), (4, 10), (10,)]


def test_training_the_head_does_not_change_weights_or_averages_of_the_backbone(build):
    train = packed_digits().train
    model = build(architecture="resnet50", build={"dense_units": 4, "dropout": 0.0}, trainable="head")
    backbone = next(layer for layer in model.layers if layer.name == "resnet50")
    before, head = backbone.get_weights(), model.layers[-1].get_weights()
    model.run_eagerly = True  # one step: tracing it would take far longer
    model.train_on_batch(train.images[:8], train.labels[:8])
    assert all((old == new).all() for old, new in zip(before, backbone.get_weights(), strict=True))
    assert (head[0] != model.layers[-1].get_weights()[0]).any()


def test_xla_is_never_used_on_a_cpu(build, keras, monkeypatch):
    """Keras would choose XLA if `determinism` is `fast`."""
    calls = []
    compiled = keras.Model.compile
    monkeypatch.setattr(
        keras.Model, "compile", lambda *args, **options: (calls.append(options), compiled(*args, **options))
    )
    build()
    if runtime.device().kind == "cpu":
        assert [options["jit_compile"] for options in calls] == [False]
