"""Atomic file writes (write to a temporary file, then rename), reads with clear errors, disk space, and hashes."""

import hashlib
import json
import lzma
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from tiny_imagenet.common.errors import UserError

PARTIAL_SUFFIX = ".partial"
ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, RuntimeError, OSError, ValueError,
    OverflowError,
)  # fmt: skip
"""What `zipfile` raises for a damaged, encrypted or unknown kind of zip."""
_LARGEST_WITHOUT_ZIP64 = 2**31 - 1  # zipfile.ZIP64_LIMIT


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. Rename it to `path` after the block, or remove it if the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        yield partial
        with partial.open("rb+") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class BusyError(UserError):
    """Another process has the lock."""


@contextmanager
def only_one(lock: Path, refusal: str) -> Iterator[None]:
    """Run the block in one process at a time; a second process raises BusyError(refusal)."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise BusyError(refusal) from None


def reserve(path: Path) -> None:
    """Allocate the disk space of a sparse file, for a memory map.

    On a full disk this raises OSError; writing through the memory map would kill the process.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None


def require_free(folder: Path, needed: int, purpose: str) -> None:
    """Raise UserError if the disk of `folder`, which need not exist, has less than `needed` bytes free.

    `purpose` is what needs them, as the subject of a sentence.
    """
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        room = f"{free / 1e6:,.1f} MB free, but {purpose} needs {needed / 1e6:,.1f} MB"
        raise UserError(f"{folder} has {room}. Free some disk space, or work on another disk.")


def write_text(path: Path, text: str) -> None:
    """Write text atomically, as UTF-8 with Unix line ends."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: Path, needed: Sequence[str] = (), *, remedy: str = "") -> dict[str, Any]:
    """Return the keys and values of a JSON file; raise UserError if it cannot be read or lacks a `needed` key.

    The message ends with the `remedy`; by default: how to restore the file from DVC's cache.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        missing = [key for key in needed if key not in values]
        if isinstance(values, dict) and not missing:
            return values
        reason: object = f"it lacks {', '.join(missing) or 'keys and values'}"
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = error
    raise UserError(f"{path} cannot be read ({reason}): {remedy or restore_command(path)}")


def restore_command(path: Path) -> str:
    """Return the end of a message: how to restore a file from DVC's cache."""
    return f"`rm -f {path}` and `dvc checkout {path}` restore it"


def md5(path: Path) -> str:
    """Return the MD5 of a file as 32 hexadecimal digits, as in dvc.lock and in params.yaml."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def digest(path: Path, *, like: str) -> tuple[str, str]:
    """Return "sha256" if `like` has 64 digits, else "md5", and that digest of a file in hexadecimal."""
    if len(like) != 64:
        return "md5", md5(path)
    with path.open("rb") as stream:
        return "sha256", hashlib.file_digest(stream, "sha256").hexdigest()


def hashes_below(folder: Path) -> dict[str, str]:
    """Return path -> MD5 of all files below a folder, sorted. Paths are relative, with forward slashes."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: md5(path) for name, path in sorted(files.items())}


def fingerprint(values: Mapping[str, Any]) -> str:
    """Return a hash of values of JSON's types: 16 hexadecimal digits."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def deterministic_member(name: str) -> zipfile.ZipInfo:
    """Return the header of a zip member that depends on its name alone: stored, dated 1980, plain file mode."""
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def open_member(archive: zipfile.ZipFile, name: str, size: int) -> IO[bytes]:
    """Open a zip member of a known size for writing. Its header depends only on name, size and content.

    Versions of Python differ in the header that they write with `force_zip64`, and for sizes just below 2 GiB.
    """
    member = deterministic_member(name)
    member.file_size = size if size > _LARGEST_WITHOUT_ZIP64 else 0  # 0: no 64-bit header
    return archive.open(member, "w")
