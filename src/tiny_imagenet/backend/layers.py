"""Layers of a Keras model, including those of models inside it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def all_layers(model: "keras.Model") -> Iterator["keras.Layer"]:
    """Yield the layers of a model. A layer that is a model is followed by its layers."""
    import keras

    for layer in model.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)


def batch_normalizations(model: "keras.Model") -> list["keras.layers.BatchNormalization"]:
    """Return the layers of a model that are batch normalizations."""
    import keras

    return [layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
