"""Zips with unusual members, and what is in a zip."""

import io
import struct
import zipfile
from pathlib import Path

from tiny_imagenet.config.dataset import Dataset, Expect

ANNOTATIONS = "val/val_annotations.txt"
EXPECT = Expect(classes=3, train=4, val=2)
"""Of `small_archive`."""
ANY_ARCHIVE = Dataset(name="any", archive="dataset.zip")
"""A dataset that expects nothing of its archive, and uses all of it."""
CENTRAL_HEADER = {"flags": (8, "<H"), "method": (10, "<H"), "size": (24, "<L"), "offset": (42, "<L")}
"""Field of a zip's central directory -> its offset and type (APPNOTE.TXT, 4.3.12)."""
DAMAGE = [("flags", 1), ("flags", 32), ("method", 8), ("method", 12), ("method", 14), ("method", 99)]
"""Fields with values for which `zipfile` raises another error than BadZipFile."""


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def with_header(path: Path, member: str, field: str, value: int) -> Path:
    """Write a value into a field of the central directory, as a damaged or a hostile zip has it."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        place = file.start_dir
    while content[place : place + 4] == b"PK\1\2":
        lengths = struct.unpack_from("<HHH", content, place + 28)  # name, extra, comment
        if content[place + 46 : place + 46 + lengths[0]].decode().endswith(member):
            offset, kind = CENTRAL_HEADER[field]
            struct.pack_into(kind, content, place + offset, value)
        place += 46 + sum(lengths)
    path.write_bytes(content)
    return path


def with_member(path: Path, info: zipfile.ZipInfo | str, content: bytes = b"x") -> Path:
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(info, content)
    return path


class UndeclaredName(zipfile.ZipInfo):
    """A member with a name that is not ASCII, without the flag for its encoding."""

    def _encodeFilenameFlags(self):  # noqa: N802 - zipfile's own
        return self.filename.encode("cp437"), self.flag_bits


def without_utf8_flag(path: Path, encoding: str = "utf-8") -> Path:
    """Write names that are not ASCII in an encoding that the zip does not declare."""
    with zipfile.ZipFile(path) as file:
        members = [(info.filename, file.read(info)) for info in file.infolist()]
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members:
            file.writestr(UndeclaredName(name.encode(encoding).decode("cp437")), content)
    return path
