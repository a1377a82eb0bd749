"""Stage `reorganize`: check the archive, and write its images in class folders to data/images."""

import sys

from tiny_imagenet import entry
from tiny_imagenet.dataset.layout import reorganize
from tiny_imagenet.repository.paths import ARCHIVE, IMAGES


def main() -> None:
    """Write the class folders of the chosen profile's dataset as zips."""
    reorganize(ARCHIVE, IMAGES, entry.checked_params().dataset)
    print(f"{ARCHIVE} is as expected; class folders are in {IMAGES}")


if __name__ == "__main__":
    sys.exit(entry.run(main))
