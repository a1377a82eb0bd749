"""Stage `cache`: every image decoded once into data/cache, with a report and pictures to look at."""

import json
import sys
from pathlib import Path

import numpy as np

from tiny_imagenet import entry, figures
from tiny_imagenet.dataset.arrays import pack, samples_per_class, summarize
from tiny_imagenet.dataset.augmentation import Augmenter
from tiny_imagenet.files import write_text

SOURCE = Path("data/images")
DESTINATION = Path("data/cache")


def main() -> None:
    """Pack the images; draw originals beside augmented versions, and a few classes."""
    params = entry.checked_params()
    packed = pack(SOURCE, DESTINATION)
    write_text(DESTINATION / "report.json", json.dumps(summarize(packed, SOURCE), indent=2) + "\n")

    chosen = np.linspace(0, len(packed.train) - 1, 10).astype(np.int64)
    originals = packed.train.images[chosen]
    augment = Augmenter(params.shared_augmentation, seed=params.seed, num_images=len(packed.train))
    rows = {"original": originals} | {f"epoch {epoch + 1}": augment(originals, chosen, epoch) for epoch in range(4)}
    figures.image_grid(rows, DESTINATION / "augmentation", "The same images as each epoch sees them")
    figures.image_grid(samples_per_class(packed), DESTINATION / "classes", "Some classes of the training images")
    print(f"packed {len(packed.train):,} training and {len(packed.val):,} validation images into {DESTINATION}")


if __name__ == "__main__":
    sys.exit(entry.run(main))
