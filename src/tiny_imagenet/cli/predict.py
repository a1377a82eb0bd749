"""Predict the classes of pictures: find the files, decode them in batches, return the most likely classes.

At most two batches of pixels are in memory at a time; a prediction takes 1.4 KB.
"""

import logging
import mimetypes
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tiny_imagenet.backend import runtime
from tiny_imagenet.cli.pictures import ImageError, NotAnImageError, read_image
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.progress import track
from tiny_imagenet.common.schema import nearest
from tiny_imagenet.input_pipeline.packed import SIDE
from tiny_imagenet.models.saved_model import load_model, read_metadata
from tiny_imagenet.repository.paths import MODELS, RESULTS
from tiny_imagenet.repository.records import Metrics

BATCH_SIZE = 128
_MOST_THREADS = 8


class Classifier(Protocol):
    """The part of a model that `predict` uses."""

    def predict_on_batch(self, x: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities, N x classes, of N images."""


@dataclass(frozen=True)
class Source:
    """A file that may be an image."""

    path: Path
    named: bool
    """Whether the user named the file itself, not its folder."""


@dataclass(frozen=True)
class Refusal:
    """A file or folder without a prediction, and the reason."""

    path: Path
    error: str

    def __str__(self) -> str:
        return f"{self.path}: {self.error}"


Decoded = NDArray[np.uint8] | Refusal | None
"""Pixels; or why there are none; or None for a file to skip."""


@dataclass(frozen=True)
class Classes:
    """The classes of a model, in the order of their labels."""

    wnids: list[str]
    names: list[str]


@dataclass
class Answers:
    """The result, as plain values for JSON."""

    images: list[dict[str, Any]] = field(default_factory=list)
    """`path`; `predictions`, most likely first, each with `wnid`, `name`, `probability`."""
    errors: list[dict[str, str]] = field(default_factory=list)
    """`path`, `error`."""
    skipped: int = 0
    """Files in folders that are not images."""


def trained_model(root: Path, name: str) -> Path:
    """Return the file of the model `name` of the repository at `root`; raise UserError if there is none."""
    path = root / MODELS / name / "model.keras"
    if path.is_file():
        return path
    known = sorted(trained.parent.name for trained in (root / MODELS).glob("*/model.keras"))
    raise UserError(
        f"{path} does not exist{nearest(name, known)}; trained models: {', '.join(known) or 'none'}. "
        "run `dvc repro` to train the active models of params.yaml"
    )


def best_model(root: Path, active: Sequence[str]) -> tuple[Path, float]:
    """Return the file of the active model with the highest validation accuracy, and that accuracy.

    Raise UserError if none has been evaluated.
    """
    files = [(root / MODELS / name / "model.keras", root / RESULTS / name / "metrics.json") for name in active]
    accuracies = {
        model: Metrics.read(metrics).val_accuracy_as_served
        for model, metrics in files
        if model.is_file() and metrics.is_file()
    }
    if not accuracies:
        raise UserError("no active model has been trained and evaluated yet: run `dvc repro`, or name one by --model")
    return max(accuracies.items(), key=lambda item: item[1])


def read_classes(path: Path) -> Classes:
    """Return the classes stored in a saved model. Needs no Keras."""
    metadata = read_metadata(path)
    wnids, names = metadata.get("wnids"), metadata.get("class_names")
    if not (_are_words(wnids) and _are_words(names) and len(wnids) == len(names)):
        raise UserError(f"{path} does not name its classes: expected a model saved by this pipeline")
    return Classes(wnids, names)


def _are_words(values: object) -> TypeGuard[list[str]]:
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def load_classifier(path: Path, classes: Classes) -> Classifier:
    """Start Keras and return the model; raise UserError if its input or output has an unexpected shape."""
    runtime.prepare(0)
    model = load_model(path)
    shapes = (tuple(model.input_shape[1:]), tuple(model.output_shape[1:]))
    expected = ((SIDE, SIDE, 3), (len(classes.names),))
    if shapes != expected:
        raise UserError(f"{path} maps {shapes[0]} to {shapes[1]}; expected {expected[0]} to {expected[1]}")
    classifier: Classifier = model
    return classifier


def find_sources(paths: Iterable[Path]) -> tuple[list[Source], list[Refusal]]:
    """Return the named files, the files in and below named folders (sorted), and what cannot be read.

    In folders, hidden files and folders, links to folders, and anything but regular files are skipped.
    """
    sources: list[Source] = []
    refusals: list[Refusal] = []

    def refuse(error: OSError) -> None:
        refusals.append(Refusal(Path(os.fspath(error.filename)), f"cannot be read: {error.strerror}"))

    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112 - Path.is_dir raises if the name is too long
            sources.append(Source(path, named=True))
            continue
        regular: list[Path] = []
        before = len(refusals)
        for folder, subfolders, files in os.walk(path, onerror=refuse):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            visible = [Path(folder, name) for name in files if not name.startswith(".")]
            regular += [file for file in visible if os.path.isfile(file)]  # noqa: PTH113 - as above
        if not regular and len(refusals) == before:
            refusals.append(Refusal(path, "is a folder without files"))
        sources += [Source(file, named=False) for file in sorted(regular)]
    return sources, refusals


def predict(
    sources: Sequence[Source],
    classes: Classes,
    load: Callable[[], Classifier],
    *,
    top: int,
    refusals: Iterable[Refusal] = (),
    on_refusal: Callable[[Refusal], None] = lambda _: None,
) -> Answers:
    """Return the `top` most likely classes of each image, in the order of `sources`.

    A file in a folder is skipped if neither its content nor its name is that of an image. `load` is called after the
    first image is decoded. Earlier refusals are among the errors; `on_refusal` is called with each. Raise UserError if
    the model predicts NaN or infinity.
    """
    answers = Answers()

    def refuse(refusal: Refusal) -> None:
        answers.errors.append({"path": str(refusal.path), "error": refusal.error})
        on_refusal(refusal)

    for refusal in refusals:
        refuse(refusal)
    logging.getLogger("PIL").addHandler(logging.NullHandler())  # its remarks on odd files do not help a user
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        for outcome in track(_outcomes(sources, classes, load, top), "predict", len(sources)):
            if outcome is None:
                answers.skipped += 1
            elif isinstance(outcome, Refusal):
                refuse(outcome)
            else:
                answers.images.append(outcome)
    return answers


def _outcomes(
    sources: Sequence[Source], classes: Classes, load: Callable[[], Classifier], top: int
) -> Iterator[dict[str, Any] | Refusal | None]:
    """Yield for each source its prediction, why there is none, or None if it is skipped."""
    classifier: Classifier | None = None
    for batch, decoded in _decoded_batches(sources):
        images = [image for image in decoded if isinstance(image, np.ndarray)]
        likeliest: Iterator[list[dict[str, Any]]] = iter(())
        if images:
            classifier = classifier or load()
            likeliest = _likeliest(np.asarray(classifier.predict_on_batch(np.stack(images))), classes, top)
        for source, image in zip(batch, decoded, strict=True):
            if isinstance(image, np.ndarray):
                yield {"path": str(source.path), "predictions": next(likeliest)}
            else:
                yield image


def _decoded_batches(sources: Sequence[Source]) -> Iterator[tuple[Sequence[Source], list[Decoded]]]:
    """Yield the sources in decoded batches. Threads decode the next batch meanwhile."""
    Image.init()  # here, since importing Pillow's plugins is not thread-safe
    threads = ThreadPoolExecutor(min(runtime.cores(), _MOST_THREADS))
    started: deque[tuple[Sequence[Source], Iterator[Decoded]]] = deque()
    try:
        for first in range(0, len(sources), BATCH_SIZE):
            batch = sources[first : first + BATCH_SIZE]
            started.append((batch, threads.map(_read, batch)))
            if len(started) == 2:
                batch, decoded = started.popleft()
                yield batch, list(decoded)
        for batch, decoded in started:
            yield batch, list(decoded)
    finally:
        threads.shutdown(cancel_futures=True)


def _read(source: Source) -> Decoded:
    try:
        return read_image(source.path)
    except NotAnImageError as error:
        called_image = (mimetypes.guess_type(source.path.name)[0] or "").startswith("image/")
        return Refusal(source.path, str(error)) if source.named or called_image else None
    except ImageError as error:
        return Refusal(source.path, str(error))


def _likeliest(probabilities: NDArray[np.float32], classes: Classes, top: int) -> Iterator[list[dict[str, Any]]]:
    if not np.isfinite(probabilities).all():
        raise UserError("the model predicts NaN or infinity, so its training diverged; choose another by --model")
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    for labels, row in zip(order.tolist(), probabilities, strict=True):
        yield [
            {"wnid": classes.wnids[label], "name": classes.names[label], "probability": float(row[label])}
            for label in labels
        ]


def table_lines(images: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a table: image (in its first line only), class, id, probability."""
    headings = ("image", "class", "id")
    rows = [
        (printable(image["path"]) if rank == 0 else "", guess["name"], guess["wnid"], guess["probability"])
        for image in images
        for rank, guess in enumerate(image["predictions"])
    ]
    path, name, wnid = (
        max([len(heading), *(len(row[column]) for row in rows)]) for column, heading in enumerate(headings)
    )
    yield f"{headings[0]:<{path}}  {headings[1]:<{name}}  {headings[2]:<{wnid}}  probability"
    for row in rows:
        yield f"{row[0]:<{path}}  {row[1]:<{name}}  {row[2]:<{wnid}}  {100 * row[3]:9.2f} %"


def printable(text: object) -> str:
    """Return text with control characters escaped: a file name may have line breaks and terminal codes."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(text))
