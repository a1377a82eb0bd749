"""Check the official archive against the dataset's contract, and write class folders.

Validation images move into class folders by `val_annotations.txt`. Train and val become zips of `<wnid>/<image>.JPEG`
whose bytes depend on the input only (stored, sorted, a fixed date).
"""

import hashlib
import json
import lzma
import re
import stat
import struct
import zipfile
import zlib
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pandas as pd

from tiny_imagenet.common.errors import DatasetError, first_ten
from tiny_imagenet.common.files import deterministic_member, replaced, write_text
from tiny_imagenet.common.progress import track
from tiny_imagenet.config.dataset import SPLITS, Expect, ImagesPerClass

_LARGEST_MEMBER = 16 * 2**20
"""Bytes. A 64 x 64 JPEG has some 2,000, the longest text of the official archive 2.6 million."""
_IMAGE_SUFFIXES = {".jpeg", ".jpg"}
_SAFE_ID = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
_ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, NotImplementedError, RuntimeError, OSError,
    ValueError, OverflowError
)  # fmt: skip
_CORNER = re.compile(r"-?[0-9]{1,9}")
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class LabelledImage:
    """A JPEG of the archive with its class. `box` is (x0, y0, x1, y1) in pixels, or None if it has none."""

    member: str
    wnid: str
    name: str
    box: Box | None


@dataclass
class Layout:
    """The contents of an archive. The label of a class is its index in `wnids`, which are sorted."""

    wnids: list[str]
    names: dict[str, str]
    images: dict[str, list[LabelledImage]]
    strays: list[str]
    unlabelled: int
    boxes_without_image: int
    problems: list[str]


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts "val_9" before "val_10"."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(0, int(part)) if part.isascii() and part.isdigit() else (1, part) for part in parts if part]


class _Archive:
    """Read members of the archive. Refuse it if a path leads outside it, or a member is larger than images are."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise DatasetError(f"{path} does not exist; run `dvc repro download`") from None
        except _ZIP_ERRORS as error:
            raise DatasetError(f"{path} is not a readable zip: {error}") from None
        self.members = [info for info in self.zip.infolist() if not info.filename.endswith("/")]
        self._refuse_hostile()

    def _refuse_hostile(self) -> None:
        offenders = []
        for info in self.zip.infolist():
            parts = PurePosixPath(info.filename).parts
            mode = info.external_attr >> 16
            if info.filename.startswith("/") or ".." in parts or "\\" in info.filename or ":" in info.filename:
                offenders.append(f"{info.filename!r}: its path leads outside the archive")
            elif mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                offenders.append(f"{info.filename!r}: a link or special file")
            elif info.flag_bits & 1:
                offenders.append(f"{info.filename!r}: encrypted")
            elif info.file_size > _LARGEST_MEMBER:
                offenders.append(f"{info.filename!r}: {info.file_size:,} bytes, more than {_LARGEST_MEMBER:,}")
        counts = Counter(info.filename for info in self.members)
        offenders += [f"{name!r}: occurs {count} times" for name, count in counts.items() if count > 1]
        _raise_for(self.path, offenders)

    def read(self, member: str) -> bytes:
        try:
            with self.zip.open(member) as stream:
                return stream.read(self.zip.getinfo(member).file_size)  # not more, even if it would inflate to more
        except _ZIP_ERRORS as error:
            raise DatasetError(f"{self.path}: '{member}' cannot be read: {error}") from None

    def read_text(self, member: str) -> str:
        try:
            return self.read(member).decode("utf-8-sig")  # editors on Windows write a mark at the start
        except UnicodeDecodeError as error:
            raise DatasetError(f"{self.path}: '{member}' is not UTF-8 text: {error}") from None


def _raise_for(path: Path, problems: list[str]) -> None:
    if problems:
        count = f"{len(problems):,} problem" + ("s" if len(problems) != 1 else "")
        raise DatasetError(f"{path} breaks the dataset's contract, {count}:\n{first_ten(problems)}")


def parse_boxes(text: str, columns: int, where: str, problems: list[str]) -> dict[str, tuple[str, Box | None]]:
    """Parse `val_annotations.txt` (columns=2: file, id) or a `_boxes.txt` (columns=1: file), box optional.

    Return file name -> (id or "", box). A line that cannot be parsed, or repeats a file, is added to `problems`.
    """
    parsed: dict[str, tuple[str, Box | None]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = line.rstrip().split("\t")
        corners = fields[columns:]
        if len(fields) < columns or not all(fields[:columns]) or len(corners) not in (0, 4):
            problems.append(f"{where} line {number}: expected {columns} or {columns + 4} columns: {line[:80]!r}")
            continue
        if not all(_CORNER.fullmatch(corner) for corner in corners):
            problems.append(f"{where} line {number}: a corner of the box is not a whole number: {line[:80]!r}")
            continue
        numbers = [int(corner) for corner in corners]
        name = fields[0]
        if name in parsed:
            problems.append(f"{where} line {number}: '{name}' is annotated twice")
            continue
        box = (numbers[0], numbers[1], numbers[2], numbers[3]) if numbers else None
        parsed[name] = (fields[1] if columns == 2 else "", box)
    return parsed


def read_layout(archive: _Archive) -> Layout:
    """Sort the members of the archive into classes, images and strays. Problems are collected, not raised."""
    root = _find_root(archive)
    listed = Counter(line.strip() for line in archive.read_text(f"{root}wnids.txt").splitlines() if line.strip())
    wnids = sorted(listed)
    problems = [
        f"wnids.txt: '{wnid}' is not a class id: use letters, digits and '_', after the first also '.' and '-'"
        for wnid in wnids
        if not _SAFE_ID.match(wnid)
    ]
    problems += [f"wnids.txt: '{wnid}' occurs {count} times" for wnid, count in listed.items() if count > 1]
    names = _read_words(archive, root)
    strays: list[str] = []
    unlabelled = 0
    members: dict[str, dict[str, str]] = defaultdict(dict)  # wnid, or "" for validation -> file name -> member
    texts: dict[str, str] = {}
    for info in archive.members:
        name = info.filename
        if not name.startswith(root) or "__MACOSX" in name:
            strays.append(name)
            continue
        match name.removeprefix(root).split("/"):
            case ["wnids.txt" | "words.txt"] | ["val", "val_annotations.txt"]:
                pass
            case ["train", wnid, file] if file == f"{wnid}_boxes.txt":
                texts[wnid] = name
            case ["train", wnid, "images", file] if _is_image(file) and not wnid.startswith("."):
                members[wnid][file] = name
            case ["val", "images", file] if _is_image(file):
                members[""][file] = name
            case ["test", "images", file] if _is_image(file):
                unlabelled += 1
            case _:
                strays.append(name)

    known = set(wnids)
    problems += [
        f"train/{wnid}: {len(members[wnid])} images of a class that wnids.txt does not name"
        for wnid in sorted(set(members) - known - {""})
    ]
    train: list[LabelledImage] = []
    boxes_without_image = 0  # not a problem: a part of the archive may have the box files of the whole
    for wnid in wnids:
        boxes: dict[str, tuple[str, Box | None]] = {}
        if wnid in texts:
            where = f"train/{wnid}/{wnid}_boxes.txt"
            boxes = parse_boxes(archive.read_text(texts[wnid]), 1, where, problems)
            boxes_without_image += len(boxes.keys() - members[wnid])
        train += [
            LabelledImage(members[wnid][file], wnid, file, boxes.get(file, ("", None))[1])
            for file in sorted(members[wnid])
        ]
    annotated = parse_boxes(archive.read_text(f"{root}val/val_annotations.txt"), 2, "val/val_annotations.txt", problems)
    problems += [f"val/images/{file}: annotated but missing" for file in sorted(annotated.keys() - members[""])]
    problems += [f"val/images/{file}: not annotated" for file in sorted(members[""].keys() - annotated)]
    val: list[LabelledImage] = []
    for file in sorted(annotated.keys() & members[""]):
        wnid, box = annotated[file]
        if wnid not in known:
            problems.append(f"val/images/{file}: its class '{wnid}' is not in wnids.txt")
        val.append(LabelledImage(members[""][file], wnid, file, box))
    images = {"train": train, "val": val}
    return Layout(wnids, names, images, sorted(strays), unlabelled, boxes_without_image, problems)


def _is_image(file: str) -> bool:
    return PurePosixPath(file).suffix.lower() in _IMAGE_SUFFIXES and not file.startswith(".")


def _find_root(archive: _Archive) -> str:
    """Return the folder of `wnids.txt` inside the archive, with a slash at its end, or ""."""
    candidates = [
        info.filename
        for info in archive.members
        if PurePosixPath(info.filename).name == "wnids.txt" and "__MACOSX" not in info.filename
    ]
    if not candidates:
        raise DatasetError(
            f"{archive.path} has no 'wnids.txt'; expected Tiny ImageNet's layout: wnids.txt, words.txt, "
            "train/<id>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt"
        )
    root = min(candidates, key=lambda name: (name.count("/"), name)).removesuffix("wnids.txt")
    if f"{root}val/val_annotations.txt" not in {info.filename for info in archive.members}:
        raise DatasetError(f"{archive.path} has no '{root}val/val_annotations.txt'")
    return root


def _read_words(archive: _Archive, root: str) -> dict[str, str]:
    if f"{root}words.txt" not in {info.filename for info in archive.members}:
        return {}
    rows = (line.split("\t", 1) for line in archive.read_text(f"{root}words.txt").splitlines())
    return {row[0].strip(): row[1].strip() for row in rows if len(row) == 2}


def check_counts(layout: Layout, expect: Expect) -> list[str]:
    """Return a message for each count of classes or of images per class that is not what `expect` says."""
    problems = [] if layout.wnids else ["wnids.txt: names no class"]
    if expect.classes is not None and len(layout.wnids) != expect.classes:
        problems.append(f"wnids.txt: expected {expect.classes} classes, found {len(layout.wnids)}")
    for split in SPLITS:
        expected = getattr(expect, split)
        counts = Counter(image.wnid for image in layout.images[split])
        for wnid in layout.wnids:
            if counts[wnid] != expected and (expected is not None or counts[wnid] == 0):
                wanted = "at least one" if expected is None else str(expected)
                problems.append(f"{split}: expected {wanted} of class {wnid}, found {counts[wnid]}")
    return problems


def reorganize(
    source: Path,
    destination: Path,
    *,
    expect: Expect,
    images_per_class: ImagesPerClass,
    num_classes: int | None = None,
) -> None:
    """Write `train.zip`, `val.zip`, `classes.csv`, `manifest.csv` and `layout.json` into `destination`.

    Args:
        source: the archive in the official layout.
        destination: a folder, created if it is missing.
        expect: what the whole archive must contain.
        images_per_class: how many of each class to use, the first by number.
        num_classes: how many classes to use, evenly spread over the sorted ids; None: all.

    Raises:
        DatasetError: the archive breaks the contract, or has fewer classes. Nothing is written then.
    """
    archive = _Archive(source)
    layout = read_layout(archive)
    _raise_for(source, layout.problems + check_counts(layout, expect))

    wnids = _spread(layout.wnids, num_classes, source)
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    collisions: list[str] = []
    kept = {
        split: _first_of_each_class(
            [image for image in layout.images[split] if image.wnid in labels],
            getattr(images_per_class, split),
            collisions,
        )
        for split in SPLITS
    }
    _raise_for(source, collisions)
    rows: list[tuple[object, ...]] = []
    with ExitStack() as files:  # both zips are complete before either is renamed
        for split in SPLITS:
            partial = files.enter_context(replaced(destination / f"{split}.zip"))
            output = files.enter_context(zipfile.ZipFile(partial, "w"))
            for path, image in track(sorted(kept[split].items()), f"reorganize {split}", len(kept[split])):
                content = archive.read(image.member)
                output.writestr(deterministic_member(path), content)
                sha1 = hashlib.sha1(content, usedforsecurity=False).hexdigest()
                rows.append((split, path, image.wnid, labels[image.wnid], *(image.box or [None] * 4), sha1))

    classes = [(label, wnid, layout.names.get(wnid, wnid)) for wnid, label in labels.items()]
    columns = ["split", "path", "wnid", "label", "xmin", "ymin", "xmax", "ymax", "sha1"]
    manifest = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(columns[4:8], "Int64"))
    write_text(
        destination / "classes.csv",
        pd.DataFrame(classes, columns=["label", "wnid", "name"]).to_csv(index=False),
    )
    write_text(destination / "manifest.csv", manifest.to_csv(index=False))
    summary = {
        "classes": len(wnids),
        "in_archive": {split: len(layout.images[split]) for split in SPLITS},
        "unlabelled": layout.unlabelled,
        "train_boxes_without_image": layout.boxes_without_image,
        "strays": layout.strays,
        "used": {split: sum(row[0] == split for row in rows) for split in SPLITS},
    }
    write_text(destination / "layout.json", json.dumps(summary, indent=2) + "\n")


def _spread(wnids: list[str], number: int | None, source: Path) -> list[str]:
    """Return `number` of the ids, at equal distances, or all if it is None."""
    if number is None:
        return wnids
    if number > len(wnids):
        raise DatasetError(f"{source} has {len(wnids)} classes, fewer than `num_classes`, which is {number}")
    return [wnids[index * len(wnids) // number] for index in range(number)]


def _first_of_each_class(
    images: list[LabelledImage], limit: int | None, collisions: list[str]
) -> dict[str, LabelledImage]:
    """Return path in the new zip -> image, for the first `limit` of each class by number."""
    taken: Counter[str] = Counter()
    kept: dict[str, LabelledImage] = {}
    for image in sorted(images, key=lambda image: natural_key(image.name)):
        if limit is None or taken[image.wnid] < limit:
            taken[image.wnid] += 1
            path = f"{image.wnid}/{PurePosixPath(image.name).stem}.JPEG"
            if path in kept:
                collisions.append(f"'{image.member}' and '{kept[path].member}' would have the same name: rename one")
            kept[path] = image
    return kept
