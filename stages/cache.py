"""Stage `cache`: every image decoded once into data/cache, with a report and pictures to look at."""

import json
import sys
from pathlib import Path

import numpy as np

from tiny_imagenet import entry, plotting
from tiny_imagenet.common.files import write_text
from tiny_imagenet.dataset import leakage
from tiny_imagenet.dataset.duplicates import find_duplicates
from tiny_imagenet.dataset.packing import drop_from_train, image_paths, pack, samples_per_class, summarize
from tiny_imagenet.input_pipeline.augmentation import Augmenter

SOURCE = Path("data/images")
DESTINATION = Path("data/cache")


def main() -> None:
    """Pack the images; draw originals beside augmented versions, and a few classes."""
    params = entry.checked_params()
    packed = pack(SOURCE, DESTINATION)
    pairs = find_duplicates(packed.train.images, packed.val.images)
    across = leakage.pairs_across(pairs)
    plotting.image_pairs(packed.train.images, packed.val.images, across, DESTINATION / "duplicates")
    duplicates = leakage.describe_duplicates(pairs, image_paths(SOURCE)) | {"policy": params.dataset.duplicates}
    if params.dataset.duplicates == "fail":
        leakage.refuse_leakage(duplicates)
    if params.dataset.duplicates == "drop_from_train":
        copies = leakage.train_copies(pairs)
        packed = drop_from_train(DESTINATION, copies)
        duplicates["dropped_from_train"] = len(copies)
    made_for = {"profile": params.profile, "dataset": params.dataset.fingerprint}
    report = made_for | summarize(packed, SOURCE) | {"duplicates": duplicates}
    write_text(DESTINATION / "report.json", json.dumps(report, indent=2) + "\n")

    chosen = np.linspace(0, len(packed.train) - 1, 10).astype(np.int64)
    originals = packed.train.images[chosen]
    augment = Augmenter(params.shared_augmentation, seed=params.seed, num_images=len(packed.train))
    rows = {"original": originals} | {f"epoch {epoch + 1}": augment(originals, chosen, epoch) for epoch in range(4)}
    title = "The shared augmentation in params.yaml (a profile or a model may have another)"
    plotting.image_grid(rows, DESTINATION / "augmentation", title)
    plotting.image_grid(samples_per_class(packed), DESTINATION / "classes", "Some classes of the training images")
    print(f"packed {len(packed.train):,} training and {len(packed.val):,} validation images into {DESTINATION}")


if __name__ == "__main__":
    sys.exit(entry.run(main))
