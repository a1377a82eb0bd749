"""Measure how time and memory of `reorganize` and `cache` grow, with 1x, 2x and 4x the images of an archive.

    python -m benchmarks.data_stages path/to/tiny-imagenet-200.zip            # as it is: 1x
    python -m benchmarks.data_stages path/to/tiny-imagenet-200.zip --steps 55 --steps 110 --steps 220

Each size takes the first training images of each class and all validation images, and runs in its own process and
temporary folder. Seconds are wall time. Memory is the peak of anonymous memory (RssAnon), since touched pages of a
memory map belong to the file.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.memory import AnonymousMemory

_CHILD = """
import json, sys, time
from pathlib import Path
from tiny_imagenet.config.dataset import Dataset, ImagesPerClass
from tiny_imagenet.dataset.duplicates import find_duplicates
from tiny_imagenet.dataset.layout import reorganize
from tiny_imagenet.dataset.packing import pack, summarize
source, folder, train = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
start = time.perf_counter()
dataset = Dataset(name="measured", archive=str(source), images_per_class=ImagesPerClass(train=train))
reorganize(source, folder / "images", dataset)
middle = time.perf_counter()
packed = pack(folder / "images", folder / "cache")
packed_at = time.perf_counter()
find_duplicates(packed.train.images, packed.val.images)
summarize(packed, folder / "images")
num_images, end = len(packed.train) + len(packed.val), time.perf_counter()
print(json.dumps([num_images, middle - start, packed_at - middle, end - packed_at]))
"""


def main(archive: Path, steps: Annotated[list[int] | None, typer.Option()] = None) -> None:
    """Measure ARCHIVE as it is, or with each of STEPS training images per class."""
    print("| images | reorganize, s | pack, s | copies and report, s | all, s | images/s | peak RssAnon, MiB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    counts: list[int | None] = [*steps] if steps else [None]
    for train in counts:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-c", _CHILD, str(archive), folder, json.dumps(train)]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            memory = AnonymousMemory(process)
            printed, _ = process.communicate()
        if process.returncode:
            raise typer.Exit(process.returncode)
        images, *seconds = json.loads(printed)
        cells = [f"{images:,}", *(f"{part:.1f}" for part in seconds), f"{sum(seconds):.1f}"]
        print(
            "| " + " | ".join([*cells, f"{images / sum(seconds):,.0f}", f"{memory.peak_mib():.0f}"]) + " |", flush=True
        )


if __name__ == "__main__":
    typer.run(main)
