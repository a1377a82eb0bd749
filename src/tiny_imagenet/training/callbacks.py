"""Callbacks of a training: Keras's schedules and stops, and our own metrics, checks and output.

Their order is in train.py (`_Callbacks.in_order`).
"""

import math
import statistics
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

import keras
import numpy as np
from rich.progress import Progress

from tiny_imagenet.backend.layers import batch_normalizations
from tiny_imagenet.common.errors import DivergedError
from tiny_imagenet.common.progress import progress_bar, say
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
        # Its patience never runs out: it only restores the best weights at the end.
        callbacks.append(
            keras.callbacks.EarlyStopping(
                monitor=recipe.monitored("val_accuracy"), mode="max", patience=recipe.epochs, restore_best_weights=True
            )
        )
    return callbacks


def kept_epoch(callbacks: Sequence[keras.callbacks.Callback], epochs_done: int) -> int:
    """Return the epoch, from 1, whose weights a completed training keeps: the one restored by a callback, or the last.

    The callbacks are those of `schedules_and_stops`, after the training.
    """
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.EarlyStopping) and callback.restore_best_weights:
            return int(callback.best_epoch) + 1
    return epochs_done


def _direction(monitor: str) -> str:
    return "max" if monitor.endswith("accuracy") else "min"


class StopAtNaN(keras.callbacks.Callback):
    """Raise DivergedError as soon as a metric is not finite after a batch, or a weight after an epoch.

    Some kernels of oneDNN turn NaN into 0: the loss is then finite although the weights are not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        self._check(logs, f"epoch {self._epoch}, batch {batch + 1}")

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self._check(logs, f"epoch {self._epoch}")
        for variable in self.model.weights:
            if not keras.ops.all(keras.ops.isfinite(variable)):
                self._diverged(f"{variable.path} has NaN or infinite values after epoch {self._epoch}")

    def _check(self, logs: dict[str, float], when: str) -> None:
        for name, value in logs.items():
            if not math.isfinite(value):
                self._diverged(f"{name} is {value} in {when}")

    def _diverged(self, evidence: str) -> NoReturn:
        raise DivergedError(f"{evidence}: the training has diverged; set a lower `learning_rate`")


class SeedEpoch(keras.callbacks.Callback):
    """Seed each epoch from (seed, epoch), so that a training that resumes on torch draws the same random numbers.

    Dropout uses torch's own generator there. On other backends the state of the generator is a variable of the model,
    and is in the checkpoint. On TensorFlow a new seed would compile the step anew, 0.1 to 0.2 s in each epoch.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        keras.utils.set_random_seed(int(np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0]))


class AveragedWeights(keras.callbacks.SwapEMAWeights):
    """Keras's SwapEMAWeights, also for a phase that stops early or is resumed. Each phase needs a new one.

    At the end of an epoch, Keras swaps the averages in the optimizer with the weights in the model. At the start of the
    next epoch, it swaps them back.
    """

    def __init__(self) -> None:
        super().__init__(swap_on_epoch=True)

    def expect_averages(self) -> None:
        """Swap at the start of the next epoch. Call this before the weights of a checkpoint are restored."""
        self.on_test_begin()  # swaps, and records that the model has the averages

    def keep_on_stop(self) -> keras.callbacks.Callback:
        """Return a callback that keeps the averages after an early stop. It must come after the callbacks that stop.

        Keras keeps them only after the last planned epoch. After an early stop it would return the plain weights.
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
    keeps its own. The batches have clean images, and are whole in every process.
    """

    def __init__(self, batches: OrderedBatches):
        super().__init__()
        self._batches = batches

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        layers = [layer for layer in batch_normalizations(self.model) if layer.trainable]
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
    """Add the learning rate to the metrics of each epoch."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))


class ExtraValidation(keras.callbacks.Callback):
    """Evaluate the model on further images after each epoch, and add loss and accuracy to its metrics.

    `names` is "loss" and "accuracy" -> the name in the history; a metric without a name is omitted.
    """

    def __init__(self, batches: keras.utils.PyDataset, names: dict[str, str]):
        super().__init__()
        self._batches = batches
        self._names = names

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        metrics = self.model.evaluate(Untuned(self._batches), verbose=0, return_dict=True)
        logs |= {ours: metrics[keras_name] for keras_name, ours in self._names.items()}


class Clock(keras.callbacks.Callback):
    """Measure the time of each epoch: in total, and of training alone."""

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
        """Return the median from `first_epoch` (from 0) on. The first is omitted if there are more: it compiles."""
        timed = self.training_seconds[first_epoch:]
        seconds = timed[1:] or timed
        return round(images_per_epoch / statistics.median(seconds), 1) if seconds else math.nan


class ConsoleLines(keras.callbacks.Callback):
    """Print a line per epoch, and once the expected duration. Show a progress bar if stderr is a terminal."""

    _WARM_UP_BATCHES = 3
    """The first batches compile the training step, which makes them slower."""
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
        self._estimated, self._first_epoch = False, None  # each phase has its own duration per epoch

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if self._first_epoch is None:
            self._first_epoch = epoch
        if sys.stderr.isatty():
            self._bar = progress_bar()
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

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.close()
        self._say(
            f"epoch {epoch + 1:>2}/{self._epochs}  "
            f"accuracy {logs['accuracy']:6.2%}  val_accuracy {logs['val_accuracy']:6.2%}  "
            f"loss {logs['loss']:.4f}  val_loss {logs['val_loss']:.4f}  "
            f"learning_rate {logs['learning_rate']:.3g}  {_duration(self._clock.epoch_seconds[-1])}"
        )

    def close(self) -> None:
        """Remove the progress bar. Keras calls no callback if a training fails."""
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _say(self, line: str) -> None:
        if self._bar:
            self._bar.console.print(line, highlight=False)
        else:
            say(line)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
