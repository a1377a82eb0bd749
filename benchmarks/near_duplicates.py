"""Count the pairs of images at each hash distance, and draw some, to judge by eye how many are duplicates.

    python -m benchmarks.near_duplicates data/cache /tmp/pairs.png
    python -m benchmarks.near_duplicates tiny-imagenet-200.zip /tmp/pairs.png --mirrored

Prints the share of planted copies of random images that is detected, then the pairs at each distance and the number
that `similarity` confirms. Draws a random sample of the pairs. With `--mirrored`, each image is compared with the
mirror images of all others instead: a second, independent set of pairs with hardly any duplicates.
"""

import argparse
import time
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.dataset.duplicates import (
    MAX_DISTANCE,
    MIN_SIMILARITY,
    candidate_pairs,
    find_duplicates,
    perceptual_hashes,
    similarity,
)
from tiny_imagenet.dataset.jpeg import decode
from tiny_imagenet.input_pipeline.packed import SIDE

REPOSITORY = Path(__file__).resolve().parents[1]
ZOOM = 2
PAIRS_PER_LINE = 8
GAP = 4
CAPTION = 16
Image = NDArray[np.uint8]


def recoded(image: Image, quality: int) -> Image:
    """Return the image after a JPEG file of that quality."""
    jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)


def brightened(image: Image, factor: float) -> Image:
    """Return the image with every value multiplied and cut off at 255."""
    return np.asarray(np.minimum(image * factor, 255), np.uint8)


def shifted(image: Image, pixels: int) -> Image:
    """Return the image moved down and to the right, its edge repeated."""
    return np.pad(image, ((pixels, 0), (pixels, 0), (0, 0)), mode="edge")[:-pixels, :-pixels]


def cropped(image: Image, pixels: int) -> Image:
    """Return the image without so many pixels of each side, enlarged to its old size."""
    inner = np.ascontiguousarray(image[pixels:-pixels, pixels:-pixels])
    return np.asarray(cv2.resize(inner, image.shape[1::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def turned(image: Image, degrees: float) -> Image:
    """Return the image turned about its middle, its edge repeated."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, 1)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)


def in_gray(image: Image) -> Image:
    """Return the image without its colours."""
    return np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, None], 3, axis=2)


COPIES: dict[str, Callable[[Image], Image]] = {
    "JPEG, quality 60": lambda image: recoded(image, 60),
    "JPEG, quality 20": lambda image: recoded(image, 20),
    "brightness +5 %": lambda image: brightened(image, 1.05),
    "brightness +30 %": lambda image: brightened(image, 1.3),
    "grayscale": in_gray,
    "shifted by 1 pixel each way": lambda image: shifted(image, 1),
    "shifted by 2 pixels each way": lambda image: shifted(image, 2),
    "1 pixel of each side cropped": lambda image: cropped(image, 1),
    "2 pixels of each side cropped": lambda image: cropped(image, 2),
    "3 pixels of each side cropped": lambda image: cropped(image, 3),
    "turned by 3 degrees": lambda image: turned(image, 3),
}


def share_found(images: Image, copies: Image) -> float:
    """Return the share of copies that pass both the hash and the similarity, each against its original."""
    near = np.bitwise_count(perceptual_hashes(images) ^ perceptual_hashes(copies)) <= MAX_DISTANCE
    alike = [similarity(image, copy) >= MIN_SIMILARITY for image, copy in zip(images, copies, strict=True)]
    return float(np.mean(near & np.array(alike)))


def read_images(source: Path) -> tuple[Image, Image]:
    """Return the training and the validation images of a cache folder, or of a zip in the official layout."""
    if source.is_dir():
        train, val = (np.load(source / f"{split}_images.npy", mmap_mode="r") for split in ("train", "val"))
        return train, val
    with zipfile.ZipFile(source) as archive:
        members: dict[str, list[str]] = {"train": [], "val": []}
        for name in sorted(archive.namelist()):
            folders = PurePosixPath(name).parts
            if name.endswith(".JPEG") and folders[1] in members:
                members[folders[1]].append(name)
        splits = []
        for names in members.values():
            pixels = np.empty((len(names), SIDE, SIDE, 3), np.uint8)
            for index, name in enumerate(names):
                pixels[index] = decode(archive.read(name))
            splits.append(pixels)
    return splits[0], splits[1]


def contact_sheet(pairs: NDArray[np.int64], scores: NDArray[np.float64], image: Callable[[int], Image]) -> Image:
    """Draw pairs side by side, from a new line for each distance, under their distance and similarity."""
    lines = []
    for distance in np.unique(pairs[:, 2]):
        at_distance = np.flatnonzero(pairs[:, 2] == distance)
        for start in range(0, len(at_distance), PAIRS_PER_LINE):
            tiles = [
                tile(image(first), image(second), f"{distance} bits, similarity {scores[position]:.2f}")
                for position in at_distance[start : start + PAIRS_PER_LINE]
                for first, second in [pairs[position, :2].tolist()]
            ]
            blank = np.full_like(tiles[0], 255)
            lines.append(np.hstack(tiles + [blank] * (PAIRS_PER_LINE - len(tiles))))
    return np.vstack(lines)


def tile(first: Image, second: Image, caption: str) -> Image:
    """Draw two images beside each other, enlarged, under a caption."""
    both = cv2.resize(np.hstack([first, second]), None, fx=ZOOM, fy=ZOOM, interpolation=cv2.INTER_CUBIC)
    framed = cv2.copyMakeBorder(both, CAPTION, GAP, 0, GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))
    cv2.putText(framed, caption, (0, CAPTION - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (0, 0, 0), 1, cv2.LINE_AA)
    return np.asarray(framed, np.uint8)


def sample_per_distance(pairs: NDArray[np.int64], size: int, seed: int) -> NDArray[np.int64]:
    """Return positions of up to `size` random pairs of each distance."""
    random = np.random.default_rng(seed)
    chosen = [random.permutation(np.flatnonzero(pairs[:, 2] == distance))[:size] for distance in np.unique(pairs[:, 2])]
    return np.sort(np.concatenate(chosen))


def main() -> None:
    """Read the images, print the table, write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="cache folder, or zip in the official layout")
    parser.add_argument("sheet", type=Path, help="PNG to write, outside the repository")
    parser.add_argument("--pairs", type=int, default=24, help="number of pairs to draw per distance, at most")
    parser.add_argument("--copies", type=int, default=2000, help="number of images to copy and detect")
    parser.add_argument("--max-distance", type=int, default=MAX_DISTANCE, help="bits, 0 to 15")
    parser.add_argument("--mirrored", action="store_true", help="compare with the mirror images of the others")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    arguments = parser.parse_args()
    if arguments.sheet.resolve().is_relative_to(REPOSITORY):
        parser.error(f"{arguments.sheet} is in the repository: ImageNet's pictures must not be; name a path outside")

    train, val = read_images(arguments.source)
    num_images = len(train) + len(val)
    started = time.perf_counter()
    found = find_duplicates(train, val)
    print(f"find_duplicates: {time.perf_counter() - started:.1f} s for {num_images:,} images")
    for kind, counts in found.counts().items():
        print(kind, *(f"{splits} {count['pairs']}" for splits, count in counts.items()), sep="  ")

    def image(index: int) -> Image:
        if index >= num_images:
            return image(index - num_images)[:, ::-1]
        pixels: Image = train[index] if index < len(train) else val[index - len(train)]
        return pixels

    random = np.random.default_rng(arguments.seed)
    originals = train[np.sort(random.permutation(len(train))[: arguments.copies])]
    print(f"planted copies found, of {len(originals):,} random training images:")
    for name, change in COPIES.items():
        print(f"  {share_found(originals, np.stack([change(image) for image in originals])):6.1%}  {name}")

    hashes = np.concatenate([perceptual_hashes(train), perceptual_hashes(val)])
    if arguments.mirrored:
        mirrored = [perceptual_hashes(split[:, :, ::-1]) for split in (train, val)]
        hashes = np.concatenate([hashes, *mirrored])
    pairs, max_distance = candidate_pairs(hashes, arguments.max_distance)
    if arguments.mirrored:
        # A mirrored pair comes twice, as (a, mirrored b) and (b, mirrored a); none is an image with its own mirror.
        pairs = pairs[(pairs[:, 0] < num_images) & (pairs[:, 0] < pairs[:, 1] - num_images)]
    scores = np.array([similarity(image(first), image(second)) for first, second, _ in pairs.tolist()])

    print(f"{'bits':>4} {'pairs':>7} {'confirmed':>9} {'highest similarity below':>24}")
    for distance in range(max_distance + 1):
        here = scores[pairs[:, 2] == distance]
        rest = here[here < MIN_SIMILARITY]
        highest = f"{rest.max():.2f}" if len(rest) else "-"
        print(f"{distance:4} {len(here):7,} {len(here) - len(rest):9} {highest:>24}")
    if not len(pairs):
        print("no pair to draw")
        return
    chosen = sample_per_distance(pairs, arguments.pairs, arguments.seed)
    sheet = contact_sheet(pairs[chosen], scores[chosen], image)
    arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(arguments.sheet), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR)):
        parser.error(f"cannot write {arguments.sheet}; its name must end in .png")
    print(f"{len(chosen)} pairs drawn: {arguments.sheet}")


if __name__ == "__main__":
    main()
