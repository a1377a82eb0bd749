"""Compare decoders of 64 x 64 JPEGs: libjpeg-turbo, OpenCV, PIL and tf.data, in one run.

    python -m benchmarks.decode                                     # the images of data/images (`dvc repro reorganize`)
    python -m benchmarks.decode --images some/folder --rounds 5

Prints images per second, the median of the rounds, in which all take turns. All bytes are in memory beforehand.
"""

import os
import statistics
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import typer

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def main(images: Path = Path("data/images"), rounds: int = 5, most: int = 10_000) -> None:
    """Decode up to MOST images of IMAGES/train.zip with each library, for some ROUNDS."""
    import cv2
    import numpy as np
    import tensorflow as tf
    from PIL import Image

    from tiny_imagenet.dataset.jpeg import decode

    cores = os.cpu_count() or 1
    with zipfile.ZipFile(images / "train.zip") as archive:
        jpegs = [archive.read(name) for name in archive.namelist()[:most]]
    cv2.setNumThreads(1)

    def pil(jpeg: bytes) -> object:
        return np.asarray(Image.open(BytesIO(jpeg)).convert("RGB"))

    def threaded(function: Callable[[bytes], object]) -> None:
        with ThreadPoolExecutor(cores) as threads:
            for start in range(0, len(jpegs), 512):
                list(threads.map(function, jpegs[start : start + 512]))

    def tf_data() -> None:
        dataset = tf.data.Dataset.from_tensor_slices(jpegs).map(
            lambda jpeg: tf.io.decode_jpeg(jpeg, channels=3), num_parallel_calls=tf.data.AUTOTUNE
        )
        for _ in dataset.batch(64).prefetch(tf.data.AUTOTUNE):
            pass

    def opencv(jpeg: bytes) -> object:
        return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)

    ways: dict[str, Callable[[], object]] = {
        "libjpeg-turbo, 1 thread (the cache stage's)": lambda: [decode(jpeg) for jpeg in jpegs],
        f"libjpeg-turbo, {cores} threads": lambda: threaded(decode),
        "OpenCV, 1 thread": lambda: [opencv(jpeg) for jpeg in jpegs],
        f"OpenCV, {cores} threads": lambda: threaded(opencv),
        "PIL, 1 thread": lambda: [pil(jpeg) for jpeg in jpegs] and None,
        f"PIL, {cores} threads": lambda: threaded(pil),
        "tf.data, AUTOTUNE": tf_data,
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            rates[name].append(len(jpegs) / (time.perf_counter() - start))
    print(f"{len(jpegs):,} images, {cores} cores, median of {rounds}")
    for name, values in rates.items():
        print(f"{name:45} {statistics.median(values):10,.0f} images/s")


if __name__ == "__main__":
    typer.run(main)
