"""Callbacks of a training: Keras's schedules and stops as a recipe names them, and our own metrics, checks and output.

The order in which Keras calls them is in train.py (`_Callbacks.in_order`).
"""

import math
import statistics
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tiny_imagenet.backend.layers import all_layers
from tiny_imagenet.common.errors import DivergedError
from tiny_imagenet.config.recipe import Recipe
from tiny_imagenet.input_pipeline.batches import OrderedBatches, Untuned
from tiny_imagenet.input_pipeline.packed import SIDE


def schedules_and_stops(recipe: Recipe) -> list[keras.callbacks.Callback]:
    """Return Keras's callbacks for the schedules and stops that a recipe names."""
    callbacks: list[keras.callbacks.Callback] = []
    if recipe.reduce_learning_rate:
        plateau = recipe.reduce_learning_rate
        monitor = recipe.monitored(plateau.monitor)
        callbacks.append(
            keras.callbacks.ReduceLROnPlateau(
                monitor=monitor, mode=_direction(monitor), factor=plateau.factor, patience=plateau.patience
            )
        )
    if recipe.early_stopping:
        stop = recipe.early_stopping
        monitor = recipe.monitored(stop.monitor)
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=monitor,
                mode=_direction(monitor),
                patience=stop.patience,
                restore_best_weights=stop.restore_best_weights and recipe.reported_epoch == "recipe",
            )
        )
    if recipe.reported_epoch == "best":
        # It is too patient to stop a training; at the end it restores the best weights.
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=recipe.monitored("val_accuracy"), mode="max", patience=recipe.epochs, restore_best_weights=True
            )
        )
    return callbacks


def kept_epoch(callbacks: Sequence[keras.callbacks.Callback], epochs_done: int) -> int:
    """Return the epoch, from 1, whose weights a complete training has: the one that a callback restored, or the last.

    Args:
        callbacks: as `schedules_and_stops` gave them, after the training.
        epochs_done: how many epochs the training has in all.
    """
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.EarlyStopping) and callback.restore_best_weights:
            return int(callback.best_epoch) + 1
    return epochs_done


def _direction(monitor: str) -> str:
    return "max" if monitor.endswith("accuracy") else "min"


class StopAtNaN(keras.callbacks.Callback):
    """Raise DivergedError as soon as a loss, a metric or, after an epoch, a weight is not finite.

    The weights are checked because some kernels of oneDNN turn NaN into 0, so that the loss looks fine.
    """

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._check(logs, f"epoch {self._epoch}, batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._check(logs, f"epoch {self._epoch}")
        for variable in self.model.weights:
            if not keras.ops.all(keras.ops.isfinite(variable)):
                self._diverged(f"not all of {variable.path} are finite numbers after epoch {self._epoch}")

    def _check(self, logs: dict[str, float] | None, when: str) -> None:
        for name, value in (logs or {}).items():
            if not math.isfinite(value):
                self._diverged(f"{name} is {value} in {when}")

    def _diverged(self, evidence: str) -> NoReturn:
        raise DivergedError(f"{evidence}: the training has diverged; lower its learning rate")


class SeedEpoch(keras.callbacks.Callback):
    """Seed each epoch by (seed, epoch), so that a resumed training draws the same numbers.

    Dropout on the torch backend needs it: its generator is not Keras's. On other backends the state of dropout's
    generator is a variable of the model, which the checkpoint has.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        keras.utils.set_random_seed(int(np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0]))


class AveragedWeights(keras.callbacks.SwapEMAWeights):
    """Keras's swap of averaged weights, also for a phase that stops early or is resumed. Each phase needs a new one.

    As an epoch ends, Keras puts the averages into the model, and the plain weights into their place in the optimizer;
    as the next one begins, it swaps them back.
    """

    def __init__(self) -> None:
        super().__init__(swap_on_epoch=True)

    def expect_averages(self) -> None:
        """Have the next epoch begin with a swap: call it before the weights of an epoch's end are assigned."""
        self.on_test_begin()  # swaps, and notes that the averages are in the model

    def keep_on_stop(self) -> keras.callbacks.Callback:
        """Return a callback that keeps the averages after an early stop; it has to come after the callbacks that stop.

        Keras keeps them at the end of the last planned epoch alone, and would return the plain weights.
        """
        return keras.callbacks.LambdaCallback(on_epoch_end=self._keep_if_stopping)

    def _keep_if_stopping(self, _epoch: int, _logs: dict[str, float]) -> None:
        if self.model.stop_training:
            self._finalize_ema_values()


class NormalizationStatistics(keras.callbacks.Callback):
    """Before each validation, replace the moving averages of batch normalization by mean and variance over images.

    Moving averages are those of the last steps: of older weights, and of augmented images, perhaps smaller ones. This
    is PreciseBN (Wu & Johnson 2021, section 3, https://arxiv.org/abs/2105.07576): from the mean m and variance v of
    each batch, the mean of m and the mean of v + m^2 give those of all images. Batch normalization that is frozen
    keeps its own.

    Args:
        batches: clean images, whole batches in every process.
    """

    def __init__(self, batches: OrderedBatches):
        super().__init__()
        self._batches = batches

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        normalizations = [
            layer for layer in all_layers(self.model) if isinstance(layer, keras.layers.BatchNormalization)
        ]
        layers = [layer for layer in normalizations if layer.trainable]
        if not layers:
            return
        momenta = [layer.momentum for layer in layers]
        moments = [np.zeros((2, *layer.moving_mean.shape)) for layer in layers]
        num_images = 0
        try:
            for layer in layers:
                layer.momentum = 0.0  # the averages are then those of one batch
            for index in range(len(self._batches)):
                images, _ = self._batches[index]
                self.model(images, training=True)
                num_images += len(images)
                for layer, sums in zip(layers, moments, strict=True):
                    mean, variance = map(keras.ops.convert_to_numpy, (layer.moving_mean, layer.moving_variance))
                    sums += len(images) * np.stack([mean, variance + np.square(mean, dtype=np.float64)])
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum
        for layer, sums in zip(layers, moments, strict=True):
            mean, square = sums / num_images
            layer.moving_mean.assign(mean)
            layer.moving_variance.assign(np.maximum(square - mean**2, 0))


class LearningRate(keras.callbacks.Callback):
    """Add the learning rate of an epoch to its metrics."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class ExtraValidation(keras.callbacks.Callback):
    """Measure loss and accuracy on more images after each epoch, and add them to its metrics.

    Args:
        batches: the images.
        names: Keras's "loss" and "accuracy" -> the name in the history; a metric without a name is left out.
    """

    def __init__(self, batches: keras.utils.PyDataset, names: dict[str, str]):
        super().__init__()
        self._batches = batches
        self._names = names

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if logs is not None:
            metrics = self.model.evaluate(Untuned(self._batches), verbose=0, return_dict=True)
            logs |= {ours: metrics[keras_name] for keras_name, ours in self._names.items()}


class Clock(keras.callbacks.Callback):
    """Time each epoch as a whole, and its training without validation."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch_seconds: list[float] = []
        self.training_seconds: list[float] = []
        self._start = self._last_batch = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._start = self._last_batch = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._last_batch = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch_seconds.append(round(time.perf_counter() - self._start, 3))
        self.training_seconds.append(round(self._last_batch - self._start, 3))

    def images_per_second(self, images_per_epoch: int, first_epoch: int = 0) -> float:
        """Return the median of the epochs from `first_epoch` on, without that one if there are more: it compiles."""
        timed = self.training_seconds[first_epoch:]
        seconds = timed[1:] or timed
        return round(images_per_epoch / statistics.median(seconds), 1) if seconds else math.nan


class ConsoleLines(keras.callbacks.Callback):
    """Print a line per epoch, a progress bar on a terminal, and early in the training how long it will take."""

    _WARM_UP_BATCHES = 3
    """The first batches compile the step, and take longer than the rest."""
    _SECONDS_BEFORE_ESTIMATE = 2.0

    def __init__(self, epochs: int, num_batches: int, clock: Clock, image_sizes: Sequence[int] = ()):
        super().__init__()
        self._epochs = epochs
        self._pixels = [size**2 for size in [*image_sizes, *[SIDE] * epochs][:epochs]]
        self._num_batches = num_batches
        self._clock = clock
        self._estimated = False
        self._warm = 0.0
        self._first_epoch: int | None = None
        self._bar: Progress | None = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._estimated, self._first_epoch = False, None  # an epoch of another phase takes another time

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._first_epoch is None:
            self._first_epoch = epoch
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(f"epoch {epoch + 1}/{self._epochs}", total=self._num_batches)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        if self._bar:
            self._bar.advance(self._task)
        if self._estimated:
            return
        if batch + 1 == self._WARM_UP_BATCHES:
            self._warm = time.perf_counter()
        measured = batch + 1 - self._WARM_UP_BATCHES
        elapsed = time.perf_counter() - self._warm
        if measured > 0 and (elapsed > self._SECONDS_BEFORE_ESTIMATE or batch + 1 == self._num_batches):
            self._estimated = True
            epoch = elapsed / measured * self._num_batches
            to_go = self._pixels[self._first_epoch : self.params["epochs"]]  # time is about proportional to pixels
            self._say(
                f"expected: {_duration(epoch)} per epoch, {_duration(epoch * sum(to_go) / to_go[0])} for {len(to_go)} "
                "epochs, validation not counted"
            )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.close()
        metrics = logs or {}
        self._say(
            f"epoch {epoch + 1:>2}/{self._epochs}  "
            f"accuracy {metrics['accuracy']:6.2%}  val_accuracy {metrics['val_accuracy']:6.2%}  "
            f"loss {metrics['loss']:.4f}  val_loss {metrics['val_loss']:.4f}  "
            f"learning_rate {metrics['learning_rate']:.3g}  {_duration(self._clock.epoch_seconds[-1])}"
        )

    def close(self) -> None:
        """Remove the progress bar. Keras does not tell callbacks that a training has failed."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _say(self, line: str) -> None:
        if self._bar:
            self._bar.console.print(line, highlight=False)
        else:
            print(line, flush=True)  # noqa: T201 - the line per epoch is this callback's purpose


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
