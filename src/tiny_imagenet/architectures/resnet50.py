"""Model 5 of the paper: ResNet50, global average pool, one dense layer with dropout. 25,890,888 parameters.

The paper does not describe its head. 25,890,888 - 23,587,712 (the backbone) is exactly a pool, 1,024 units and 200.
He et al. 2016, https://arxiv.org/abs/1512.03385, from `keras.applications`.
"""

import keras

from tiny_imagenet.models.argument_types import InputSize, OptionalCount, Preprocessing, Rate
from tiny_imagenet.models.transfer import classify_by


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "rescale",
    weights: str | None = None,
    input_size: InputSize = 64,
    dense_units: OptionalCount = 1024,
    dropout: Rate = 0.5,
) -> keras.Model:
    """Return the uncompiled model, as `transfer.classify_by` describes it.

    The default of `preprocessing` is the paper's; the weights expect "caffe".
    """
    return classify_by(
        keras.applications.ResNet50,
        "resnet50",
        input_shape=input_shape,
        num_classes=num_classes,
        preprocessing=preprocessing,
        weights=weights,
        input_size=input_size,
        dense_units=dense_units,
        dropout=dropout,
    )
