"""Undocumented behaviour of Keras that the code relies on: one test each.

docs/decisions/0029-private-parts-of-keras-dvc-and-mlflow.md says where each part is used, and why.
"""

import ast
import json
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from standin import packed_digits

RNG = np.random.default_rng(0)


@pytest.fixture
def model(keras):
    """Return a compiled model that averages its weights, after two steps of Adam."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    model.compile(optimizer=keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.5), loss="mse")
    for _ in range(2):
        model.train_on_batch(np.ones((4, 3)), np.zeros((4, 2)))
    return model


def needs_tensorflow(keras: Any) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("a part of Keras on TensorFlow")


def py_dataset_adapter(keras: Any, model: Any) -> None:
    """`fit` and `evaluate` accept an adapter, and call its `get_tf_dataset`."""
    needs_tensorflow(keras)
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    from tiny_imagenet.input_pipeline.batches import OrderedBatches

    datasets = []

    class Adapter(PyDatasetAdapter):
        def get_tf_dataset(self) -> Any:
            datasets.append(super().get_tf_dataset())
            return datasets[-1]

    batches = OrderedBatches(packed_digits(4, 2).val, batch_size=2)
    classifier = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Flatten(), keras.layers.Dense(10)])
    classifier.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    classifier.evaluate(Adapter(batches), verbose=0)
    [dataset] = datasets
    [(images, labels)] = list(dataset)
    np.testing.assert_array_equal(images, batches[0][0])
    np.testing.assert_array_equal(labels, batches[0][1])


def swap_of_averages(keras: Any, model: Any) -> None:
    """`on_test_begin` swaps and records it; the next epoch starts by swapping back."""
    callback = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    callback.set_model(model)
    plain = model.get_weights()
    callback.on_test_begin()
    assert not np.allclose(model.get_weights()[0], plain[0])
    callback.on_epoch_begin(1)
    np.testing.assert_allclose(model.get_weights()[0], plain[0], rtol=1e-5)


def finalize_ema_values(keras: Any, model: Any) -> None:
    """After it, the weights that Keras writes at the end of a training are those of the model."""
    callback = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    callback.set_model(model)
    callback.set_params({"epochs": 9})
    callback.on_epoch_end(0)
    averages = model.get_weights()
    callback._finalize_ema_values()
    model.optimizer.finalize_variable_values(model.trainable_variables)
    np.testing.assert_array_equal(model.get_weights()[0], averages[0])


def moments(keras: Any, model: Any) -> None:
    """Batch normalization calls `_moments` of the layer; `axis` is the axis that is not reduced."""
    layer = keras.layers.BatchNormalization()
    layer.build((None, 2, 2, 3))
    inputs = RNG.normal(5, 3, (4, 2, 2, 3)).astype(np.float32)
    mean, variance = layer._moments(keras.ops.convert_to_tensor(inputs), None)
    np.testing.assert_allclose(mean, inputs.mean((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(variance, inputs.var((0, 1, 2)), rtol=1e-3)
    assert layer.axis % 4 == 3
    layer._moments = lambda _inputs, _mask: (np.zeros(3, np.float32), np.ones(3, np.float32))
    np.testing.assert_allclose(layer(inputs, training=True), inputs, rtol=1e-3)


def adam_variables(keras: Any, model: Any) -> None:
    """Adam stores the moments of a weight at the index of the weight."""
    layer, optimizer = model.get_layer("dense"), model.optimizer
    indices = [optimizer._get_variable_index(variable) for variable in (layer.kernel, layer.bias)]
    assert indices == [0, 1]
    assert [optimizer._momentums[index].shape for index in indices] == [(3, 2), (2,)]
    assert (np.asarray(optimizer._velocities[0]) > 0).all()
    if keras.backend.backend() == "tensorflow":  # the kernel needs the handles of TensorFlow's variables
        assert optimizer._get_variable_index(layer.bias.value) == 1
        assert optimizer._momentums[0].value.handle is not None


def call_of_an_object(keras: Any, model: Any) -> None:
    """Keras looks up `call` on the layer, not on its class."""
    layer = keras.layers.Dense(2)
    layer.build((None, 3))
    layer.call = lambda inputs, **_: inputs[:, :2]
    rows = RNG.normal(size=(4, 3)).astype(np.float32)
    np.testing.assert_array_equal(layer(rows), rows[:, :2])


def update_step_of_an_object(keras: Any, model: Any) -> None:
    """Keras looks up `update_step` on the optimizer, not on its class."""
    called = []
    model.optimizer.update_step = lambda *given: called.append(given)
    model.optimizer.apply([keras.ops.ones((3, 2)), keras.ops.ones((2,))], model.trainable_variables)
    assert [len(given) for given in called] == [3, 3]  # gradient, variable, learning rate


def state_of_callbacks(keras: Any, kind: str, settings: dict[str, Any]) -> None:
    """A checkpoint saves all state of a callback that changes from epoch to epoch."""
    from tiny_imagenet.training.checkpoint import _REMEMBERED

    callback = getattr(keras.callbacks, kind)(monitor="val_loss", mode="min", patience=2, **settings)
    callback.set_model(SimpleNamespace(get_weights=list, stop_training=False,
                                       optimizer=SimpleNamespace(learning_rate=0.1)))  # fmt: skip
    callback.on_train_begin()
    callback.on_epoch_end(0, {"val_loss": 3.0})  # sets the comparison
    changed = set()
    for epoch, loss in enumerate([2.0, 3.0, 1.0, 3.0, 3.0, 3.0], start=1):
        before = dict(vars(callback))
        callback.on_epoch_end(epoch, {"val_loss": loss})
        changed |= {name for name, value in vars(callback).items() if before[name] is not value}
    remembered = next(names for callback_type, names in _REMEMBERED.items() if isinstance(callback, callback_type))
    assert changed - {"stopped_epoch"} == set(remembered)  # `stopped_epoch` is only printed


def state_of_early_stopping(keras: Any, model: Any) -> None:
    state_of_callbacks(keras, "EarlyStopping", {"restore_best_weights": True})


def state_of_plateau(keras: Any, model: Any) -> None:
    state_of_callbacks(keras, "ReduceLROnPlateau", {"factor": 0.5})


def file_of_a_model(keras: Any, model: Any) -> None:
    """A saved model is a zip with a date in `metadata.json` and memory addresses in `config.json`."""
    regularizer = keras.regularizers.L2(0.1)
    dense = [keras.layers.Dense(2, kernel_regularizer=regularizer) for _ in range(2)]
    shared = keras.Sequential([keras.Input((2,)), *dense])
    with tempfile.TemporaryDirectory() as folder:
        shared.save(Path(folder) / "model.keras")
        content = BytesIO((Path(folder) / "model.keras").read_bytes())
    with zipfile.ZipFile(content) as archive:
        assert {"metadata.json", "config.json", "model.weights.h5"} <= set(archive.namelist())
        assert set(json.loads(archive.read("metadata.json"))) == {"keras_version", "date_saved"}
        assert f'"shared_object_id": {id(regularizer)}' in archive.read("config.json").decode()


def distribute_data_input(keras: Any, model: Any) -> None:
    """Keras on JAX calls the function through its module. The test reads the source: JAX may not be installed."""
    folder = Path(keras.__file__).parent / "src" / "backend" / "jax"
    library, trainer = (ast.parse((folder / f"{name}.py").read_text()) for name in ("distribution_lib", "trainer"))
    [function] = [node for node in library.body if getattr(node, "name", "") == "distribute_data_input"]
    assert [argument.arg for argument in function.args.args] == ["per_process_batch", "layout", "batch_dim_name"]
    assert "jax_distribution_lib.distribute_data_input" in {
        ast.unparse(node) for node in ast.walk(trainer) if isinstance(node, ast.Attribute)
    }


def signature_of_batches(keras: Any, model: Any) -> None:
    """An adapter keeps images and labels as specifications, from the first batches, and makes its dataset of them."""
    needs_tensorflow(keras)
    from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter

    from tiny_imagenet.input_pipeline.batches import OrderedBatches

    adapter = PyDatasetAdapter(OrderedBatches(packed_digits(4, 2).val, batch_size=2))
    assert adapter.get_tf_dataset().element_spec == adapter._output_signature
    images, labels = adapter._output_signature
    assert tuple(images.shape) == (None, 64, 64, 3)
    adapter._output_signature = (type(images)((None, None, None, 3), images.dtype), labels)
    assert tuple(adapter.get_tf_dataset().element_spec[0].shape) == (None, None, None, 3)


PARTS = {
    "PyDatasetAdapter": py_dataset_adapter,
    "PyDatasetAdapter._output_signature": signature_of_batches,
    "SwapEMAWeights.on_test_begin": swap_of_averages,
    "SwapEMAWeights._finalize_ema_values": finalize_ema_values,
    "BatchNormalization._moments": moments,
    "Adam._get_variable_index, _momentums, _velocities": adam_variables,
    "Layer.call of an object": call_of_an_object,
    "Optimizer.update_step of an object": update_step_of_an_object,
    "state of EarlyStopping": state_of_early_stopping,
    "state of ReduceLROnPlateau": state_of_plateau,
    "members of a .keras file": file_of_a_model,
    "jax.distribution_lib.distribute_data_input": distribute_data_input,
}


@pytest.mark.parametrize("part", PARTS)
def test_keras_still_has(part, keras, model):
    PARTS[part](keras, model)
