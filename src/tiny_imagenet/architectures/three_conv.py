"""Model 2 of the paper (figure 6): three convolutions, a dense layer with dropout. 2,555,656 parameters."""

import keras
from keras import layers

from tiny_imagenet.models.argument_types import Count, Counts, Preprocessing, Rate
from tiny_imagenet.models.blocks import classify, image_input


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "rescale",
    filters: Counts = (32, 64, 128),
    dense_units: Count = 512,
    dropout: Rate = 0.5,
) -> keras.Model:
    """Return the uncompiled model."""
    inputs, x = image_input(input_shape, preprocessing)
    for num_filters in filters:
        x = layers.Conv2D(num_filters, 3, activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Dense(dense_units, activation="relu")(layers.Flatten()(x))
    x = layers.Dropout(dropout)(x)
    return classify(inputs, x, num_classes, "three_conv")
