"""Whole files or none: everything is written under a temporary name and renamed when it is complete."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tiny_imagenet.errors import UserError

PARTIAL_SUFFIX = ".partial"


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends, remove it when it fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        yield partial
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def only_one(lock: Path, refusal: str) -> Iterator[None]:
    """Run the block in one process at a time; raises UserError(refusal) in a second one. Ends with the process."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise UserError(refusal) from None


def reserve(path: Path) -> None:
    """Make sure of the room that a file claims but has not taken yet, as one made for a memory map has.

    Writing through a memory map to a full disk would kill the process; this raises OSError beforehand.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None


def require_free(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to start what would fill the disk.

    Args:
        folder: where it will be written; it need not exist yet.
        needed: bytes.
        purpose: what needs them, as the subject of a sentence.

    Raises:
        UserError: less is free than needed.
    """
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"{purpose} needs {needed / 1e9:.1f} GB in {folder}, and {free / 1e9:.1f} GB are free: make room"
        )


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends, whole or not at all."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def md5(path: Path) -> str:
    """Return the MD5 of a file as 32 hexadecimal digits: what DVC and the dataset's publishers use."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def fingerprint(values: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that differ where the values, plain ones as JSON has them, differ."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
