"""ResNet-18 for images of 64 x 64: a 3x3 stem of stride 1 without a pool, then four stages of two basic blocks.

He et al. 2016, https://arxiv.org/abs/1512.03385, with its stem for small images (section 4.2). With 200 classes,
11,281,032 parameters: 11,271,432 are trained, and Keras also counts 9,600 moving averages of batch normalization. A
forward pass takes 2.2e9 multiplications per image, 13 times model 4's.
"""

import keras
from keras import layers

from tiny_imagenet.models.argument_types import Count, Counts, Preprocessing
from tiny_imagenet.models.blocks import classify, conv_bn, image_input


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "rescale",
    filters: Counts = (64, 128, 256, 512),
    blocks_per_stage: Count = 2,
) -> keras.Model:
    """Return the uncompiled model. Each stage but the first halves height and width."""
    inputs, x = image_input(input_shape, preprocessing)
    x = layers.ReLU()(conv_bn(x, filters[0]))
    for stage, num_filters in enumerate(filters):
        for block in range(blocks_per_stage):
            strides = 2 if stage and not block else 1
            residual = layers.ReLU()(conv_bn(x, num_filters, strides=strides))
            residual = conv_bn(residual, num_filters)
            if residual.shape != x.shape:  # the shortcut is a 1x1 projection
                x = conv_bn(x, num_filters, kernel_size=1, strides=strides)
            x = layers.ReLU()(layers.Add()([x, residual]))
    return classify(inputs, layers.GlobalAveragePooling2D()(x), num_classes, "resnet18")
