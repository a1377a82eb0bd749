"""ConvNeXt-Tiny pretrained on ImageNet: 27,820,128 parameters. It scales pixels itself.

Liu et al. 2022, https://arxiv.org/abs/2201.03545, from `keras.applications`.
"""

from functools import partial

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
    """Return the uncompiled model, as `transfer.classify_by` describes it.

    The backbone does the pooling: its last layer normalization was trained after the pool.
    """
    return classify_by(
        partial(keras.applications.ConvNeXtTiny, pooling="avg"),
        "convnext_tiny",
        input_shape=input_shape,
        num_classes=num_classes,
        preprocessing=preprocessing,
        weights=weights,
        input_size=input_size,
        dense_units=dense_units,
        dropout=dropout,
    )
