"""What several tests share: a small archive in Tiny ImageNet's layout, and Keras, started once as a stage starts it."""

import os
import signal
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

SIDE = 64


def pytest_configure() -> None:
    """Let tests reach their servers on this machine where a proxy is set, and interrupt the processes they start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a background job; its children would ignore it, too
        signal.signal(signal.SIGINT, signal.default_int_handler)
    bypassed = [os.environ.get("no_proxy") or os.environ.get("NO_PROXY"), "127.0.0.1", "localhost"]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, bypassed))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slowest files first, so that at the end no process waits long for the other.

    The very first one makes the pipeline that others wait for.
    """
    tests = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (item.path.name != "test_pipeline.py", -slow[item.path] / tests[item.path]))


def pytest_collection_finish() -> None:
    assert "keras" not in sys.modules, "a module of tests imports Keras as it is collected: ask for the fixture `keras`"


@dataclass
class SmallArchive:
    """An archive in the official layout. A test may change, add and remove `members` before it writes them."""

    wnids: list[str]
    """In the order of their labels; `wnids.txt` has them in another."""
    pixels: dict[str, NDArray[np.uint8]]
    """Member -> the picture that went into its JPEG."""
    members: dict[str, bytes]
    """Name below the root -> content."""
    root: str = "tiny-imagenet-200/"

    def lines(self, member: str) -> list[str]:
        return self.members[member].decode().splitlines()

    def set_lines(self, member: str, lines: Iterable[str]) -> None:
        self.members[member] = "".join(f"{line}\n" for line in lines).encode()

    def write(self, path: Path, names: Iterable[str] | None = None) -> Path:
        """Write the members, in the order of `names` where it is given, and the folders that the official zip has."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for folder in ("train/", "val/", "val/images/"):
                archive.writestr(self.root + folder, b"")
            for name in names or self.members:
                archive.writestr(self.root + name, self.members[name])
        return path


def random_pictures(num_images: int, *, seed: int = 0, side: int = SIDE) -> NDArray[np.uint8]:
    """Return pictures as smooth as photographs are: uint8, N x side x side x 3, each with the full range of values."""
    rng = np.random.default_rng(seed)
    pictures = np.empty((num_images, side, side, 3), np.uint8)
    for picture in pictures:
        blurred = sum(
            sigma * cv2.GaussianBlur(rng.standard_normal((side, side, 3)), (0, 0), sigma) for sigma in (1.5, 4, 10)
        )
        picture[:] = cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX).round()
    return pictures


def to_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return RGB, or gray, pixels as a JPEG."""
    encoded, jpeg = cv2.imencode(".jpg", pixels[..., ::-1] if pixels.ndim == 3 else pixels)
    assert encoded
    return jpeg.tobytes()


def small_archive(num_classes: int = 3, *, train: int = 4, val: int = 2, seed: int = 0) -> SmallArchive:
    """Return an archive of `train` and `val` images per class, boxes and words for all, and an unlabelled test image.

    Validation images take turns among the classes: val_0 is of the first, val_1 of the second, and so on.
    """
    wnids = [f"n{number:08d}" for number in range(10, 10 + num_classes)]
    boxes = {wnid: [f"{wnid}_{index}.JPEG\t0\t{index}\t62\t63" for index in range(train)] for wnid in wnids}
    annotations = [
        f"val_{index}.JPEG\t{wnids[index % num_classes]}\t{index % 9}\t1\t60\t61" for index in range(num_classes * val)
    ]
    names = [f"train/{wnid}/images/{wnid}_{index}.JPEG" for wnid in wnids for index in range(train)]
    names += [f"val/images/val_{index}.JPEG" for index in range(num_classes * val)] + ["test/images/test_0.JPEG"]

    pixels = dict(zip(names, random_pictures(len(names), seed=seed), strict=True))
    archive = SmallArchive(wnids, pixels, {name: to_jpeg(pixels[name]) for name in names})
    archive.set_lines("wnids.txt", reversed(wnids))
    words = [f"{wnid}\tname of {wnid}, its synonym" for wnid in wnids]
    archive.set_lines("words.txt", ["n00000001\tno class of this archive", *words])
    archive.set_lines("val/val_annotations.txt", annotations)
    for wnid in wnids:
        archive.set_lines(f"train/{wnid}/{wnid}_boxes.txt", boxes[wnid])
    return archive


@pytest.fixture(scope="session")
def make_archive() -> Callable[..., SmallArchive]:
    """Call it as `small_archive` above."""
    return small_archive


@pytest.fixture(scope="session")
def make_pictures() -> Callable[..., NDArray[np.uint8]]:
    """Call it as `random_pictures` above."""
    return random_pictures


@pytest.fixture(scope="session")
def make_jpeg() -> Callable[[NDArray[np.uint8]], bytes]:
    """Call it as `to_jpeg` above."""
    return to_jpeg


@pytest.fixture(scope="session")
def keras() -> Any:
    """Keras on its backend: imported by no test that does not ask for it, since that takes ten seconds."""
    if "keras" not in sys.modules:
        from tiny_imagenet.backend import runtime

        runtime.prepare(0)
    import keras

    return keras


@pytest.fixture
def drawn(monkeypatch) -> list[Any]:
    """Return the list that every figure of matplotlib is added to when it is saved as a PNG."""
    from matplotlib.figure import Figure

    saved: list[Any] = []
    save = Figure.savefig

    def spy(figure: Any, *arguments: Any, **options: Any) -> None:
        save(figure, *arguments, **options)
        if options["format"] == "png":
            figure.inked = figure.get_tightbbox()  # inches; another format measures its letters anew
            saved.append(figure)

    monkeypatch.setattr(Figure, "savefig", spy)
    return saved
