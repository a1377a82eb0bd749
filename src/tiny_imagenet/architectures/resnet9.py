"""ResNet-9 for images of 64 x 64: a stem of stride 2, then three stages that halve height and width.

David Page's network of nine layers for CIFAR-10 (https://myrtle.ai/learn/how-to-train-your-resnet/, part 4),
with four changes: the stem halves the image, so all other work is at 32 x 32 or below; a pool comes before batch
normalization, as in https://github.com/KellerJordan/cifar10-airbench; the last pool is a global average, so the size of
the image is free; the last layer does not scale its outputs. With 200 classes, 6,675,080 parameters, and 0.38e9
multiplications for a forward pass, a sixth of resnet18's.
"""

import keras
from keras import layers

from tiny_imagenet.models.argument_types import Counts, Depths, Preprocessing
from tiny_imagenet.models.blocks import classify, conv_bn, image_input


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "rescale",
    filters: Counts = (64, 128, 256, 512),
    residual_blocks: Depths = (1, 0, 1),
) -> keras.Model:
    """Return the uncompiled model. `filters` has the stem's and those of each stage; a block is two convolutions."""
    if len(filters) != len(residual_blocks) + 1:
        raise ValueError(
            f"`filters` has {len(filters) - 1} stages after the stem, `residual_blocks` {len(residual_blocks)}"
        )
    inputs, x = image_input(input_shape, preprocessing)
    x = layers.ReLU()(conv_bn(x, filters[0], strides=2))
    for num_filters, num_blocks in zip(filters[1:], residual_blocks, strict=True):
        x = layers.ReLU()(conv_bn(x, num_filters, pool=2))
        for _ in range(num_blocks):
            residual = layers.ReLU()(conv_bn(x, num_filters))
            residual = layers.ReLU()(conv_bn(residual, num_filters))
            x = layers.Add()([x, residual])
    return classify(inputs, layers.GlobalAveragePooling2D()(x), num_classes, "resnet9")
