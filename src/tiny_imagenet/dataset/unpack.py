"""Unpack the class folders for other tools: `train/<wnid>/<image>.JPEG` and `val/<wnid>/<image>.JPEG`."""

import tempfile
import zipfile
from contextlib import ExitStack
from pathlib import Path

from tiny_imagenet.common.errors import DatasetError, UserError, is_of_the_disk
from tiny_imagenet.common.files import ZIP_ERRORS, require_free
from tiny_imagenet.common.progress import track
from tiny_imagenet.config.dataset import SPLITS

_BLOCK = 4096
"""Bytes. Disk space of a file is a multiple of this, on most file systems."""


def unpack(images: Path, destination: Path) -> dict[str, int]:
    """Write the folders `train` and `val` into `destination`, and return the number of images in each.

    Both are complete before either is renamed into place. Raise UserError if a folder exists already, the disk is too
    small, or `reorganize` has not run.
    """
    for split in SPLITS:
        if (destination / split).exists():
            raise UserError(f"{destination / split} exists; choose an empty folder, or remove it")
    with ExitStack() as opened:
        archives = {}
        for split in SPLITS:
            try:
                archives[split] = opened.enter_context(zipfile.ZipFile(images / f"{split}.zip"))
            except ZIP_ERRORS as error:
                raise DatasetError(f"{images / split}.zip: {error}; run `dvc repro reorganize`") from None
        sizes = [info.file_size for archive in archives.values() for info in archive.infolist()]
        require_free(destination, sum(-(-size // _BLOCK) * _BLOCK for size in sizes), "unpacking")
        try:
            destination.mkdir(parents=True, exist_ok=True)
            folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix=".unpack-", dir=destination)))
            for split, archive in archives.items():
                members = archive.infolist()
                for info in track(members, f"unpack {split}", len(members)):
                    archive.extract(info, folder / split)
            for split in SPLITS:
                (folder / split).rename(destination / split)
        except ZIP_ERRORS as error:
            if is_of_the_disk(error):
                raise UserError(f"cannot unpack into {destination}: {error}; fix this and rerun") from None
            raise UserError(f"cannot unpack {images / split}.zip: {error}; run `dvc repro -f reorganize`") from None
        return {split: len(archive.infolist()) for split, archive in archives.items()}
