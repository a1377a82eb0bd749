"""Model 4 of the paper (figure 8): three convolution blocks, a dense layer with dropout. 8,866,376 parameters."""

import keras
from keras import layers

from tiny_imagenet.models.argument_types import Count, Counts, Preprocessing, Rate
from tiny_imagenet.models.blocks import classify, conv_bn_relu, dense_bn_relu, image_input


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "rescale",
    filters: Counts = (64, 128, 256),
    dense_units: Count = 512,
    dropout: Rate = 0.5,
) -> keras.Model:
    """Return the uncompiled model."""
    inputs, x = image_input(input_shape, preprocessing)
    for num_filters in filters:
        x = layers.MaxPooling2D(2)(conv_bn_relu(x, num_filters))
    x = dense_bn_relu(layers.Flatten()(x), dense_units)
    x = layers.Dropout(dropout)(x)
    return classify(inputs, x, num_classes, "deep_conv_dropout")
