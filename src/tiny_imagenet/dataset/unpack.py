"""The class folders as plain files, for other tools: `train/<wnid>/<image>.JPEG` and `val/<wnid>/<image>.JPEG`."""

import shutil
import zipfile
from pathlib import Path

from tiny_imagenet.errors import DatasetError, UserError
from tiny_imagenet.files import PARTIAL_SUFFIX, require_free
from tiny_imagenet.params import SPLITS
from tiny_imagenet.progress import track

_BLOCK = 4096
"""What a file takes on disk at the least, on most file systems."""


def unpack(images: Path, destination: Path) -> dict[str, int]:
    """Write the folders `train` and `val` into `destination` and return how many images each has.

    Each split appears when it is whole.

    Raises:
        UserError: a folder is there already, the disk is too small, or `reorganize` has not run.
    """
    counts = {}
    for split in SPLITS:
        if (destination / split).exists():
            raise UserError(f"{destination / split} exists: choose an empty folder, or remove it")
    for split in SPLITS:
        partial = destination / f"{split}{PARTIAL_SUFFIX}"
        try:
            archive = zipfile.ZipFile(images / f"{split}.zip")
        except (OSError, zipfile.BadZipFile) as error:
            raise DatasetError(f"{images / split}.zip: {error}; `dvc repro reorganize` makes it") from None
        with archive:
            members = archive.infolist()
            require_free(
                destination, sum(-(-info.file_size // _BLOCK) * _BLOCK for info in members), f"unpacking {split}"
            )
            shutil.rmtree(partial, ignore_errors=True)
            try:
                for info in track(members, f"unpack {split}", len(members)):
                    archive.extract(info, partial)
                partial.rename(destination / split)
            except OSError as error:
                raise UserError(f"{destination}: {error.strerror or error}") from None
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        counts[split] = len(members)
    return counts
