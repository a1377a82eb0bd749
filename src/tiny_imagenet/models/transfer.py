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

    Args:
        make_backbone: a function of `keras.applications`. The backbone is one layer of the model.
        name: of the model.
        input_shape: (height, width, 3) of the images.
        num_classes: number of probabilities.
        preprocessing: see `blocks.image_input`.
        weights: path of an HDF5 file for the backbone, in the layout of Keras's `..._notop.h5`. None: random weights.
        input_size: height and width of the backbone's input, by bilinear interpolation after preprocessing. The order
            does not matter, because preprocessing is linear in the pixels.
        dense_units: units of a ReLU layer before the dropout. None: no such layer.
        dropout: rate before the last layer.
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
