"""VGG16 pretrained on ImageNet: 14,714,688 parameters, and a dense layer. Its weights expect "caffe".

Simonyan & Zisserman 2015, https://arxiv.org/abs/1409.1556, from `keras.applications`, without the three dense layers,
which have 124 of the 138 million parameters.
"""

import keras

from tiny_imagenet.models.argument_types import InputSize, OptionalCount, Preprocessing, Rate
from tiny_imagenet.models.transfer import classify_by


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "caffe",
    weights: str | None = None,
    input_size: InputSize = 128,
    dense_units: OptionalCount = None,
    dropout: Rate = 0.5,
) -> keras.Model:
    """Return the uncompiled model, as `transfer.classify_by` describes it."""
    return classify_by(
        keras.applications.VGG16,
        "vgg16",
        input_shape=input_shape,
        num_classes=num_classes,
        preprocessing=preprocessing,
        weights=weights,
        input_size=input_size,
        dense_units=dense_units,
        dropout=dropout,
    )
