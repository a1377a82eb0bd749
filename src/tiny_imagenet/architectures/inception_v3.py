"""InceptionV3 pretrained on ImageNet: 21,802,784 parameters. Its weights expect "tf" and at least 75 x 75 pixels.

Szegedy et al. 2016, https://arxiv.org/abs/1512.00567, from `keras.applications`.
"""

import keras

from tiny_imagenet.models.argument_types import InceptionInputSize, OptionalCount, Preprocessing, Rate
from tiny_imagenet.models.transfer import classify_by


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "tf",
    weights: str | None = None,
    input_size: InceptionInputSize = 160,
    dense_units: OptionalCount = None,
    dropout: Rate = 0.2,
) -> keras.Model:
    """Return the uncompiled model, as `transfer.classify_by` describes it."""
    return classify_by(
        keras.applications.InceptionV3,
        "inception_v3",
        input_shape=input_shape,
        num_classes=num_classes,
        preprocessing=preprocessing,
        weights=weights,
        input_size=input_size,
        dense_units=dense_units,
        dropout=dropout,
    )
