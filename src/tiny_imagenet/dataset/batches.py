"""Batches for Keras, of any backend: NumPy and OpenCV on threads, ahead of the training step."""

import math

import keras
import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.dataset.arrays import Split
from tiny_imagenet.dataset.augmentation import Augmenter, epoch_order
from tiny_imagenet.params import Augmentation

PAPER_PROTOCOL_SEED = 0
"""The paper-protocol validation draws the same pictures whatever seed a model was trained with."""


class TrainingBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras publishes no types
    """The training split, shuffled and augmented anew in each epoch: uint8 images and int32 labels.

    Everything depends on (seed, epoch) alone. Give it to `fit` with `shuffle=False`.

    Args:
        split: images and labels.
        batch_size: images in a batch; the last one of an epoch may have fewer.
        augmentation: what happens to the images.
        seed: of the order and of the augmentation.
        batches_per_epoch: None for all; fewer take the first of the epoch's order.
        first_epoch: where a resumed training goes on.
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
    ):
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=8)
        self._split = split
        self._batch_size = batch_size
        self._seed = seed
        self._augment = Augmenter(augmentation, seed=seed, num_images=len(split))
        whole = math.ceil(len(split) / batch_size)
        self._num_batches = min(whole, batches_per_epoch or whole)
        self._epoch = self._next_epoch = first_epoch
        self._order = self._order_of(first_epoch)

    @property
    def images_per_epoch(self) -> int:
        """How many images an epoch visits."""
        return min(len(self._split), self._num_batches * self._batch_size)

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        return epoch_order(seed=self._seed, epoch=epoch, num_images=len(self._split))

    def __len__(self) -> int:
        return self._num_batches

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        images = self._augment(self._split.images[chosen], chosen, self._epoch)
        return images, self._split.labels[chosen]

    def on_epoch_end(self) -> None:
        """Go on to the next epoch, the first time to `first_epoch`: `fit` calls it once before it begins."""
        self._epoch = self._next_epoch
        self._next_epoch += 1
        self._order = self._order_of(self._epoch)


class OrderedBatches(keras.utils.PyDataset):  # type: ignore[misc] # Keras publishes no types
    """A split in its own order: as it is, or under the paper's protocol (augmented once, with a fixed seed)."""

    def __init__(self, split: Split, *, batch_size: int, augmentation: Augmentation | None = None):
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=8)
        self._split = split
        self._batch_size = batch_size
        self._augment = augmentation and Augmenter(augmentation, seed=PAPER_PROTOCOL_SEED, num_images=len(split))

    def __len__(self) -> int:
        return math.ceil(len(self._split) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        chosen = np.arange(index * self._batch_size, min((index + 1) * self._batch_size, len(self._split)))
        images = np.asarray(self._split.images[chosen[0] : chosen[-1] + 1])
        if self._augment:
            images = self._augment(images, chosen, 0)
        return images, self._split.labels[chosen]
