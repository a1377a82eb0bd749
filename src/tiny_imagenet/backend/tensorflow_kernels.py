"""Faster TensorFlow kernels for the training step on a CPU. Saved models stay plain Keras.

Keras builds its layers from small operations that all backends have. For some combinations TensorFlow has one fast
kernel; for others its kernels are slow. `python -m benchmarks.training step`, with and without `--plain`, measures the
difference. docs/decisions/0029-private-parts-of-keras-dvc-and-mlflow.md lists the private parts of Keras used here.
"""

from types import MethodType
from typing import Any

import keras
import tensorflow as tf

from tiny_imagenet.backend.layers import all_layers


def use_fused_kernels(model: keras.Model) -> None:
    """Replace methods of the layers and the optimizer of a compiled model: on the objects, not on their classes.

    Results differ from plain Keras by rounding only. Layers in half precision and subclasses are not changed.
    """
    calls = {
        keras.layers.BatchNormalization: _normalize,
        keras.layers.Conv2D: _convolve,
        keras.layers.Dense: _multiply,
    }
    for layer in all_layers(model):
        if type(layer) in calls and layer.compute_dtype == "float32":
            layer.call = MethodType(calls[type(layer)], layer)
    optimizer = model.optimizer
    if type(optimizer) in (keras.optimizers.Adam, keras.optimizers.AdamW) and not optimizer.amsgrad:
        optimizer.update_step = MethodType(_adam, optimizer)


def normalize_across_devices(model: keras.Model) -> None:
    """Make batch normalization use mean and variance of the whole batch, not of the part of each device.

    Keras's `synchronized` is less exact: it subtracts the squared mean from the mean square, and digits cancel. After
    one step, losses differed by 2e-4 from those of one device, here by 1e-6. It would also be saved with the model. All
    devices need parts of the same size.
    """
    for layer in all_layers(model):
        if type(layer) is keras.layers.BatchNormalization:
            layer._moments = MethodType(_moments_of_all, layer)


def _moments_of_all(layer: keras.layers.BatchNormalization, inputs: Any, mask: Any) -> Any:
    replica = tf.distribute.get_replica_context()
    if mask is not None or replica is None:  # no replica while the model is built
        return type(layer)._moments(layer, inputs, mask)
    rank = len(inputs.shape)
    reduced = [axis for axis in range(rank) if axis != layer.axis % rank]

    def mean_of_all(values: Any) -> Any:
        return replica.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(values, reduced))

    mean = mean_of_all(inputs)
    shape = [1 if axis in reduced else -1 for axis in range(rank)]
    return mean, mean_of_all(tf.math.squared_difference(inputs, tf.reshape(mean, shape)))


def _normalize(
    layer: keras.layers.BatchNormalization, inputs: Any, training: bool | None = None, mask: Any = None
) -> Any:
    """Normalize in one kernel, with the gradient in another. Keras makes many passes over the images."""
    rank = len(inputs.shape)
    is_usual = rank in (2, 4) and layer.axis in (-1, rank - 1) and layer.center and layer.scale and not layer.renorm
    if not (training and layer.trainable) or mask is not None or not is_usual:
        return type(layer).call(layer, inputs, training=training, mask=mask)
    images = inputs if rank == 4 else inputs[:, None, None, :]
    empty = tf.zeros(0)
    normalized, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=images,
        scale=layer.gamma,
        offset=layer.beta,
        mean=empty,
        variance=empty,
        epsilon=layer.epsilon,
        is_training=True,
    )
    # The variance of the kernel is n / (n - 1) times the one that Keras averages.
    count = tf.cast(tf.size(images) // images.shape[-1], tf.float32)
    variance *= tf.maximum(count - 1, 1) / count
    for average, value in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
        average.assign(average * layer.momentum + value * (1 - layer.momentum))
    return normalized if rank == 4 else normalized[:, 0, 0, :]


@tf.custom_gradient
def _add_bias(images: Any, bias: Any) -> Any:
    def gradient(upstream: Any) -> Any:
        rows = tf.reshape(upstream, (-1, upstream.shape[-1]))
        return upstream, tf.matmul(tf.ones((1, tf.shape(rows)[0])), rows)[0]

    return tf.nn.bias_add(images, bias), gradient


def _convolve(layer: keras.layers.Conv2D, inputs: Any) -> Any:
    """Convolve, with a separate gradient of the bias. TensorFlow fuses it into a slow gradient of the kernel."""
    if layer.data_format != "channels_last":
        return type(layer).call(layer, inputs)
    if layer.kernel_size == (1, 1) and layer.groups == 1 and None not in inputs.shape[1:]:
        outputs = _convolve_pixels(layer, inputs)
    else:
        outputs = layer.convolution_op(inputs, layer.kernel)
    if layer.use_bias:
        outputs = _add_bias(outputs, tf.convert_to_tensor(layer.bias))
    return outputs if layer.activation is None else layer.activation(outputs)


def _convolve_pixels(layer: keras.layers.Conv2D, inputs: Any) -> Any:
    """Convolve with a kernel of one pixel, as a matrix product. It is faster than oneDNN's convolution."""
    down, right = layer.strides
    points = inputs[:, ::down, ::right] if layer.strides != (1, 1) else inputs
    channels = inputs.shape[-1]
    kernel = tf.reshape(tf.convert_to_tensor(layer.kernel), (channels, layer.filters))
    outputs = _product(tf.reshape(points, (-1, channels)), kernel)
    return tf.reshape(outputs, (-1, *points.shape[1:-1], layer.filters))


@tf.custom_gradient
def _product(rows: Any, kernel: Any) -> Any:
    def gradient(upstream: Any) -> Any:
        row_gradient = tf.raw_ops.BatchMatMulV2(x=upstream[None], y=kernel[None], adj_y=True)[0]
        return row_gradient, tf.matmul(rows, upstream, transpose_a=True)

    return tf.matmul(rows, kernel), gradient


def _multiply(layer: keras.layers.Dense, inputs: Any, training: bool | None = None) -> Any:
    """Multiply; compute the gradient of the inputs by a batched product, which is faster for 64 rows."""
    if len(inputs.shape) != 2 or not layer.use_bias:
        return type(layer).call(layer, inputs, training=training)
    outputs = tf.nn.bias_add(_product(inputs, tf.convert_to_tensor(layer.kernel)), tf.convert_to_tensor(layer.bias))
    return outputs if layer.activation is None else layer.activation(outputs)


def _adam(optimizer: keras.optimizers.Adam, gradient: Any, variable: Any, learning_rate: Any) -> None:
    """Update the weights and both moments in one pass. Keras makes many."""
    index = optimizer._get_variable_index(variable)
    step = tf.cast(optimizer.iterations + 1, variable.dtype)
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=optimizer._momentums[index].value.handle,
        v=optimizer._velocities[index].value.handle,
        beta1_power=tf.pow(tf.cast(optimizer.beta_1, variable.dtype), step),
        beta2_power=tf.pow(tf.cast(optimizer.beta_2, variable.dtype), step),
        lr=tf.cast(learning_rate, variable.dtype),
        beta1=tf.cast(optimizer.beta_1, variable.dtype),
        beta2=tf.cast(optimizer.beta_2, variable.dtype),
        epsilon=tf.cast(optimizer.epsilon, variable.dtype),
        grad=gradient,
    )
