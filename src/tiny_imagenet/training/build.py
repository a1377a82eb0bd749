"""Build the model of a recipe and compile it for a phase of its training."""

from pathlib import Path

import keras
import numpy as np

from tiny_imagenet.backend import runtime
from tiny_imagenet.backend.layers import batch_normalizations
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.recipe import Recipe
from tiny_imagenet.input_pipeline.packed import SIDE
from tiny_imagenet.models.registry import build_classifier
from tiny_imagenet.training.optimizer import make_optimizer
from tiny_imagenet.training.phases import Phase, phases, set_trainable


def build_model(
    recipe: Recipe, *, num_classes: int, weights_file: Path | None, steps_per_epoch: int = 1
) -> keras.Model:
    """Return the model of a recipe, compiled for its last phase, with the pretrained weights of `weights_file` if any.

    `steps_per_epoch` converts the epochs of a learning-rate schedule to steps. Raise UserError if the architecture does
    not suit `image_size_schedule` or `reestimate_batch_normalization`.
    """
    default_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(recipe.precision)
    try:
        model = build_classifier(
            recipe.architecture,
            input_shape=(SIDE, SIDE, 3),
            num_classes=num_classes,
            preprocessing=recipe.preprocessing,
            weights=str(weights_file) if weights_file else None,
            batch_normalization_momentum=recipe.batch_normalization_momentum,
            **recipe.build,
        )
    finally:
        keras.config.set_dtype_policy(default_policy)
    _accept_image_sizes(model, recipe)
    compile_model(model, recipe, phases(recipe)[-1], steps_per_epoch)
    normalizations = batch_normalizations(model)
    if recipe.reestimate_batch_normalization and not any(layer.trainable for layer in normalizations):
        what = "has frozen its" if normalizations else "has no"
        raise UserError(f"{recipe.architecture} {what} batch normalization; remove `reestimate_batch_normalization`")
    return model


def _accept_image_sizes(model: keras.Model, recipe: Recipe) -> None:
    """Let a model take images of the scheduled sizes. A model that is made of it, such as the saved one, does not."""
    if not recipe.image_sizes:
        return
    model.input_spec = keras.InputSpec(shape=(None, None, None, 3))
    for size in sorted(set(recipe.image_sizes)):
        try:
            probabilities = keras.ops.convert_to_numpy(model(np.zeros((1, size, size, 3), np.uint8)))
        except Exception:  # Keras or its backend, and any kind
            probabilities = np.array(np.nan)
        if not np.isfinite(probabilities).all():  # JAX takes the mean of no pixels
            raise UserError(
                f"image_size_schedule: {recipe.architecture} cannot take images of {size} pixels: it has weights or "
                f"pools for {SIDE}. Choose an architecture that ends in a global average, or remove the key."
            )


def compile_model(model: keras.Model, recipe: Recipe, phase: Phase, steps_per_epoch: int) -> None:
    """Compile a model for a phase, with a new optimizer and the faster kernels of the backend."""
    set_trainable(model, recipe, phase)
    model.compile(
        optimizer=make_optimizer(phase, steps_per_epoch),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing)
        if recipe.soft_labels
        else keras.losses.SparseCategoricalCrossentropy(),
        metrics=["accuracy"],
        jit_compile=runtime.jit_compile(),
    )
    runtime.use_fast_kernels(model)
