"""Measure how time, memory and disk of each step grow, with 1x, 2x and 4x the training images of an archive.

    python -m benchmarks.growth path/to/tiny-imagenet-200.zip --steps 55 --steps 110 --steps 220

Each step is a separate process: `reorganize`, `pack` (the decoding of `cache`), `report` (the rest of `cache`), `hash`
(the MD5 of all files so far, as DVC does it), `train` (one epoch of model_2 in the profile `paper`, with validation)
and `evaluate`. Seconds are wall time, including the start of Python and TensorFlow. "CPU, s" is the time of all
threads, which other work on the machine changes less. Memory is the peak of anonymous memory (RssAnon). "Written" is
what the step leaves on the disk. The last lines are the memory of an epoch's random draws and of the metrics.
"""

import resource
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks.memory import AnonymousMemory
from tiny_imagenet.config.recipe import CROP_FLIP, PAPER_AUGMENTATION, Augmentation
from tiny_imagenet.evaluation.metrics import validation_metrics
from tiny_imagenet.input_pipeline.augmentation import Augmenter

_COMMON = """
import json, sys
from pathlib import Path
source, folder, per_class, repository = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
"""
_STEPS = {
    "reorganize": """
from tiny_imagenet.config.dataset import Dataset, ImagesPerClass
from tiny_imagenet.dataset.layout import reorganize
dataset = Dataset(name="measured", archive=str(source), images_per_class=ImagesPerClass(train=per_class))
reorganize(source, folder / "images", dataset)
""",
    "pack": """
from tiny_imagenet.dataset.packing import pack
pack(folder / "images", folder / "cache")
""",
    "report": """
from tiny_imagenet.dataset.duplicates import find_duplicates
from tiny_imagenet.dataset.packing import summarize
from tiny_imagenet.input_pipeline.packed import open_packed
packed = open_packed(folder / "cache")
find_duplicates(packed.train.images, packed.val.images)
summarize(packed, folder / "images")
""",
    "hash": """
from tiny_imagenet.common.files import md5
for path in sorted(folder.rglob("*")):
    if path.is_file():
        md5(path)
""",
    "train": """
from tiny_imagenet.backend import runtime
from tiny_imagenet.common.schema import read_yaml
from tiny_imagenet.config.params import parse_params
values = read_yaml(repository / "params.yaml") | {"profile": "paper"}
recipe = parse_params(values).recipe("model_2").model_copy(update={"epochs": 1})
runtime.prepare(1)
from tiny_imagenet.input_pipeline.packed import open_packed
from tiny_imagenet.models import saved_model
from tiny_imagenet.training import train as training
packed = open_packed(folder / "cache")
trained = training.train(recipe, packed, seed=1)
names = {"wnids": [str(wnid) for wnid in packed.classes["wnid"]], "class_names": packed.class_names}
saved_model.save_model(trained.model, folder / "model" / "model.keras", **names)
training.write_history(trained.history, folder / "model" / "history.csv")
""",
    "evaluate": """
from tiny_imagenet.backend import runtime
from tiny_imagenet.config.params import load_params
block = load_params(repository / "params.yaml").models["model_2"]
runtime.prepare(0)
from tiny_imagenet.evaluation import evaluate
from tiny_imagenet.input_pipeline.packed import open_packed
from tiny_imagenet.models import saved_model
from tiny_imagenet.repository.records import read_history
model, history = saved_model.load_model(folder / "model" / "model.keras"), read_history(folder / "model/history.csv")
measured = evaluate.evaluate(model, open_packed(folder / "cache"), history, block, best_epoch=len(history))
evaluate.write_evaluation(measured, folder / "results", model_md5="")
""",
}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _cpu_seconds() -> float:
    """Return the CPU seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _allocated(call: Callable[[], object]) -> tuple[int, int]:
    """Return the memory that a call keeps, and its peak, in bytes."""
    tracemalloc.start()
    result = call()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del result
    return kept, peak


def _draws(augmentation: Augmentation, num_images: int) -> Augmenter:
    """Make the first batch of an epoch, which draws the whole epoch."""
    augmenter = Augmenter(augmentation, seed=1, num_images=num_images)
    augmenter(np.zeros((1, 64, 64, 3), np.uint8), np.zeros(1, np.int64), 0)
    return augmenter


def main(archive: Path, steps: Annotated[list[int], typer.Option()]) -> None:
    """Measure each step with each of STEPS training images per class of ARCHIVE."""
    print("| training images of each class | step | s | CPU, s | peak RssAnon, MiB | written, MB |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    for per_class in steps:
        with tempfile.TemporaryDirectory() as folder:
            for name, script in _STEPS.items():
                before, computed, start = _bytes(Path(folder)), _cpu_seconds(), time.perf_counter()
                arguments = [str(archive), folder, str(per_class), str(Path.cwd())]
                process = subprocess.Popen(
                    [sys.executable, "-c", _COMMON + script, *arguments], stdout=subprocess.DEVNULL, text=True
                )
                memory = AnonymousMemory(process)
                if process.wait():
                    raise typer.Exit(process.returncode)
                seconds, written = time.perf_counter() - start, (_bytes(Path(folder)) - before) / 1e6
                figures = [seconds, _cpu_seconds() - computed, memory.peak_mib(), written]
                cells = [str(per_class), name, *(f"{figure:,.1f}" for figure in figures)]
                print("| " + " | ".join(cells) + " |", flush=True)
    for name, augmentation in (("paper", PAPER_AUGMENTATION), ("crop_flip", CROP_FLIP)):
        for num_images in (100_000, 200_000):
            kept, peak = _allocated(partial(_draws, augmentation, num_images))
            sizes = f"{kept / num_images:,.0f} bytes an image, {peak / num_images:,.0f} while they are made"
            print(f"draws of an epoch of {num_images:,} images, augmentation {name}: {sizes}")
    labels = np.arange(5_000, dtype=np.int32) % 1_000
    probabilities = np.full((len(labels), 1_000), 1e-3, np.float32)
    _, peak = _allocated(partial(validation_metrics, labels, probabilities, labels == 0))
    print(f"metrics of validation images: {peak / probabilities.size:,.0f} bytes for each of their probabilities")


if __name__ == "__main__":
    typer.run(main)
