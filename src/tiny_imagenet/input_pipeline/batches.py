"""Batches for Keras, of any backend: NumPy and OpenCV on threads, one batch ahead of the training step."""

import math
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter
from numpy.typing import NDArray

from tiny_imagenet.backend.devices import ALONE, Share
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.recipe import Augmentation
from tiny_imagenet.input_pipeline.augmentation import Augmenter, epoch_order
from tiny_imagenet.input_pipeline.mixing import Mixes, class_shares, draw_mixes, mix_images, mix_labels
from tiny_imagenet.input_pipeline.packed import Split

PAPER_PROTOCOL_SEED = 0
"""The paper-protocol validation draws the same pictures whatever seed a model was trained with."""
Batch = tuple[NDArray[np.uint8], NDArray[np.int32] | NDArray[np.float32]]
"""Images N x H x W x 3, and labels: int32 (N,), or float32 (N, classes) where shares are asked for."""


def hold_out(labels: NDArray[np.int32], per_class: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the images that train, and of those held out: the last `per_class` of each class.

    Raises:
        UserError: a class would have no image to train on.
    """
    present, counts = np.unique(labels, return_counts=True)
    smallest = np.argmin(counts)
    if counts[smallest] <= per_class:
        raise UserError(
            f"class {present[smallest]} has {counts[smallest]:,} training images: with {per_class:,} held out, none is "
            f"left to train on. `holdout_per_class` can be at most {counts[smallest] - 1:,}."
        )
    by_class = [np.flatnonzero(labels == label) for label in present]
    held_out = np.sort(np.concatenate([own[len(own) - per_class :] for own in by_class]))
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


@dataclass(frozen=True, eq=False)
class _Epoch:
    """An epoch's number, the order in which it visits the images, and how they are mixed."""

    number: int
    order: NDArray[np.int64]
    mixes: Mixes | None


class TrainingBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras publishes no types
    """The training split, shuffled and augmented anew in each epoch: uint8 images, and labels.

    Everything depends on (seed, epoch) alone. Give it to `fit` with `shuffle=False`. While Keras trains on a batch, a
    thread makes the next one: Keras itself works ahead on TensorFlow alone.

    Args:
        split: images and labels.
        batch_size: images in a batch; the last one of an epoch may have fewer.
        augmentation: what happens to the images.
        seed: of the order and of the augmentation.
        batches_per_epoch: None for all; fewer take the first of the epoch's order.
        first_epoch: where a resumed training goes on.
        num_classes: labels come as float32 shares, (N, num_classes); None: as int32 class numbers, (N,).
        indices: the images of the split that take part; None for all.
        share: what this process loads of each batch.

    Raises:
        ValueError: mixed images need `num_classes`.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        batches_per_epoch: int | None = None,
        first_epoch: int = 0,
        num_classes: int | None = None,
        indices: NDArray[np.int64] | None = None,
        share: Share = ALONE,
    ):
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=8)
        if augmentation.mixes and num_classes is None:
            raise ValueError("mixup and cutmix give labels in shares: pass num_classes, or switch both off")
        self._split = split
        self._indices = np.arange(len(split)) if indices is None else np.asarray(indices)
        self._batch_size = batch_size
        self._augmentation = augmentation
        self._seed = seed
        self._num_classes = num_classes
        self._share = share
        self._augment = Augmenter(augmentation, seed=seed, num_images=len(split))
        whole = math.ceil(len(self._indices) / batch_size)
        self._num_batches = min(whole, batches_per_epoch or whole)
        self._next_epoch = first_epoch
        self._epoch = self._draw(first_epoch)
        self._background = ThreadPoolExecutor(1)
        self._lock = threading.Lock()
        self._ahead: tuple[_Epoch, int, Future[Batch]] | None = None

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch visits."""
        return min(len(self._indices), self._num_batches * self._batch_size)

    def _draw(self, number: int) -> _Epoch:
        order = self._indices[epoch_order(seed=self._seed, epoch=number, num_images=len(self._indices))]
        if not self._augmentation.mixes:
            return _Epoch(number, order, None)
        mixes = draw_mixes(
            self._augmentation,
            seed=self._seed,
            epoch=number,
            num_images=len(self._split),
            partners=self._indices,
            height=self._split.images.shape[1],
            width=self._split.images.shape[2],
        )
        return _Epoch(number, order, mixes)

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, index: int) -> Batch:
        epoch = self._epoch
        with self._lock:
            ahead, self._ahead = self._ahead, None
            if index + 1 < len(self):
                self._ahead = (epoch, index + 1, self._background.submit(self._make, epoch, index + 1))
        if ahead is None:
            return self._make(epoch, index)
        ahead_epoch, ahead_index, future = ahead
        if (ahead_epoch, ahead_index) == (epoch, index):
            return future.result()
        future.cancel()
        return self._make(epoch, index)

    def _make(self, epoch: _Epoch, index: int) -> Batch:
        batch = epoch.order[index * self._batch_size : (index + 1) * self._batch_size]
        return self._share.marked(self._load(epoch, self._share.of(batch)), len(batch))

    def _load(self, epoch: _Epoch, chosen: NDArray[np.int64]) -> Batch:
        labels = self._split.labels
        if epoch.mixes is None or self._num_classes is None:
            images = self._augment(self._split.images[chosen], chosen, epoch.number)
            return images, _labels(labels[chosen], self._num_classes)
        mixes = epoch.mixes[chosen]
        both = np.concatenate([chosen, mixes.partner])
        images, others = np.split(self._augment(self._split.images[both], both, epoch.number), 2)
        shares = mix_labels(labels[chosen], labels[mixes.partner], mixes, self._num_classes)
        return mix_images(images, others, mixes), shares

    def on_epoch_end(self) -> None:
        """Go on to the next epoch, the first time to `first_epoch`: `fit` calls it once before it begins."""
        if self._epoch.number != self._next_epoch:
            self._epoch = self._draw(self._next_epoch)
        self._next_epoch += 1


class OrderedBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras publishes no types
    """A split in its own order: as it is, or under the paper's protocol (augmented once, with a fixed seed, not mixed).

    Args:
        split: images and labels.
        batch_size: images in a batch; the last one may have fewer.
        augmentation: None for the images as they are.
        num_classes: labels come as float32 shares, (N, num_classes); None: as int32 class numbers, (N,).
        indices: the images of the split that take part, in their order; None for all.
        share: what this process loads of each batch.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        augmentation: Augmentation | None = None,
        num_classes: int | None = None,
        indices: NDArray[np.int64] | None = None,
        share: Share = ALONE,
    ):
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=8)
        self._split = split
        self._batch_size = batch_size
        self._num_classes = num_classes
        self._share = share
        self._indices = np.arange(len(split)) if indices is None else np.asarray(indices)
        self._augment = augmentation and Augmenter(augmentation, seed=PAPER_PROTOCOL_SEED, num_images=len(split))

    def __len__(self) -> int:
        return math.ceil(len(self._indices) / self._batch_size)

    def __getitem__(self, index: int) -> Batch:
        batch = self._indices[index * self._batch_size : (index + 1) * self._batch_size]
        chosen = self._share.of(batch)
        images = self._split.images[chosen]
        if self._augment:
            images = self._augment(images, chosen, 0)
        return self._share.marked((images, _labels(self._split.labels[chosen], self._num_classes)), len(batch))


class Untuned(PyDatasetAdapter):  # type: ignore[misc] # Keras publishes no types
    """What `fit` and `evaluate` shall be given: Keras's own adapter of batches, without the tuner of tf.data.

    The tuner sleeps for up to a minute at a time, and an iterator that is given up waits until it wakes, so that epochs
    begin late: docs/decisions/0028-tf-data-does-not-tune-itself.md. Other backends do not use tf.data.
    """

    def get_tf_dataset(self) -> Any:
        """Return the batches as a `tf.data.Dataset`."""
        dataset = super().get_tf_dataset()
        options = type(dataset.options())()  # tf.data.Options, without the import of TensorFlow on other backends
        options.autotune.enabled = False
        return dataset.with_options(options)


def _labels(labels: NDArray[np.int32], num_classes: int | None) -> NDArray[np.int32] | NDArray[np.float32]:
    return labels if num_classes is None else class_shares(labels, num_classes)
