"""Stage `cache`: decode every image into data/cache; write a report and pictures of the data to data/overview."""

import sys

import numpy as np

from tiny_imagenet import entry, plotting
from tiny_imagenet.dataset import duplicates, packing
from tiny_imagenet.input_pipeline.augmentation import Augmenter
from tiny_imagenet.repository.paths import CACHE, IMAGES, OVERVIEW
from tiny_imagenet.repository.records import DataReport

AUGMENTED_IMAGES, AUGMENTED_EPOCHS = 10, 4


def main() -> None:
    """Pack the images, report on them, and draw originals beside augmented versions and a few classes."""
    params = entry.checked_params()
    packed = packing.pack(IMAGES, CACHE)
    pairs = duplicates.find_duplicates(packed.train.images, packed.val.images)
    across = duplicates.pairs_across(pairs)
    plotting.image_pairs(packed.train.images, packed.val.images, across, OVERVIEW / "duplicates")
    policy = params.dataset.duplicates
    described = duplicates.describe_duplicates(pairs, packing.image_paths(IMAGES)) | {"policy": policy}
    if policy == "fail":
        duplicates.refuse_leakage(described)
    if policy == "drop_from_train":
        copies = duplicates.train_copies(pairs)
        packed = packing.drop_from_train(CACHE, copies)
        described["dropped_from_train"] = len(copies)
    summary = packing.summarize(packed, IMAGES)
    DataReport(profile=params.profile, dataset=params.dataset.fingerprint, **summary, duplicates=described).write(
        OVERVIEW / "report.json"
    )

    shown = np.linspace(0, len(packed.train) - 1, AUGMENTED_IMAGES).astype(np.int64)
    originals = packed.train.images[shown]
    augment = Augmenter(params.shared_augmentation, seed=params.seed, num_images=len(packed.train))
    rows = {"original": originals}
    rows |= {f"epoch {epoch + 1}": augment(originals, shown, epoch) for epoch in range(AUGMENTED_EPOCHS)}
    title = "The shared augmentation in params.yaml (a profile or a model may have another)"
    plotting.image_grid(rows, OVERVIEW / "augmentation", title)
    plotting.image_grid(packing.samples_per_class(packed), OVERVIEW / "classes", "Some classes of the training images")
    print(f"packed {len(packed.train):,} training and {len(packed.val):,} validation images into {CACHE}")


if __name__ == "__main__":
    sys.exit(entry.run(main))
