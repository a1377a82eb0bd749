"""ResNet-18 for images of 64 x 64: a 3x3 stem of stride 1 without a pool, then four stages of two basic blocks.

He et al. 2016, https://arxiv.org/abs/1512.03385; the stem is the one that paper has for small images (its section 4.2).
With 200 classes 11,271,432 parameters are trained; 9,600 moving averages of batch normalization, which Keras counts as
parameters too, make 11,281,032. A forward pass takes 2.2e9 multiplications an image, 13 times those of model 4.
"""

import keras
from keras import layers

from tiny_imagenet.models._blocks import classify, image_input
from tiny_imagenet.models._types import Count, Counts, Preprocessing


def build(
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    preprocessing: Preprocessing = "rescale",
    filters: Counts = (64, 128, 256, 512),
    blocks_per_stage: Count = 2,
) -> keras.Model:
    """Return the uncompiled model: every stage but the first halves the height and width of its images."""
    inputs, x = image_input(input_shape, preprocessing)
    x = layers.ReLU()(_conv_bn(x, filters[0]))
    for stage, num_filters in enumerate(filters):
        for block in range(blocks_per_stage):
            x = _basic_block(x, num_filters, strides=2 if stage and not block else 1)
    return classify(inputs, layers.GlobalAveragePooling2D()(x), num_classes, "resnet18")


def _basic_block(x: keras.KerasTensor, filters: int, *, strides: int) -> keras.KerasTensor:
    """Apply two 3x3 convolutions beside a shortcut: the input itself or, where shapes differ, a 1x1 projection of it.

    The second normalization starts at 0, and so the block as its shortcut (Goyal et al. 2017, section 5.1,
    https://arxiv.org/abs/1706.02677).
    """
    residual = layers.ReLU()(_conv_bn(x, filters, strides=strides))
    residual = _conv_bn(residual, filters, gamma_initializer="zeros")
    if strides != 1 or x.shape[-1] != filters:
        x = _conv_bn(x, filters, kernel_size=1, strides=strides)
    return layers.ReLU()(layers.Add()([x, residual]))


def _conv_bn(
    x: keras.KerasTensor, filters: int, *, kernel_size: int = 3, strides: int = 1, gamma_initializer: str = "ones"
) -> keras.KerasTensor:
    """Apply a convolution without bias (He normal) and batch normalization."""
    x = layers.Conv2D(
        filters, kernel_size, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    return layers.BatchNormalization(gamma_initializer=gamma_initializer)(x)
