"""Model 3 of the paper (figure 7): six convolutions and three dense layers, no dropout. 140,382,728 parameters.

Almost all of them (134,221,824) are between the last pool's 32,768 values and the first 4,096 dense units.
"""

import keras
from keras import layers

from tiny_imagenet.models.argument_types import Counts, Penalty, Preprocessing
from tiny_imagenet.models.blocks import classify, conv_bn_relu, dense_bn_relu, image_input


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "rescale",
    filters: Counts = (64, 64, 128, 128, 256, 512),
    dense_units: Counts = (4096, 1024),
    l2: Penalty = 0.001,
) -> keras.Model:
    """Return the uncompiled model: a 3x3 pool of stride 2 follows every second convolution."""
    inputs, x = image_input(input_shape, preprocessing)
    regularizer = keras.regularizers.L2(l2)
    for index, num_filters in enumerate(filters):
        x = conv_bn_relu(x, num_filters, regularizer=regularizer)
        if index % 2 == 1:
            x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.Flatten()(x)
    for units in dense_units:
        x = dense_bn_relu(x, units, regularizer=regularizer)
    return classify(inputs, x, num_classes, "deep_conv")
