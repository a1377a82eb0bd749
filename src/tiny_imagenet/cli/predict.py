"""What a trained model sees in pictures: which files, in batches, the likeliest classes as plain data.

At most two batches of pixels are held at a time; an answer takes 1.4 KB.
"""

import json
import logging
import mimetypes
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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

BATCH_SIZE = 128
_MOST_THREADS = 8


class Classifier(Protocol):
    """What is asked of a model."""

    def predict_on_batch(self, x: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities, N x classes, of N images."""


@dataclass(frozen=True)
class Source:
    """A file that may be an image."""

    path: Path
    named: bool
    """By the user, and not found in a folder."""


@dataclass(frozen=True)
class Refusal:
    """A file or folder that gave no answer, and why."""

    path: Path
    error: str


Decoded = NDArray[np.uint8] | Refusal | None
"""Pixels, or why there are none, or None for a file to be skipped."""


@dataclass(frozen=True)
class Classes:
    """The classes of a model in the order of their labels."""

    wnids: list[str]
    names: list[str]


@dataclass(frozen=True)
class Answers:
    """What came out, as plain values for JSON."""

    images: list[dict[str, Any]]
    """`path`; `predictions`, the likeliest first, each with `wnid`, `name`, `probability`."""
    errors: list[dict[str, str]]
    """`path`, `error`."""
    skipped: int
    """Files in folders that are no images."""


def trained_model(root: Path, name: str) -> Path:
    """Return the file of the model `name` of the repository at `root`; raises UserError where it has none."""
    path = root / "models" / name / "model.keras"
    if path.is_file():
        return path
    known = sorted(found.parent.name for found in (root / "models").glob("*/model.keras"))
    raise UserError(
        f"{path} does not exist{nearest(name, known)}; trained models: {', '.join(known) or 'none'}. "
        "`dvc repro` trains those of params.yaml"
    )


def best_model(root: Path, active: Sequence[str]) -> tuple[Path, float]:
    """Return the file of the active model with the highest validation accuracy, and that accuracy.

    It is the accuracy with one view of each image, which is what the file gives, whatever `evaluate` took.

    Raises:
        UserError: none has been evaluated.
    """
    best: tuple[Path, float] | None = None
    for name in active:
        metrics = root / "results" / name / "metrics.json"
        model = root / "models" / name / "model.keras"
        if not (metrics.is_file() and model.is_file()):
            continue
        try:
            measured = json.loads(metrics.read_text(encoding="utf-8"))
            accuracy = float(measured.get("val_accuracy_one_view", measured["val_accuracy"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{metrics} cannot be read: {error!r}; `dvc checkout` restores it") from None
        if best is None or accuracy > best[1]:
            best = model, accuracy
    if best is None:
        raise UserError("no active model has been trained and evaluated yet: run `dvc repro`, or name one by --model")
    return best


def read_classes(path: Path) -> Classes:
    """Return the classes that are named in a saved model; needs no Keras."""
    metadata = read_metadata(path)
    wnids, names = metadata.get("wnids"), metadata.get("class_names")
    if not (_are_words(wnids) and _are_words(names) and len(wnids) == len(names)):
        raise UserError(f"{path} does not name its classes: it was not saved by this pipeline")
    return Classes(wnids, names)


def _are_words(values: object) -> TypeGuard[list[str]]:
    return isinstance(values, list) and bool(values) and all(isinstance(value, str) for value in values)


def load_classifier(path: Path, classes: Classes) -> Classifier:
    """Start Keras and return the model; raises UserError where it takes or gives something else than expected."""
    runtime.prepare(0)
    model = load_model(path)
    shapes = (tuple(model.input_shape[1:]), tuple(model.output_shape[1:]))
    expected = ((SIDE, SIDE, 3), (len(classes.names),))
    if shapes != expected:
        raise UserError(f"{path} maps {shapes[0]} to {shapes[1]}; expected {expected[0]} to {expected[1]}")
    classifier: Classifier = model
    return classifier


def find_sources(paths: Iterable[Path]) -> tuple[list[Source], list[Refusal]]:
    """Return the files that are named and those in named folders and below, sorted; and what cannot be looked into.

    In folders, hidden files and folders are left alone, links to folders are not followed, and what is no regular
    file is left out.
    """
    sources: list[Source] = []
    refusals: list[Refusal] = []

    def refuse(error: OSError) -> None:
        refusals.append(Refusal(Path(os.fspath(error.filename)), f"cannot be read: {error.strerror}"))

    for path in paths:
        if not os.path.isdir(path):  # noqa: PTH112 - Path's own raises for a name that is too long
            sources.append(Source(path, named=True))
            continue
        found: list[Path] = []
        before = len(refusals)
        for folder, subfolders, files in os.walk(path, onerror=refuse):
            subfolders[:] = [name for name in subfolders if not name.startswith(".")]
            visible = [Path(folder, name) for name in files if not name.startswith(".")]
            found += [file for file in visible if os.path.isfile(file)]  # noqa: PTH113 - Path's own raises, as above
        if not found and len(refusals) == before:
            refusals.append(Refusal(path, "is a folder without files"))
        sources += [Source(file, named=False) for file in sorted(found)]
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
    """Return the `top` likeliest classes of each image, in the order of `sources`.

    Args:
        sources: the files. Those of folders are skipped where neither content nor name is an image's.
        classes: of the model.
        load: gives the model; called when the first image has been decoded.
        top: how many classes, at most all of them.
        refusals: what was refused before, to stand among the errors.
        on_refusal: is told of each refusal as it comes up.

    Raises:
        UserError: the model's answers are no numbers.
    """
    answers = Answers([], [], 0)
    skipped = 0

    def refuse(refusal: Refusal) -> None:
        answers.errors.append({"path": str(refusal.path), "error": refusal.error})
        on_refusal(refusal)

    for refusal in refusals:
        refuse(refusal)
    logging.getLogger("PIL").addHandler(
        logging.NullHandler()
    )  # what it says of oddities in a file tells a user nothing
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        for outcome in track(_outcomes(sources, classes, load, top), "predict", len(sources)):
            if outcome is None:
                skipped += 1
            elif isinstance(outcome, Refusal):
                refuse(outcome)
            else:
                answers.images.append(outcome)
    return Answers(answers.images, answers.errors, skipped)


def _outcomes(
    sources: Sequence[Source], classes: Classes, load: Callable[[], Classifier], top: int
) -> Iterator[dict[str, Any] | Refusal | None]:
    """Yield for each source its answer, or why there is none, or None where it is skipped."""
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


def _decoded_batches(
    sources: Sequence[Source],
) -> Iterator[tuple[Sequence[Source], list[Decoded]]]:
    """Yield the sources in batches, decoded; while one is worked on, threads decode the next."""
    Image.init()  # once, here: the import of Pillow's plugins is not for several threads
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
        raise UserError("the model answers with NaN or infinity: its training diverged; choose another by --model")
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
    for labels, row in zip(order.tolist(), probabilities, strict=True):
        yield [
            {"wnid": classes.wnids[label], "name": classes.names[label], "probability": float(row[label])}
            for label in labels
        ]


def table_lines(images: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield the answers as a table: image, class, id, probability; the path stands in the first line of each image."""
    headings = ("image", "class", "id")
    rows = [
        (printable(image["path"]) if place == 0 else "", guess["name"], guess["wnid"], guess["probability"])
        for image in images
        for place, guess in enumerate(image["predictions"])
    ]
    path, name, wnid = (
        max([len(heading), *(len(row[place]) for row in rows)]) for place, heading in enumerate(headings)
    )
    yield f"{headings[0]:<{path}}  {headings[1]:<{name}}  {headings[2]:<{wnid}}  probability"
    for row in rows:
        yield f"{row[0]:<{path}}  {row[1]:<{name}}  {row[2]:<{wnid}}  {100 * row[3]:9.2f} %"


def printable(text: str | Path) -> str:
    """Return a text that neither breaks lines nor steers a terminal, whatever a file may be called."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(text))
