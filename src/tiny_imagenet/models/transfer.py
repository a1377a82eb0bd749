"""Parts of pretrained architectures: upscaling, a backbone of `keras.applications`, and a small head.

All parts are in the saved model. It takes uint8 pixels of the dataset's own size.
"""

from collections.abc import Callable

import keras
from keras import layers

from tiny_imagenet.models.argument_types import Preprocessing
from tiny_imagenet.models.blocks import classify, image_input


def classify_by(
    make_backbone: Callable[..., keras.Model],
    name: str,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing,
    weights: str | None,
    input_size: int,
    dense_units: int | None,
    dropout: float,
) -> keras.Model:
    """Return an uncompiled model, all layers trainable: preprocess, upscale, backbone, pool, dense, dropout, softmax.

    `make_backbone` is a function of `keras.applications`; the backbone is one layer of the model. `weights` is the path
    of an HDF5 file for it, in the layout of Keras's `..._notop.h5`; None: random weights. `input_size` is height and
    width of its input, by bilinear interpolation after preprocessing; the order does not matter, because preprocessing
    is linear in the pixels. `dense_units` of a ReLU layer come before the dropout; None: no such layer.
    """
    inputs, x = image_input(input_shape, preprocessing)
    if (input_size, input_size) != input_shape[:2]:
        x = layers.Resizing(input_size, input_size, interpolation="bilinear", name="upscale")(x)
    backbone = make_backbone(include_top=False, weights=None, input_shape=(input_size, input_size, 3))
    if weights is not None:
        backbone.load_weights(weights)
    x = backbone(x)
    if len(x.shape) == 4:  # ConvNeXt pools by itself
        x = layers.GlobalAveragePooling2D()(x)
    if dense_units is not None:
        x = layers.Dense(dense_units, activation="relu")(x)
    x = layers.Dropout(dropout)(x)
    return classify(inputs, x, num_classes, name)
