"""Mixup and CutMix: mix each training image with another one, its partner, and their labels too.

Mixup (https://arxiv.org/abs/1710.09412) is the weighted mean of both; CutMix (https://arxiv.org/abs/1905.04899) pastes
a rectangle of the partner. Partner and share are drawn for each image, not for a batch, so they depend only on (seed,
epoch, index). The loader is half as fast, because each partner is augmented too.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.config.recipe import Augmentation
from tiny_imagenet.input_pipeline.augmentation import Stream, random_stream


@dataclass(frozen=True)
class Mixes:
    """How to mix N images with their partners."""

    partner: NDArray[np.int64]
    """(N,) Index of the partner in the split. It may be the image itself."""
    share: NDArray[np.float64]
    """(N,) Share of the image itself in pixels and label, 0 to 1. The rest is its partner's."""
    box: NDArray[np.int64]
    """(N, 4) CutMix: top, bottom, left, right of the partner's rectangle."""
    cut: NDArray[np.bool_]
    """(N,) True: CutMix. False: mixup."""

    def __getitem__(self, indices: NDArray[np.int64]) -> "Mixes":
        return Mixes(self.partner[indices], self.share[indices], self.box[indices], self.cut[indices])


def draw_mixes(
    augmentation: Augmentation,
    *,
    seed: int,
    epoch: int,
    num_images: int,
    partners: NDArray[np.int64],
    height: int,
    width: int,
) -> Mixes:
    """Draw for images 0 to num_images - 1 of a split, which are `height` x `width` pixels.

    At least one of `mixup` and `cutmix` is on. If both are, each image gets one of them, with equal probability. The
    rectangle's centre is anywhere in the image, and the rectangle is cut at the border; `share` counts what remains.
    `partners` are the indices of possible partners, equally likely.
    """
    uniform = random_stream(Stream.MIXING, seed=seed, epoch=epoch).random((num_images, 4)).T
    partner = partners[(uniform[0] * len(partners)).astype(np.int64)]
    cut = uniform[1] < (0.5 if augmentation.mixup else 1.0) if augmentation.cutmix else np.zeros(num_images, bool)

    def shares(alpha: float, stream: Stream) -> NDArray[np.float64]:
        random = random_stream(stream, seed=seed, epoch=epoch)
        return random.beta(alpha, alpha, num_images) if alpha else np.ones(num_images)

    def extent(position: NDArray[np.float64], side: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        half = (side * cut_side).astype(np.int64) // 2
        centre = (position * side).astype(np.int64)
        return (centre - half).clip(0, side), (centre + half).clip(0, side)

    cut_side = np.sqrt(1 - shares(augmentation.cutmix, Stream.CUTMIX_SHARE))
    top, bottom = extent(uniform[2], height)
    left, right = extent(uniform[3], width)
    kept = 1 - (bottom - top) * (right - left) / (height * width)
    share = np.where(cut, kept, shares(augmentation.mixup, Stream.MIXUP_SHARE))
    return Mixes(partner, share, np.stack([top, bottom, left, right], -1), cut)


def mix_images(images: NDArray[np.uint8], others: NDArray[np.uint8], mixes: Mixes) -> NDArray[np.uint8]:
    """Return N x H x W x 3, uint8: `images` mixed with their partners, `others`. Mixup rounds to the nearest."""
    mixed = images.copy()
    for index, other in enumerate(others):
        if mixes.cut[index]:
            top, bottom, left, right = mixes.box[index]
            mixed[index, top:bottom, left:right] = other[top:bottom, left:right]
        else:
            share = mixes.share[index]
            cv2.addWeighted(images[index], share, other, 1 - share, 0, dst=mixed[index])
    return mixed


def class_shares(labels: NDArray[np.int32], num_classes: int) -> NDArray[np.float32]:
    """Return float32, N x num_classes: 1 for the class of an image, 0 for the others."""
    return np.eye(num_classes, dtype=np.float32)[labels]


def mix_labels(
    labels: NDArray[np.int32], others: NDArray[np.int32], mixes: Mixes, num_classes: int
) -> NDArray[np.float32]:
    """Return float32, N x num_classes: the share of each class in each mixed image. They sum to 1."""
    share = mixes.share.astype(np.float32)[:, np.newaxis]
    return share * class_shares(labels, num_classes) + (1 - share) * class_shares(others, num_classes)
