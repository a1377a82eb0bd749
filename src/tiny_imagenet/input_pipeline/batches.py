"""Batches for Keras on any backend. NumPy and OpenCV make them on threads, one batch ahead of the training step."""

import math
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras.src.trainers.data_adapters.py_dataset_adapter import PyDatasetAdapter
from numpy.typing import NDArray

from tiny_imagenet.backend.devices import ALONE, BatchShare
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.recipe import Augmentation
from tiny_imagenet.input_pipeline.augmentation import Augmenter, epoch_order, resize
from tiny_imagenet.input_pipeline.mixing import Mixes, class_shares, draw_mixes, mix_images, mix_labels
from tiny_imagenet.input_pipeline.packed import Split

PAPER_PROTOCOL_SEED = 0
"""Seed of the augmented validation images of the paper's protocol. All models share it."""
Batch = tuple[NDArray[np.uint8], NDArray[np.int32] | NDArray[np.float32]]
"""Images N x H x W x 3, and labels: int32 (N,), or float32 (N, classes), the share of each class."""


def hold_out(split: Split, per_class: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of the images to train on, and of those held out: the last `per_class` of each class.

    Raise UserError if a class would have no image to train on.
    """
    labels = split.labels
    present, counts = np.unique(labels, return_counts=True)
    smallest = np.argmin(counts)
    if counts[smallest] <= per_class:
        raise UserError(
            f"class {present[smallest]} has {counts[smallest]:,} training images; with {per_class:,} held out, none is "
            f"left to train on. Set `holdout_per_class` to at most {counts[smallest] - 1:,}."
        )
    by_number = np.arange(len(split)) if split.ranks is None else np.argsort(split.ranks)
    by_class = [by_number[labels[by_number] == label] for label in present]
    held_out = np.sort(np.concatenate([indices[len(indices) - per_class :] for indices in by_class]))
    return np.setdiff1d(by_number, held_out), held_out


@dataclass(frozen=True, eq=False)
class _Epoch:
    """An epoch's number, the order in which it visits the images, and how they are mixed."""

    number: int
    order: NDArray[np.int64]
    mixes: Mixes | None


class TrainingBatches(keras.utils.PyDataset):
    """The training split, shuffled and augmented in each epoch: uint8 images, and labels.

    All draws depend only on (seed, epoch). Pass it to `fit` with `shuffle=False`. While Keras trains on a batch, a
    thread makes the next one: Keras itself prefetches on TensorFlow only. The last batch of an epoch may be smaller.

    With `num_classes`, labels are float32 shares, (N, num_classes); without, int32 class numbers, (N,). Mixed images
    need the former, or a ValueError is raised. `indices` are the images of the split to use, by default all. The epoch
    to resume from, `first_epoch`, is counted from 0. `image_sizes` are height and width of the images in each of the
    first epochs; later ones have the split's.
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
        share: BatchShare = ALONE,
        image_sizes: Sequence[int] = (),
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
        self.image_sizes = image_sizes
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
        num_images, height, width, _ = self._split.images.shape
        key = {"seed": self._seed, "epoch": number, "num_images": num_images, "height": height, "width": width}
        return _Epoch(number, order, draw_mixes(self._augmentation, partners=self._indices, **key))

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, index: int) -> Batch:
        epoch = self._epoch
        with self._lock:
            ahead, self._ahead = self._ahead, None
            if index + 1 < len(self):
                self._ahead = (epoch, index + 1, self._background.submit(self._make, epoch, index + 1))
        if ahead and ahead[:2] == (epoch, index):
            return ahead[2].result()
        if ahead:
            ahead[2].cancel()
        return self._make(epoch, index)

    def _make(self, epoch: _Epoch, index: int) -> Batch:
        batch = epoch.order[index * self._batch_size : (index + 1) * self._batch_size]
        images, labels = self._load(epoch, self._share.part(batch))
        if epoch.number < len(self.image_sizes):  # last: everything before counts in pixels of the full size
            images = resize(images, self.image_sizes[epoch.number])
        return self._share.marked((images, labels), len(batch))

    def _load(self, epoch: _Epoch, indices: NDArray[np.int64]) -> Batch:
        labels = self._split.labels
        if epoch.mixes is None or self._num_classes is None:
            images = self._augment(self._split.images[indices], indices, epoch.number)
            return images, _labels(labels[indices], self._num_classes)
        mixes = epoch.mixes[indices]
        both = np.concatenate([indices, mixes.partner])
        images, others = np.split(self._augment(self._split.images[both], both, epoch.number), 2)
        shares = mix_labels(labels[indices], labels[mixes.partner], mixes, self._num_classes)
        return mix_images(images, others, mixes), shares

    def on_epoch_end(self) -> None:
        """Draw the next epoch. `fit` also calls this before the first epoch, which then stays the same."""
        if self._epoch.number != self._next_epoch:
            self._epoch = self._draw(self._next_epoch)
        self._next_epoch += 1


class OrderedBatches(keras.utils.PyDataset):
    """A split in its own order, not augmented, or augmented with a fixed seed: the paper's validation protocol.

    Labels are as in `TrainingBatches`. `indices` are the images to use, in this order; by default all.
    """

    def __init__(
        self,
        split: Split,
        *,
        batch_size: int,
        augmentation: Augmentation | None = None,
        num_classes: int | None = None,
        indices: NDArray[np.int64] | None = None,
        share: BatchShare = ALONE,
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
        indices = self._share.part(batch)
        images = self._split.images[indices]
        if self._augment:
            images = self._augment(images, indices, 0)
        return self._share.marked((images, _labels(self._split.labels[indices], self._num_classes)), len(batch))


class Untuned(PyDatasetAdapter):
    """Keras's adapter of batches, with the tuner of tf.data switched off. Pass it to `fit` and `evaluate`.

    The tuner sleeps for up to a minute, and delays the start of epochs:
    docs/decisions/0028-tf-data-does-not-tune-itself.md. Other backends do not use tf.data. Images may have another size
    in each epoch: Keras would expect the size of the first batches.
    """

    _output_signature: Any

    def get_tf_dataset(self) -> Any:
        """Return the batches as a `tf.data.Dataset`."""
        dataset = super().get_tf_dataset()
        if isinstance(self.py_dataset, TrainingBatches) and self.py_dataset.image_sizes:
            images, labels = dataset.element_spec
            self._output_signature = (type(images)((None, None, None, 3), images.dtype), labels)
            dataset = super().get_tf_dataset()
        options = type(dataset.options())()  # tf.data.Options, without importing TensorFlow on other backends
        options.autotune.enabled = False
        return dataset.with_options(options)


def _labels(labels: NDArray[np.int32], num_classes: int | None) -> NDArray[np.int32] | NDArray[np.float32]:
    return labels if num_classes is None else class_shares(labels, num_classes)
