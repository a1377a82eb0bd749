"""Atomic file writes (write to a temporary file, then rename), reading with useful errors, and hashes."""

import hashlib
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from tiny_imagenet.common.errors import UserError

PARTIAL_SUFFIX = ".partial"
_LARGEST_WITHOUT_ZIP64 = 2**31 - 1  # zipfile.ZIP64_LIMIT


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


class BusyError(UserError):
    """Another process holds the lock."""


@contextmanager
def only_one(lock: Path, refusal: str) -> Iterator[None]:
    """Run the block in one process at a time; raises BusyError(refusal) in a second one."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise BusyError(refusal) from None


def reserve(path: Path) -> None:
    """Allocate the disk space of a file that is made for a memory map, and so far is sparse.

    Writing through a memory map to a full disk would kill the process. This raises OSError instead.
    """
    if hasattr(os, "posix_fallocate"):
        with path.open("rb+") as stream:
            try:
                os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None


def require_free(folder: Path, needed: int, purpose: str) -> None:
    """Refuse to start work that would fill the disk.

    Args:
        folder: where it will be written; it need not exist yet.
        needed: bytes.
        purpose: of the bytes, as the subject of a sentence.

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
    """Write UTF-8 text with Unix line ends, atomically."""
    with replaced(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: Path, needed: Sequence[str] = (), *, remedy: str = "") -> dict[str, Any]:
    """Return the keys and values that a JSON file holds.

    Raises:
        UserError: it cannot be read, holds something else, or lacks a key that is `needed`. The message ends with the
            `remedy`, by default to restore the file from DVC's cache.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        lacking = [key for key in needed if key not in values]
        if isinstance(values, dict) and not lacking:
            return values
        reason: object = f"it lacks {', '.join(lacking) or 'keys and values'}"
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = error
    raise UserError(f"{path} cannot be read ({reason}): {remedy or restore_command(path)}")


def restore_command(path: Path) -> str:
    """Return what brings back a file that DVC has, for the end of a message."""
    return f"`rm -f {path}` and `dvc checkout {path}` restore it"


def md5(path: Path) -> str:
    """Return the MD5 of a file as 32 hexadecimal digits, as DVC and the dataset's publishers use it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def digest(path: Path, *, like: str) -> tuple[str, str]:
    """Return "sha256" or "md5", by the length of `like`, and that digest of a file in hexadecimal digits."""
    if len(like) != 64:
        return "md5", md5(path)
    with path.open("rb") as stream:
        return "sha256", hashlib.file_digest(stream, "sha256").hexdigest()


def hashes_below(folder: Path) -> dict[str, str]:
    """Return path -> MD5 of each file in a folder and below, sorted; paths are relative, with forward slashes."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: md5(path) for name, path in sorted(files.items())}


def fingerprint(values: Mapping[str, Any]) -> str:
    """Return 16 hexadecimal digits that differ if the values, of types that JSON has, differ."""
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def deterministic_member(name: str) -> zipfile.ZipInfo:
    """Return a member whose header depends on its name alone: stored, dated 1980, plain file mode."""
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def open_member(archive: zipfile.ZipFile, name: str, size: int) -> IO[bytes]:
    """Open a member of a known size for writing. Its header depends on name, size and content alone.

    With `force_zip64`, and for sizes just below 2 GiB, the versions of Python write different headers.
    """
    member = deterministic_member(name)
    member.file_size = size if size > _LARGEST_WITHOUT_ZIP64 else 0  # 0: no 64-bit header, until the size is known
    return archive.open(member, "w")
