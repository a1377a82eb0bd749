"""Measure the speed of training: the loader, whole epochs against the authors' way, one step against the best GEMM.

    python -m benchmarks.training                                 # loader, epoch, step
    python -m benchmarks.training --data /some/clone/data epoch model_1 --images 6400
    python -m benchmarks.training --data /some/clone/data starts model_1
    python -m benchmarks.training memory /some/clone model_1      # runs its train@model_1 to the end

Images come from DATA, made by `dvc repro cache`; steps use random ones. The sides of a comparison run in turn (A B A
B), each in its own process; figures are medians. The authors' way is Keras with its default settings, and
`ImageDataGenerator.flow_from_directory` on class folders. PyTorch is included if it is installed.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Annotated, Any

import typer

from benchmarks.memory import AnonymousMemory
from tiny_imagenet import entry
from tiny_imagenet.backend import processor, runtime

app = typer.Typer(help=__doc__, invoke_without_command=True, add_completion=False, rich_markup_mode=None)
BATCH = 64
GEMM_SIDE = 2048  # a matrix has 16 MiB: two fit the caches of a server's core, and the peak no longer grows
Models = Annotated[list[str] | None, typer.Argument(metavar="[MODELS]...")]

# The paper's augmentation in the names of ImageDataGenerator.
_GENERATOR = """
def generator():
    from tensorflow.keras.preprocessing.image import ImageDataGenerator
    return ImageDataGenerator(
        rescale=1 / 255, rotation_range=30, width_shift_range=0.1, height_shift_range=0.1, shear_range=0.2,
        zoom_range=0.2, horizontal_flip=True, brightness_range=(0.8, 1.2),
    )
"""

_AUTHORS_EPOCH = (
    _GENERATOR
    + """
import json, sys, time
folder, epochs, wanted = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
import keras
from tiny_imagenet.models.registry import build_classifier
batches = generator().flow_from_directory(folder, target_size=(64, 64), batch_size=64)
shapes = {"input_shape": (64, 64, 3), "num_classes": batches.num_classes}
whole = build_classifier(wanted["architecture"], **shapes, **wanted["build"])
model = keras.Model(whole.get_layer("rescale").output, whole.output)  # the generator has done the scaling
optimizer = keras.optimizers.Adam(wanted["learning_rate"])
model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
class Clock(keras.callbacks.Callback):
    seconds = []
    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.perf_counter()
    def on_train_batch_end(self, batch, logs=None):
        self.end = time.perf_counter()
    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(self.end - self.start)
clock = Clock()
model.fit(batches, epochs=epochs, verbose=0, callbacks=[clock])
print(json.dumps([batches.n / seconds for seconds in clock.seconds[1:]]))
"""
)

_OUR_EPOCH = """
import json, sys
from pathlib import Path
cache, chosen, epochs, name = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
from tiny_imagenet import entry
from tiny_imagenet.backend import runtime
params = entry.checked_params()
runtime.prepare(params.seed)
import numpy as np
from tiny_imagenet.config.recipe import PAPER_AUGMENTATION
from tiny_imagenet.input_pipeline.packed import PackedDataset, Split, open_packed
from tiny_imagenet.training import train as training
packed, places = open_packed(cache), np.load(chosen)
subset = PackedDataset(
    Split(packed.train.images[places], packed.train.labels[places]),
    Split(packed.val.images[:64], packed.val.labels[:64]),
    packed.classes,
)
recipe = params.recipe(name).model_copy(
    update={
        "epochs": epochs, "batch_size": 64, "weights": None, "augmentation": PAPER_AUGMENTATION, "early_stopping": None,
    }
)
trained = training.train(recipe, subset, seed=params.seed)
print(json.dumps([trained.images_per_second]))
"""

_STARTS = """
import json, sys, time
from pathlib import Path
cache, name, images, epochs, side = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
from tiny_imagenet import entry
from tiny_imagenet.backend import runtime
params = entry.checked_params()
runtime.prepare(params.seed)
import keras, numpy as np
from tiny_imagenet.input_pipeline.packed import PackedDataset, Split, open_packed
from tiny_imagenet.training import callbacks, train as training
packed = open_packed(cache)
places = np.linspace(0, len(packed.train.images) - 1, images).astype(int)
few = slice(None, 64)
subset = PackedDataset(
    Split(packed.train.images[places], packed.train.labels[places]),
    Split(packed.val.images[few], packed.val.labels[few]),
    packed.classes,
)
changes = {"epochs": epochs, "batch_size": 64, "weights": None, "early_stopping": None}
if side == "tuned":
    training.Untuned = callbacks.Untuned = training.Untuned.__base__
class Clock(keras.callbacks.Callback):
    first, rest = [], []
    def on_epoch_begin(self, epoch, logs=None):
        self.ends = [time.perf_counter()]
    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())
    def on_epoch_end(self, epoch, logs=None):
        begin, first, *_, last = self.ends
        self.first.append(first - begin)
        self.rest.append(last - first)
clock = Clock()
training.train(params.recipe(name).model_copy(update=changes), subset, seed=params.seed, callbacks=[clock])
print(json.dumps([clock.first[1:], clock.rest[1:]]))
"""

_LOADERS = (
    _GENERATOR
    + """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
folder, cache, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
import cv2
from tiny_imagenet.common.cores import cores
from tiny_imagenet.config.recipe import PAPER_AUGMENTATION
from tiny_imagenet.input_pipeline.augmentation import affine_matrices, draw
from tiny_imagenet.input_pipeline.batches import TrainingBatches
from tiny_imagenet.input_pipeline.packed import open_packed
split = open_packed(cache).train
theirs = generator().flow_from_directory(folder, target_size=(64, 64), batch_size=64)
ours = TrainingBatches(split, batch_size=64, augmentation=PAPER_AUGMENTATION, seed=1)
def rate(batches, first, count):
    start = time.perf_counter()
    images = sum(len(batches[first + index][0]) for index in range(count))
    return images / (time.perf_counter() - start)
pictures = split.images[:6400].copy()
height, width = pictures.shape[1:3]
drawn = draw(PAPER_AUGMENTATION, seed=1, epoch=0, num_images=len(pictures))
matrices, threads = affine_matrices(drawn, height, width), ThreadPoolExecutor(cores())
warped = pictures.copy()
def warp(first):
    for place in range(first, len(pictures), cores()):
        cv2.warpAffine(
            pictures[place], matrices[place], (width, height), dst=warped[place],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE,
        )
def warp_rate():
    start = time.perf_counter()
    list(threads.map(warp, range(cores())))
    return len(pictures) / (time.perf_counter() - start)
few, many = min(8, len(theirs) - 1), len(ours) - 1
rate(theirs, 0, 1), rate(ours, 0, 1), warp_rate()
print(json.dumps([[rate(theirs, 0, few), rate(ours, 0, many), warp_rate()] for _ in range(rounds)]))
"""
)

_KERAS_STEPS = """
import json, sys, time
from tiny_imagenet import entry
from tiny_imagenet.backend import runtime
params = entry.checked_params()
runtime.prepare(0, exact=sys.argv[3] != "xla")  # XLA is not for exact training
import keras, numpy as np
from benchmarks.cost import step_flops
from tiny_imagenet.training.build import build_model
name, side = sys.argv[1], int(sys.argv[2])
if sys.argv[3] == "plain":
    runtime.use_fast_kernels = lambda model: None
recipe = params.recipe(name).model_copy(update={"weights": None})
model = build_model(recipe, num_classes=200, weights_file=None)
if sys.argv[3] == "xla":
    model.compile(model.optimizer, model.loss, metrics=["accuracy"], jit_compile=True)
random = np.random.default_rng(0)
images = random.integers(0, 256, (64, 64, 64, 3), np.uint8)
labels = random.integers(0, 200, 64).astype(np.int32)
if recipe.soft_labels:
    labels = np.eye(200, dtype=np.float32)[labels]
square = keras.ops.convert_to_tensor(random.standard_normal((side, side), np.float32))
print(json.dumps({"parameters": model.count_params(), "flops": 64 * step_flops(model)}), flush=True)
for line in sys.stdin:
    steps, gemms = [], []
    for _ in range(int(line)):
        start = time.perf_counter()
        model.train_on_batch(images, labels)
        middle = time.perf_counter()
        float(keras.ops.matmul(square, square)[0, 0])
        steps.append(middle - start)
        gemms.append(time.perf_counter() - middle)
    print(json.dumps({"step": steps, "gemm": gemms}), flush=True)
"""


@app.callback()
def _all(
    context: typer.Context,
    data: Annotated[Path, typer.Option(help="Data folder of a repository in which `dvc repro cache` has run")] = Path(
        "data"
    ),
) -> None:
    context.obj = data
    if context.invoked_subcommand is None:
        loader(context)
        epoch(context)
        step()


@app.command()
def loader(context: typer.Context, images: int = 3200, rounds: int = 7) -> None:
    """Load and augment without a model: ours against ImageDataGenerator.flow_from_directory, batches of 64."""
    data: Path = context.obj
    with tempfile.TemporaryDirectory() as folder:
        chosen = _class_folders(data, Path(folder), images)
        measured = _child(_LOADERS, folder, data / "cache", rounds)
    theirs, ours, warp = (statistics.median(column) for column in zip(*measured, strict=True))
    _headline(
        f"loader alone: {len(chosen):,} files for the generator, the whole cache for ours, {rounds} rounds in turn; "
        "and OpenCV's warp by itself on as many threads, which no loader that uses it can pass"
    )
    _row("", "ImageDataGenerator, images/s", "ours, images/s", "ratio (bar: 50)", "warp alone, images/s", "ratio")
    _rule(6)
    ratios = (statistics.median(row[side] / row[0] for row in measured) for side in (1, 2))
    of_ours, of_warp = (f"{ratio:.0f}" for ratio in ratios)
    _row("loader", f"{theirs:,.0f}", f"{ours:,.0f}", of_ours, f"{warp:,.0f}", of_warp)


@app.command()
def epoch(
    context: typer.Context,
    models: Models = None,
    images: Annotated[int, typer.Option(help="Training images in an epoch, the same number of each class")] = 3200,
    rounds: int = 3,
    epochs: Annotated[int, typer.Option(help="Epochs of each process; the first warms up and does not count")] = 3,
    without_onednn: Annotated[
        bool, typer.Option(help="The authors' way as TensorFlow is by itself on a CPU without AVX-512 VNNI")
    ] = False,
) -> None:
    """Whole epochs, loader and step together, against the authors' way. Validation is not counted."""
    data: Path = context.obj
    params = entry.checked_params()
    with tempfile.TemporaryDirectory() as folder:
        chosen = _class_folders(data, Path(folder) / "train", images)
        places = Path(folder) / "places.npy"
        import numpy as np

        np.save(places, chosen)
        _headline(
            f"whole epochs of {len(chosen):,} real images, {rounds} x {epochs - 1} epochs of each in turn, "
            f"validation not counted{'; the way of the authors without oneDNN' if without_onednn else ''}"
        )
        settings = {"TF_ENABLE_ONEDNN_OPTS": "0"} if without_onednn else {}
        _row("model", "authors' way, images/s", "ours, images/s", "ratio", "bar")
        _rule(5)
        for name in models or ["model_1", "model_2", "model_4"]:
            block = params.recipe(name)
            wanted: dict[str, Any] = {"architecture": block.architecture, "build": block.build}
            wanted["learning_rate"] = block.optimizer.learning_rate
            theirs, ours = [], []
            for _ in range(rounds):
                theirs += _child(_AUTHORS_EPOCH, Path(folder) / "train", epochs, json.dumps(wanted), plain=settings)
                ours += _child(_OUR_EPOCH, data / "cache", places, epochs, name)
            a, b = statistics.median(theirs), statistics.median(ours)
            bar = {"model_1": "3", "model_2": "3", "model_4": "1.5"}.get(name, "")
            _row(name, f"{a:,.0f}", f"{b:,.0f}", f"{b / a:.2f}", bar)


@app.command()
def starts(
    context: typer.Context,
    model: Annotated[str, typer.Argument()] = "model_1",
    images: Annotated[int, typer.Option(min=2 * BATCH)] = 6400,
    rounds: int = 4,
    epochs: Annotated[int, typer.Option(min=2, help="Of each process; the first compiles and does not count")] = 4,
) -> None:
    """From the start of an epoch to the end of its first batch: without the tuner of tf.data, and with it."""
    data: Path = context.obj
    first: dict[str, list[float]] = {"untuned": [], "tuned": []}
    rest: list[float] = []
    for _ in range(rounds):
        for side, measured in first.items():
            own_first, own_rest = _child(_STARTS, data / "cache", model, images, epochs, side)
            measured += own_first
            rest += own_rest
    _headline(
        f"first batch of an epoch of {images:,} images, {model}, {rounds} x {epochs - 1} epochs of each in turn; the "
        f"batches after it take {statistics.median(rest):.1f} s (median)"
    )
    _row("tf.data", "median, s", "longest, s", "together, s")
    _rule(4)
    for name, measured in zip(["does not tune itself (ours)", "tunes itself"], first.values(), strict=True):
        _row(name, *(f"{figure:.2f}" for figure in (statistics.median(measured), max(measured), sum(measured))))


@app.command()
def step(
    models: Models = None,
    rounds: int = 4,
    steps: int = 5,
    plain: Annotated[bool, typer.Option("--plain", help="Keras's own kernels alone")] = False,
    xla: Annotated[bool, typer.Option("--xla", help="Compiled by XLA")] = False,
) -> None:
    """One training step of 64 random images, 200 classes, beside the best matrix product of the same minute.

    Counted are 2 x the multiply-adds of convolutions and dense layers: forward, gradient of the weights, and gradient
    of the input, which the first layer does not need. GEMM is a float32 matrix product of 2048 x 2048 on the same
    backend, one after each step. PyTorch does the same step in a process of its own, in turn.
    """
    names = models or list(entry.checked_params().active)
    with_torch = find_spec("torch") is not None
    variant = "xla" if xla else "plain" if plain else "ours"
    _headline(
        f"training step ({variant}), batch {BATCH}, {rounds} rounds of {steps} steps in turn after a warm-up; PyTorch "
        + (version("torch") if with_torch else "is not installed")
    )
    _row(
        "model", "GFLOP per step", "step, ms", "images/s", "GFLOP/s", "GEMM, GFLOP/s", "ratio", "bar",
        "PyTorch, ms", "PyTorch / ours",
    )  # fmt: skip
    _rule(10)
    for name in names:
        sides = {"ours": _Server([sys.executable, "-c", _KERAS_STEPS, name, str(GEMM_SIDE), variant])}
        if with_torch and name in ("model_1", "model_2", "model_3", "model_4", "model_5"):
            sides["torch"] = _Server([sys.executable, "-m", "benchmarks.torch_step", name])
        if len({side.hello["parameters"] for side in sides.values()}) != 1:
            raise SystemExit(f"{name}: the twins differ: {[side.hello for side in sides.values()]}")
        for side in sides.values():
            side.ask(3)  # warm up
        times: dict[str, list[float]] = {key: [] for key in sides}
        gemms: list[float] = []
        for _ in range(rounds):
            for key, side in sides.items():
                answer = side.ask(steps)
                times[key] += answer["step"]
                gemms += answer["gemm"]
        for side in sides.values():
            side.close()
        ours, gemm = statistics.median(times["ours"]), statistics.median(gemms)
        flops = sides["ours"].hello["flops"]
        peak = 2 * GEMM_SIDE**3 / gemm
        cells = [name, f"{flops / 1e9:.1f}", f"{ours * 1e3:.1f}", f"{BATCH / ours:,.0f}", f"{flops / ours / 1e9:.0f}"]
        cells += [f"{peak / 1e9:.0f}", f"{flops / ours / peak:.0%}", "50%" if name == "model_1" else "60%"]
        theirs = statistics.median(times["torch"]) if "torch" in times else None
        _row(*cells, *([f"{theirs * 1e3:.1f}", f"{theirs / ours:.2f}"] if theirs else ["", ""]))


@app.command()
def precisions(rounds: int = 15) -> None:
    """Matrix products and convolutions in float32 and bfloat16, in turn: whether `mixed_bfloat16` may be faster here.

    The product is of 2048 x 2048, the convolution of 64 x 32 x 32 x 128 by 128 kernels of 3 x 3, without gradients.
    """
    runtime.prepare(0, exact=False)
    import keras
    import numpy as np

    random = np.random.default_rng(0)
    images, kernel = random.random((64, 32, 32, 128), np.float32), random.random((3, 3, 128, 128), np.float32)
    square = random.random((GEMM_SIDE, GEMM_SIDE), np.float32)
    ways: dict[str, tuple[int, Callable[[Any, Any], Any], Any, Any]] = {
        "product": (2 * GEMM_SIDE**3, keras.ops.matmul, square, square),
        "convolution": (2 * images.size * kernel.size // 128, partial(keras.ops.conv, padding="same"), images, kernel),
    }
    _headline(f"{rounds} of each in turn, GFLOP/s; the ratio is the median of {rounds}")
    _row("", "float32", "bfloat16", "bfloat16 / float32")
    _rule(4)
    for name, (flops, operation, *values) in ways.items():
        inputs = {dtype: [keras.ops.cast(value, dtype) for value in values] for dtype in ("float32", "bfloat16")}
        seconds: dict[str, list[float]] = {dtype: [] for dtype in inputs}
        for _ in range(1 + rounds):  # the first warms up
            for dtype, given in inputs.items():
                start = time.perf_counter()
                keras.ops.convert_to_numpy(operation(*given)[0])
                seconds[dtype].append(time.perf_counter() - start)
        single, half = (times[1:] for times in seconds.values())
        rates = (f"{flops / statistics.median(times) / 1e9:.0f}" for times in (single, half))
        _row(name, *rates, f"{statistics.median(a / b for a, b in zip(single, half, strict=True)):.2f}")


@app.command()
def memory(repository: Path, model: Annotated[str, typer.Argument()] = "model_1") -> None:
    """Run `python -m stages.train MODEL` in REPOSITORY, whose cache is made, and print its peak of anonymous memory."""
    process = subprocess.Popen([sys.executable, "-m", "stages.train", model], cwd=repository, text=True)
    start = time.perf_counter()
    used = AnonymousMemory(process)
    code = process.wait()
    if code:
        raise typer.Exit(code)
    _headline(f"memory of `python -m stages.train {model}`, {time.perf_counter() - start:.0f} s")
    _row("model", "peak RssAnon, MiB", "bar")
    _rule(3)
    _row(model, f"{used.peak_mib():,.0f}", "1,536")


def _class_folders(data: Path, folder: Path, num_images: int) -> list[int]:
    """Write the first images of each class as files, and return their indices in the packed arrays."""
    from tiny_imagenet.dataset.packing import image_paths

    if not (data / "cache" / "train_images.npy").is_file():
        raise SystemExit(f"{data}/cache has no images: run `dvc repro cache`, or name another folder with --data")
    classes: dict[str, list[int]] = {}
    names = image_paths(data / "images")["train"]
    for place, name in enumerate(names):
        classes.setdefault(name.split("/")[0], []).append(place)
    each = max(1, num_images // len(classes))
    chosen = [place for places in classes.values() for place in places[:each]]
    with zipfile.ZipFile(data / "images" / "train.zip") as archive:
        archive.extractall(folder, [names[place] for place in chosen])
    return chosen


def _child(code: str, *arguments: object, plain: Mapping[str, str] | None = None) -> Any:
    """Run Python code in a new process, and return its last line of output, parsed as JSON.

    Args:
        code: the program.
        arguments: the program's arguments.
        plain: environment variables for the libraries, instead of the current ones.
    """
    environment = dict(os.environ)
    if plain is not None:
        environment = {
            key: value for key, value in environment.items() if not key.startswith(("TF_", "KERAS_", "ONEDNN_", "XLA_"))
        } | dict(plain)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.strip().splitlines()[-1])


class _Server:
    """A process that reads numbers of steps, one per line, and answers with seconds, as JSON."""

    def __init__(self, command: list[str]):
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.hello = self._answer()

    def ask(self, steps: int) -> dict[str, list[float]]:
        """Run `steps` steps and return the seconds of each."""
        assert self._process.stdin  # noqa: S101 - opened above
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        seconds: dict[str, list[float]] = self._answer()
        return seconds

    def _answer(self) -> Any:
        stdout: IO[str] | None = self._process.stdout
        line = stdout.readline() if stdout else ""
        if not line:
            raise SystemExit(f"{self._process.args!r:.200} has ended without an answer")
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def _headline(text: str) -> None:
    cores = len(os.sched_getaffinity(0))
    libraries = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras"))
    print(f"\n{text}\n({processor.name()}, {cores} cores; {libraries}, Python {sys.version.split()[0]})\n", flush=True)


def _row(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def _rule(columns: int) -> None:
    _row("---", *["---:"] * (columns - 1))


if __name__ == "__main__":
    app()
