"""Model 5 of the paper: ResNet50, global average pool, one dense layer with dropout. 25,890,888 parameters.

The paper does not describe its head; 25,890,888 - 23,587,712 (the backbone) is exactly a pool, 1,024 units and 200.
He et al. 2016, https://arxiv.org/abs/1512.03385, as `keras.applications` has it.
"""

import keras
from keras import layers

from tiny_imagenet.models._blocks import classify, image_input
from tiny_imagenet.models._types import Count, Preprocessing, Rate


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "rescale",
    weights: str | None = None,
    dense_units: Count = 1024,
    dropout: Rate = 0.5,
) -> keras.Model:
    """Return the uncompiled model, all layers trainable.

    `weights` is the path of an HDF5 file for the backbone, in the layout of Keras's `..._notop.h5`; null draws
    them at random.
    """
    inputs, x = image_input(input_shape, preprocessing)
    backbone = keras.applications.ResNet50(include_top=False, weights=None, input_shape=input_shape)
    if weights is not None:
        backbone.load_weights(weights)
    x = layers.GlobalAveragePooling2D()(backbone(x))
    x = layers.Dense(dense_units, activation="relu")(x)
    x = layers.Dropout(dropout)(x)
    return classify(inputs, x, num_classes, "resnet50")
