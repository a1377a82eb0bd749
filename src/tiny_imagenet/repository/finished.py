"""The checkpoint of a training that is complete: kept until DVC has noted what the training made.

DVC hashes the files after the stage has ended, and then notes them in dvc.lock. Killed in between, it removes them as
it begins the stage again; the checkpoint, which has every epoch, then gives the same files without training.
"""

import shutil
from pathlib import Path

from tiny_imagenet.common.files import md5, write_text

_NOTE = "finished"


def note(folder: Path, record: Path) -> None:
    """Note in a checkpoint's folder that the training is complete, and has made this run.json."""
    write_text(folder / _NOTE, f"{md5(record)}\n")


def drop(folder: Path, locked: str | None, record: Path | None = None) -> None:
    """Remove the checkpoint of a complete training, unless what it made may be lost.

    Args:
        folder: of the checkpoint.
        locked: the MD5 that dvc.lock has of the training's run.json, or None.
        record: that run.json, where it is certain that DVC has left it there: it begins a stage by removing it.
    """
    path = folder / _NOTE
    if not path.is_file():
        return
    made = path.read_text(encoding="utf-8").strip()
    if made == locked or (record and record.is_file() and made == md5(record)):
        for run in folder.glob("*.run"):  # first: a run without its checkpoint would be gone on with from epoch 1
            run.unlink()
        shutil.rmtree(folder)
