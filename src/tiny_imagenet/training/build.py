"""Build the model of a recipe and compile it for a phase of its training."""

from pathlib import Path

import keras

from tiny_imagenet.backend import runtime
from tiny_imagenet.config.recipe import Recipe
from tiny_imagenet.input_pipeline.packed import SIDE
from tiny_imagenet.models.registry import build_classifier
from tiny_imagenet.training.optimizer import make_optimizer
from tiny_imagenet.training.phases import Phase, phases, set_trainable


def build_model(
    recipe: Recipe, *, num_classes: int, weights_file: Path | None, steps_per_epoch: int = 1
) -> keras.Model:
    """Return the model of a recipe, compiled for its last phase.

    Args:
        recipe: the architecture, precision, optimizer and loss.
        num_classes: the number of probabilities that the model returns.
        weights_file: pretrained weights of the backbone, or None.
        steps_per_epoch: converts the epochs of a learning-rate schedule to steps.
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
    compile_model(model, recipe, phases(recipe)[-1], steps_per_epoch)
    return model


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
