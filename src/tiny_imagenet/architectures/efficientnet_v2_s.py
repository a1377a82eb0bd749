"""EfficientNetV2-S pretrained on ImageNet: 20,331,360 parameters. It scales pixels itself.

Tan & Le 2021, https://arxiv.org/abs/2104.00298, from `keras.applications`.
"""

import keras

from tiny_imagenet.models.argument_types import BuiltIn, InputSize, OptionalCount, Rate
from tiny_imagenet.models.transfer import classify_by


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
    """Return the uncompiled model, as `transfer.classify_by` describes it."""
    return classify_by(
        keras.applications.EfficientNetV2S,
        "efficientnet_v2_s",
        input_shape=input_shape,
        num_classes=num_classes,
        preprocessing=preprocessing,
        weights=weights,
        input_size=input_size,
        dense_units=dense_units,
        dropout=dropout,
    )
