"""Check the layout and the counts of the archive, and write class folders.

Move validation images into class folders by `val_annotations.txt`, unless they already are in class folders. Write
train and val as zips of `<wnid>/<image>.JPEG` whose bytes depend only on the input (stored, sorted, a fixed date).
"""

import hashlib
import json
import re
import stat
import unicodedata
import zipfile
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

import pandas as pd

from tiny_imagenet.common.errors import DatasetError, some_of_each
from tiny_imagenet.common.files import ZIP_ERRORS, deterministic_member, replaced, write_text
from tiny_imagenet.common.progress import track
from tiny_imagenet.config.dataset import SPLITS, Dataset, Expect

_LARGEST_MEMBER = 16 * 2**20
"""Bytes. A 64 x 64 JPEG has about 2,000, the longest text of the official archive 2.6 million."""
_IMAGE_SUFFIXES = {".jpeg", ".jpg"}
_OTHER_SUFFIXES = {".bmp", ".gif", ".png", ".tif", ".tiff", ".webp"}
_NO_JPEG = "not a .jpeg or .jpg file; convert it to JPEG"
_SAFE_ID = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$")
_LINE_END = re.compile("\r\n|\r|\n")
"""Python's `splitlines` would also end a line at a form feed or U+2028 within a name."""
_CORNER = re.compile(r"-?[0-9]{1,9}")
_ENCRYPTED, _UTF8 = 0x1, 0x800
"""Bits of a member's flags (APPNOTE.TXT, 4.4.4)."""
Box = tuple[int, int, int, int]
Problems = dict[str, list[str]]
"""Kind of problem -> a line for each."""


@dataclass(frozen=True)
class LabelledImage:
    """A JPEG of the archive with its class. `box` is (x0, y0, x1, y1) in pixels, or None."""

    member: str
    wnid: str
    name: str
    box: Box | None


@dataclass
class Layout:
    """The contents of an archive. `wnids` are sorted."""

    wnids: list[str]
    names: dict[str, str]
    images: dict[str, list[LabelledImage]]
    strays: list[str]
    unlabelled: int
    boxes_without_image: int
    problems: Problems


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key that puts "val_9" before "val_10"."""
    parts = re.split(r"([0-9]{1,18})", name)
    return [(0, int(part)) if part.isascii() and part.isdigit() else (1, part) for part in parts if part]


class _Archive:
    """Read members of a zip by their paths. Raise if a path leads outside the zip."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise DatasetError(f"{path} does not exist; run `dvc repro download`") from None
        except ZIP_ERRORS as error:
            raise DatasetError(f"{path} is not a readable zip: {error}") from None
        self.members: dict[str, list[zipfile.ZipInfo]] = defaultdict(list)
        """Path -> its members. More than one is an error."""
        outside = []
        for info in self.zip.infolist():
            name = plain_path(info)
            if reason := _why_outside(name):
                outside.append(f"{info.filename!r}: {reason}")
            elif not info.filename.endswith(("/", "\\")):  # no folder
                self.members[name].append(info)
        _raise_for(path, {"outside": outside})

    def why_unusable(self, member: str) -> str:
        """Return why a member cannot be read as an image or a text, or ""."""
        infos = self.members[member]
        info, kind = infos[0], stat.S_IFMT(infos[0].external_attr >> 16)
        if len(infos) > 1:
            return f"occurs {len(infos)} times"
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            return "a link or special file"
        if info.flag_bits & _ENCRYPTED:
            return "encrypted"
        if info.file_size > _LARGEST_MEMBER:
            return f"{info.file_size:,} bytes, more than {_LARGEST_MEMBER:,}"
        return ""

    def is_name_guessed(self, member: str) -> bool:
        """Return whether the zip does not declare the encoding of a name."""
        info = self.members[member][0]
        return not (member.isascii() or info.flag_bits & _UTF8 or _as_utf8(info.filename))

    def read(self, member: str) -> bytes:
        if reason := self.why_unusable(member):
            raise DatasetError(f"{self.path}: '{member}' cannot be used: {reason}")
        info = self.members[member][0]
        try:
            with self.zip.open(info) as stream:
                return stream.read(info.file_size)  # at most: a damaged member may inflate to more
        except ZIP_ERRORS as error:
            raise DatasetError(f"{self.path}: '{member}' cannot be read: {error}") from None

    def read_names(self, member: str) -> str:
        """Return a text with names of files, normalized as by `plain_path`."""
        return unicodedata.normalize("NFC", self.read_text(member))

    def read_text(self, member: str) -> str:
        try:
            return self.read(member).decode("utf-8-sig")  # editors on Windows write a byte order mark
        except UnicodeDecodeError as error:
            raise DatasetError(f"{self.path}: '{member}' is not UTF-8 text: {error}") from None


def plain_path(info: zipfile.ZipInfo) -> str:
    """Return the path of a member with forward slashes, in Unicode's composed form (NFC).

    Windows writes backslashes, macOS decomposed letters, and some programs UTF-8 without the flag.
    """
    name = info.filename if info.flag_bits & _UTF8 else _as_utf8(info.filename) or info.filename
    name = unicodedata.normalize("NFC", name.replace("\\", "/"))
    parts = [part for part in name.split("/") if part not in ("", ".")]
    return "/" * name.startswith("/") + "/".join(parts)


def _as_utf8(name: str) -> str:
    """Decode as UTF-8 a name that Python decoded as code page 437. Return "" if it is not UTF-8."""
    try:
        return name.encode("cp437").decode()
    except UnicodeError:
        return ""


def _why_outside(path: str) -> str:
    if path.startswith("/") or re.match("[A-Za-z]:/", path):
        return "its path is absolute; write the zip with relative paths"
    return "its path has '..'; write the zip without it" if ".." in path.split("/") else ""


def _raise_for(path: Path, problems: Problems) -> None:
    if total := sum(map(len, problems.values())):
        count = f"{total:,} problem" + ("s" if total != 1 else "")
        remedy = "Fix it, or change `dataset` in params.yaml."
        raise DatasetError(f"{path} is not as expected. {remedy} {count}:\n{some_of_each(problems)}")


def parse_boxes(text: str, columns: int, where: str, problems: Problems) -> dict[str, tuple[str, Box | None]]:
    """Parse `val_annotations.txt` (columns=2: file, id) or a `_boxes.txt` (columns=1: file), box optional.

    Return file name -> (id or "", box). Add to `problems` each line that cannot be parsed or repeats a file.
    """
    parsed: dict[str, tuple[str, Box | None]] = {}
    for number, line in enumerate(_LINE_END.split(text), start=1):
        if not line.strip():
            continue
        fields, start = line.rstrip().split("\t"), f"{where} line {number}:"
        corners = fields[columns:]
        if len(fields) < columns or not all(fields[:columns]) or len(corners) not in (0, 4):
            problems["columns"].append(f"{start} expected {columns} or {columns + 4} columns: {line[:80]!r}")
            continue
        if not all(_CORNER.fullmatch(corner) for corner in corners):
            problems["corners"].append(f"{start} a corner of the box is not a whole number: {line[:80]!r}")
            continue
        numbers = [int(corner) for corner in corners]
        name = fields[0]
        if name in parsed:
            problems["annotated twice"].append(f"{start} '{name}' is annotated twice")
            continue
        box = (numbers[0], numbers[1], numbers[2], numbers[3]) if numbers else None
        parsed[name] = (fields[1] if columns == 2 else "", box)
    return parsed


def read_layout(archive: _Archive) -> Layout:
    """Sort the members of the archive into classes, images and strays. Collect problems, do not raise them."""
    root = _find_root(archive)
    lines = (line.strip() for line in _LINE_END.split(archive.read_text(f"{root}wnids.txt")))
    listed = Counter(line for line in lines if line)
    wnids = sorted(listed)
    problems: Problems = defaultdict(list)
    problems["ids"] = [
        f"wnids.txt: '{wnid}' is not a class id: use letters, digits and '_', after the first also '.' and '-'"
        for wnid in wnids
        if not _SAFE_ID.match(wnid)
    ]
    problems["ids twice"] = [f"wnids.txt: '{wnid}' occurs {count} times" for wnid, count in listed.items() if count > 1]
    names = _read_words(archive, root)
    files = _sort_members(archive, root)
    train: list[LabelledImage] = []
    boxes_without_image = 0  # not a problem: a part of the archive may have the box files of all images
    in_folders = files.by_class("train")
    for wnid in wnids:
        boxes: dict[str, tuple[str, Box | None]] = {}
        if wnid in files.boxes:
            where = f"train/{wnid}/{wnid}_boxes.txt"
            boxes = parse_boxes(archive.read_names(files.boxes[wnid]), 1, where, problems)
            boxes_without_image += len(boxes.keys() - in_folders[wnid])
        train += [
            LabelledImage(in_folders[wnid][file], wnid, file, boxes.get(file, ("", None))[1])
            for file in sorted(in_folders[wnid])
        ]
    val = _val_images(archive, root, files, set(wnids), problems)
    for split in SPLITS:
        problems[f"unknown classes, {split}"] = [
            f"{split}/{wnid}: {len(members)} images of a class that is not in wnids.txt"
            for wnid, members in sorted(files.by_class(split).items())
            if wnid and wnid not in listed
        ]
    for _, _, member in chain(*files.images.values()):
        if reason := archive.why_unusable(member):
            problems[re.sub("[0-9,]+", "", reason)].append(f"{member!r}: {reason}")
    images = {"train": train, "val": val}
    return Layout(wnids, names, images, sorted(files.strays), files.unlabelled, boxes_without_image, problems)


@dataclass
class _Files:
    """The members of an archive by kind."""

    images: dict[str, list[tuple[str, str, str]]]
    """Split -> class id ("" if it is not the folder's name), file name and member of each image."""
    boxes: dict[str, str]
    """Class id -> the member that lists the boxes of its training images."""
    strays: list[str]
    unlabelled: int

    def by_class(self, split: str) -> dict[str, dict[str, str]]:
        """Return class id -> file name -> member."""
        members: dict[str, dict[str, str]] = defaultdict(dict)
        for wnid, file, member in self.images[split]:
            members[wnid][file] = member
        return members


def _sort_members(archive: _Archive, root: str) -> _Files:
    """Find the images of each split and class, in the first known layout of folders. Images in others are strays."""
    layouts: dict[str, list[tuple[int, str, str, str]]] = {split: [] for split in SPLITS}
    files = _Files({}, {}, [], 0)
    for name in archive.members:
        if not name.startswith(root) or "__MACOSX" in name:
            files.strays.append(name)
            continue
        match name.removeprefix(root).split("/"):
            case ["wnids.txt" | "words.txt"] | ["val", "val_annotations.txt"]:
                pass
            case ["train", wnid, file] if file == f"{wnid}_boxes.txt":
                files.boxes[wnid] = name
            case ["test", "images", file] if _is_image(file):
                files.unlabelled += 1
            case ["train", wnid, "images", file] if _is_image(file, wnid):
                layouts["train"].append((0, wnid, file, name))
            case ["train", wnid, file] if _is_image(file, wnid):
                layouts["train"].append((1, wnid, file, name))
            case ["val", "images", file] if _is_image(file):
                layouts["val"].append((0, "", file, name))
            case ["val", wnid, "images", file] if _is_image(file, wnid):
                layouts["val"].append((1, wnid, file, name))
            case ["val", wnid, file] if _is_image(file, wnid):
                layouts["val"].append((2, wnid, file, name))
            case ["val", "images", wnid, file] if _is_image(file, wnid):
                layouts["val"].append((3, wnid, file, name))
            case _:
                files.strays.append(name)
    for split, images in layouts.items():
        first = {wnid: layout for layout, wnid, _, _ in sorted(images, reverse=True)}
        if f"{root}val/val_annotations.txt" not in archive.members and len(first) > 1:
            first.pop("", None)  # images of no class, beside class folders
        if "" in first:  # class folders beside annotated images are a copy
            first = {"": first[""]}
        files.images[split] = [image[1:] for image in images if image[0] == first.get(image[1])]
        files.strays += [image[-1] for image in images if image[0] != first.get(image[1])]
    return files


def _val_images(
    archive: _Archive, root: str, files: _Files, known: set[str], problems: Problems
) -> list[LabelledImage]:
    """Return the validation images, with the class from val_annotations.txt, or else from their folder."""
    annotations = f"{root}val/val_annotations.txt"
    in_folders = any(wnid for wnid, _, _ in files.images["val"])
    annotated: dict[str, tuple[str, Box | None]] = {}
    if annotations in archive.members:
        annotated = parse_boxes(archive.read_names(annotations), 2, "val/val_annotations.txt", problems)
    elif not in_folders:
        raise DatasetError(
            f"{archive.path} has no '{annotations}', and no validation images in class folders (val/<id>/*.JPEG); add "
            "one of them"
        )
    images = []
    for folder, file, member in sorted(files.images["val"], key=lambda image: (image[1], image[0])):
        shown = member.removeprefix(root)
        wnid, box = annotated.get(file, (folder, None))
        if not wnid:
            guessed = archive.is_name_guessed(member)
            hint = " (its name is in an unknown encoding: write the zip with UTF-8 names)" if guessed else ""
            problems["not annotated"].append(f"{shown}: not annotated{hint}")
            continue
        if folder and wnid != folder:
            problems["folder"].append(f"{shown}: annotated as '{wnid}', but in the folder of '{folder}'")
        elif wnid not in known and not folder:
            problems["annotated class"].append(f"{shown}: its class '{wnid}' is not in wnids.txt")
        images.append(LabelledImage(member, wnid, file, box))
    elsewhere = {
        PurePosixPath(name).stem.casefold(): name
        for name in (*files.strays, *(member for _, file, member in files.images["val"] if file not in annotated))
        if name.startswith(f"{root}val/")
    }
    for file in sorted(annotated.keys() - {file for _, file, _ in files.images["val"]}):
        other = elsewhere.get(PurePosixPath(file).stem.casefold())
        hint = f" (did you mean '{other.removeprefix(root)}'?)" if other else ""
        reason = _NO_JPEG if other == f"{root}val/images/{file}" else f"annotated but missing{hint}"
        problems["missing"].append(f"val/images/{file}: {reason}")
    return images


def _is_image(file: str, folder: str = "") -> bool:
    return PurePosixPath(file).suffix.lower() in _IMAGE_SUFFIXES and not file.startswith(".") and folder[:1] != "."


def _find_root(archive: _Archive) -> str:
    """Return the folder of `wnids.txt` inside the archive, with a slash at the end, or ""."""
    candidates = [
        name for name in archive.members if PurePosixPath(name).name == "wnids.txt" and "__MACOSX" not in name
    ]
    if not candidates:
        raise DatasetError(
            f"{archive.path} has no 'wnids.txt'; expected Tiny ImageNet's layout: wnids.txt, words.txt, "
            "train/<id>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt"
        )
    return min(candidates, key=lambda name: (name.count("/"), name)).removesuffix("wnids.txt")


def _read_words(archive: _Archive, root: str) -> dict[str, str]:
    if f"{root}words.txt" not in archive.members:
        return {}
    rows = (line.split("\t", 1) for line in _LINE_END.split(archive.read_text(f"{root}words.txt")))
    return {row[0].strip(): row[1].strip() for row in rows if len(row) == 2 and row[1].strip()}


def check_counts(layout: Layout, expect: Expect) -> Problems:
    """Return a message for each number of classes, or of images of a class, that is not as in `expect`."""
    problems: Problems = defaultdict(list)
    if not layout.wnids:
        problems["classes"].append("wnids.txt: expected at least one class, found none")
    if expect.classes is not None and len(layout.wnids) != expect.classes:
        problems["classes"].append(f"wnids.txt: expected {expect.classes} classes, found {len(layout.wnids)}")
    for split in SPLITS:
        expected = getattr(expect, split)
        counts = Counter(image.wnid for image in layout.images[split])
        for wnid in layout.wnids:
            if counts[wnid] != expected and (expected is not None or counts[wnid] == 0):
                wanted = "at least one" if expected is None else str(expected)
                strays = [name for name in layout.strays if f"/{split}/{wnid}/" in f"/{name}"]
                others = [name for name in strays if _is_image(name)]
                are = "are in other folders, such as" if len(others) > 1 else "is in another folder:"
                hint = f"; {len(others)} more {are} '{others[0]}'" if others else ""
                pictures = [name for name in strays if PurePosixPath(name).suffix.lower() in _OTHER_SUFFIXES]
                if pictures and not others and not counts[wnid]:
                    hint = f"; '{pictures[0]}': {_NO_JPEG}"
                problems[f"images, {split}"].append(
                    f"{split}: expected {wanted} of class {wnid}, found {counts[wnid]}{hint}"
                )
    return problems


def reorganize(source: Path, destination: Path, dataset: Dataset) -> None:
    """Write `train.zip`, `val.zip`, `classes.csv`, `manifest.csv` and `layout.json` into `destination`.

    If the archive is not as the dataset expects, or has fewer classes, raise DatasetError and write nothing.
    """
    archive = _Archive(source)
    layout = read_layout(archive)
    _raise_for(source, layout.problems | check_counts(layout, dataset.expect))

    wnids = _spread(layout.wnids, dataset.num_classes, source)
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    collisions: list[str] = []
    kept = {
        split: _first_of_each_class(
            [image for image in layout.images[split] if image.wnid in labels],
            getattr(dataset.images_per_class, split),
            collisions,
        )
        for split in SPLITS
    }
    _raise_for(source, {"collisions": collisions})
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
        raise DatasetError(f"{source} has {len(wnids)} classes, but `num_classes` is {number}; lower it")
    return [wnids[index * len(wnids) // number] for index in range(number)]


def _first_of_each_class(
    images: list[LabelledImage], limit: int | None, collisions: list[str]
) -> dict[str, LabelledImage]:
    """Return path in the new zip -> image, for the first `limit` of each class by number."""
    counts: Counter[str] = Counter()
    kept: dict[str, LabelledImage] = {}
    for image in sorted(images, key=lambda image: natural_key(image.name)):
        if limit is None or counts[image.wnid] < limit:
            counts[image.wnid] += 1
            path = f"{image.wnid}/{PurePosixPath(image.name).stem}.JPEG"
            if path in kept:
                collisions.append(f"'{image.member}' and '{kept[path].member}' would have the same name: rename one")
            kept[path] = image
    return kept
