"""Parts that architectures share: the input with its preprocessing, blocks of layers, and the last layer."""

import keras
from keras import layers

from tiny_imagenet.models.argument_types import Preprocessing

# Caffe's ImageNet models subtract these from blue, green and red pixels of 0 to 255.
_CAFFE_MEANS = (103.939, 116.779, 123.68)


def image_input(
    input_shape: tuple[int, int, int], preprocessing: Preprocessing
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Return the model's input (uint8 RGB, 0 to 255) and the tensor after preprocessing.

    "rescale" divides by 255. "caffe" returns BGR minus ImageNet's means, for Keras's weights of ResNet50 and VGG16.
    "tf" scales to -1 to 1, for those of InceptionV3. "none" keeps 0 to 255, for a backbone that scales pixels itself.
    """
    inputs = keras.Input(input_shape, dtype="uint8", name="image")
    if preprocessing == "rescale":
        return inputs, layers.Rescaling(1 / 255, name="rescale")(inputs)
    if preprocessing == "tf":
        return inputs, layers.Rescaling(1 / 127.5, offset=-1.0, name="tf")(inputs)
    pixels = layers.Rescaling(1.0, name="to_float")(inputs)
    if preprocessing == "none":
        return inputs, pixels
    blue_green_red = keras.ops.flip(pixels, axis=-1)
    offsets = [-mean for mean in _CAFFE_MEANS]
    return inputs, layers.Rescaling([1.0, 1.0, 1.0], offsets, name="caffe")(blue_green_red)


def conv_bn_relu(
    x: keras.KerasTensor, filters: int, *, regularizer: keras.regularizers.Regularizer | None = None
) -> keras.KerasTensor:
    """Apply a 3x3 convolution of the same size (He normal), batch normalization and ReLU."""
    x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_normal", kernel_regularizer=regularizer)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def conv_bn(
    x: keras.KerasTensor, filters: int, *, kernel_size: int = 3, strides: int = 1, pool: int = 1
) -> keras.KerasTensor:
    """Apply a convolution without bias (He normal, same padding), a max-pool if `pool` > 1, and batch normalization."""
    x = layers.Conv2D(
        filters, kernel_size, strides=strides, padding="same", use_bias=False, kernel_initializer="he_normal"
    )(x)
    if pool > 1:
        x = layers.MaxPooling2D(pool)(x)
    return layers.BatchNormalization()(x)


def dense_bn_relu(
    x: keras.KerasTensor, units: int, *, regularizer: keras.regularizers.Regularizer | None = None
) -> keras.KerasTensor:
    """Apply a dense layer (He normal), batch normalization and ReLU."""
    x = layers.Dense(units, kernel_initializer="he_normal", kernel_regularizer=regularizer)(x)
    return layers.ReLU()(layers.BatchNormalization()(x))


def classify(inputs: keras.KerasTensor, features: keras.KerasTensor, num_classes: int, name: str) -> keras.Model:
    """Return the model that ends in class probabilities. They are float32 even in mixed precision."""
    outputs = layers.Dense(num_classes, activation="softmax", dtype="float32", name="probabilities")(features)
    return keras.Model(inputs, outputs, name=name)
