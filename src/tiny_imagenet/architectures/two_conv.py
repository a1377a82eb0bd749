"""Model 1 of the paper (figure 5): two convolutions, a wide dense layer with L2. 13,070,472 parameters."""

import keras
from keras import layers

from tiny_imagenet.models.argument_types import Count, Counts, Penalty, Preprocessing
from tiny_imagenet.models.blocks import classify, image_input


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "rescale",
    filters: Counts = (32, 64),
    dense_units: Count = 1024,
    l2: Penalty = 0.01,
) -> keras.Model:
    """Return the uncompiled model. L2 is on the last convolution, as in the authors' code; the paper names no layer."""
    inputs, x = image_input(input_shape, preprocessing)
    for index, num_filters in enumerate(filters):
        last = index == len(filters) - 1
        regularizer = keras.regularizers.L2(l2) if last else None
        x = layers.Conv2D(num_filters, 3, activation="relu", kernel_regularizer=regularizer)(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(dense_units, activation="relu")(layers.Flatten()(x))
    return classify(inputs, x, num_classes, "two_conv")
