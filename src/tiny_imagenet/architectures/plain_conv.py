"""A plain stack of 3x3 convolutions with a global average instead of model 4's flatten and dense layer.

That dense layer has 8.4 of model 4's 8.9 million parameters; here they go into more convolutions. The stages are VGG's
(Simonyan and Zisserman 2015, https://arxiv.org/abs/1409.1556), with batch normalization and the global average of
Network in Network (Lin et al. 2014, https://arxiv.org/abs/1312.4400). No skip connections.
"""

import keras
from keras import layers

from tiny_imagenet.models.argument_types import Counts, Preprocessing, Rate
from tiny_imagenet.models.blocks import classify, conv_bn_relu, image_input


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "rescale",
    filters: Counts = (64, 128, 256, 512),
    convolutions: Counts = (1, 1, 2, 2),
    dropout: Rate = 0.0,
) -> keras.Model:
    """Return the uncompiled model. Each stage has its number of `filters` and of `convolutions`; 2x2 pools between."""
    inputs, x = image_input(input_shape, preprocessing)
    if len(filters) != len(convolutions):
        raise ValueError(f"`filters` has {len(filters)} stages, but `convolutions` has {len(convolutions)}")
    for stage, (num_filters, num_convolutions) in enumerate(zip(filters, convolutions, strict=True)):
        if stage:
            x = layers.MaxPooling2D(2)(x)
        for _ in range(num_convolutions):
            x = conv_bn_relu(x, num_filters)
    x = layers.Dropout(dropout)(layers.GlobalAveragePooling2D()(x))
    return classify(inputs, x, num_classes, "plain_conv")
