"""EfficientNet-B0 pretrained on ImageNet: 4,049,571 parameters. It scales pixels itself.

Tan & Le 2019, https://arxiv.org/abs/1905.11946, from `keras.applications`.
"""

import math
from typing import Any

import keras

from tiny_imagenet.models.argument_types import BuiltIn, InputSize, OptionalCount, Rate
from tiny_imagenet.models.transfer import classify_by

_DEVIATIONS = (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue, as shares of 255


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: BuiltIn = "none",
    weights: str | None = None,
    input_size: InputSize = 128,
    dense_units: OptionalCount = None,
    dropout: Rate = 0.2,
) -> keras.Model:
    """Return the uncompiled model, as `transfer.classify_by` describes it.

    With weights, divide pixels by the roots of ImageNet's deviations after the backbone's own normalization. Keras does
    the same, but only if it downloads the file itself (https://github.com/tensorflow/tensorflow/issues/49930).
    """

    def make_backbone(**arguments: Any) -> keras.Model:
        backbone = keras.applications.EfficientNetB0(**arguments)
        return backbone if weights is None else keras.models.clone_model(backbone, call_function=call)

    def call(layer: keras.Layer, *args: Any, **kwargs: Any) -> keras.KerasTensor:
        outputs = layer(*args, **kwargs)
        if not isinstance(layer, keras.layers.Normalization):
            return outputs
        return keras.layers.Rescaling([1 / math.sqrt(deviation) for deviation in _DEVIATIONS])(outputs)

    return classify_by(
        make_backbone,
        "efficientnet_b0",
        input_shape=input_shape,
        num_classes=num_classes,
        preprocessing=preprocessing,
        weights=weights,
        input_size=input_size,
        dense_units=dense_units,
        dropout=dropout,
    )
