"""All layers of a Keras model, including those of models inside it."""

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
