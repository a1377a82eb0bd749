"""Train models on a GPU for a short time each, in two precisions, with exact and with fast kernels.

    KERAS_BACKEND=jax python -m benchmarks.gpu                    # on one NVIDIA GPU with JAX; at most 10 minutes
    KERAS_BACKEND=jax python -m benchmarks.gpu --data /some/clone/data/cache
    KERAS_BACKEND=jax python -m benchmarks.gpu --smoke            # tiny sizes, to try the script on a CPU

Each training is the product's own (`training.train`): recipe, loader, callbacks, in a process of its own, since
`determinism` is set before the backend starts. It stops after `--seconds`; its first batches compile and do not count.
Images are of the full size; a model's `image_size_schedule` is left out. FLOP are those of `benchmarks.cost`. The rate
of the GPU is that of a bfloat16 matrix product, measured before each training in the same process.
"""

import inspect
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from tiny_imagenet import entry
from tiny_imagenet.backend import runtime

CLASSES, TRAIN, VAL = 200, 50_000, 1_000
WARM_UP_BATCHES = 10


class Setting(NamedTuple):
    """What a process trains."""

    model: str
    precision: str
    exact: bool
    batch_size: int | None
    seconds: float
    gemm_side: int
    data: Path | None
    smoke: bool


class Measured(NamedTuple):
    """What a process measured."""

    device: str
    images_per_second: float
    gflop_per_image: float
    gemm_tflops: float


def main(
    models: Annotated[list[str] | None, typer.Argument(help="Default: model_4, model_3, fast_3_hours.")] = None,
    seconds: Annotated[float, typer.Option(help="Of each training, without its first batches.")] = 15.0,
    minutes: Annotated[float, typer.Option(help="Start no training after this time.")] = 9.0,
    batch_size: Annotated[int | None, typer.Option(help="Default: the recipe's, 64 to 128; a large GPU idles.")] = None,
    gemm_side: Annotated[int, typer.Option(help="Rows and columns of the matrix product.")] = 8192,
    data: Annotated[Path | None, typer.Option(help="A packed dataset; default: random images.")] = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="Few images and units, short times.")] = False,
) -> None:
    """Train MODELS in each precision, exact and fast, and print images per second."""
    if smoke:
        seconds, gemm_side, batch_size = min(seconds, 2.0), min(gemm_side, 256), min(batch_size or 8, 8)
    start, device = time.monotonic(), None
    print(
        "| model | precision | batch | images/s, exact | images/s, fast | fast / exact | TFLOP/s, fast | GEMM | share |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for model in models or ["model_4", "model_3", "fast_3_hours"]:
        for precision in ("float32", "mixed_bfloat16"):
            rates: dict[bool, Measured] = {}
            for exact in (True, False):
                if time.monotonic() - start > 60 * minutes:
                    continue
                setting = Setting(model, precision, exact, batch_size, seconds, gemm_side, data, smoke)
                if measured := _in_own_process(setting):
                    rates[exact] = measured
                    device = measured.device
            _print_row(model, precision, batch_size, rates)
    print(f"\n{device or 'nothing was measured'}; {(time.monotonic() - start) / 60:.1f} minutes in all")


def _in_own_process(setting: Setting) -> Measured | None:
    """Return what a new process measured, or None with a line on why not."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(measure, setting).result()
        except Exception as error:  # out of memory, a kernel that is missing: the other rows still count
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            print(f"{setting.model}, {setting.precision}: {type(error).__name__}: {reason}", flush=True)
            return None


def _print_row(model: str, precision: str, batch_size: int | None, rates: dict[bool, Measured]) -> None:
    batch = batch_size or entry.checked_params().recipe(model).batch_size
    cells = [f"{rates[exact].images_per_second:,.0f}" if exact in rates else "" for exact in (True, False)]
    ratio = f"{rates[False].images_per_second / rates[True].images_per_second:.2f}" if len(rates) == 2 else ""
    if False in rates:
        fast = rates[False]
        tflops = fast.images_per_second * fast.gflop_per_image / 1e3
        last = [f"{tflops:.2f}", f"{fast.gemm_tflops:.2f}", f"{tflops / fast.gemm_tflops:.1%}"]
    else:
        last = [""] * 3
    print(f"| {' | '.join([model, precision, str(batch), *cells, ratio, *last])} |", flush=True)


def measure(setting: Setting) -> Measured:
    """Train, in a process that has not started a backend yet."""
    os.environ.setdefault("KERAS_BACKEND", "jax")
    params = entry.checked_params()
    runtime.prepare(params.seed, exact=setting.exact)
    import keras

    from benchmarks.cost import step_flops
    from tiny_imagenet.config.recipe import Recipe
    from tiny_imagenet.training import train

    block, packed = params.recipe(setting.model), _packed(setting)
    batch_size = setting.batch_size or block.batch_size
    changes: dict[str, Any] = {
        "precision": setting.precision, "epochs": 1000, "early_stopping": None, "image_size_schedule": None,
        "reestimate_batch_normalization": None,
        "batch_size": batch_size, "batches_per_epoch": len(packed.train) // batch_size,
    }  # fmt: skip
    if setting.smoke:
        signature = inspect.signature(import_module(f"tiny_imagenet.architectures.{block.architecture}").build)
        sizes = {
            name: signature.parameters[name].default
            for name in ("filters", "dense_units")
            if name in signature.parameters
        }
        changes["build"] = {name: _tiny(value) for name, value in (sizes | block.build).items()}
    recipe = Recipe(**dict(block) | changes)
    gemm = _gemm_tflops(setting.gemm_side)

    class Limit(keras.callbacks.Callback):
        """Time batches, without the first ones, those that begin an epoch, and validation; stop after some seconds."""

        def __init__(self) -> None:
            super().__init__()
            self.batches, self.seconds, self.seen = 0, 0.0, 0
            self.last: float | None = None

        def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            self.last = None

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            now, self.seen = time.perf_counter(), self.seen + 1
            if self.last is not None and self.seen > WARM_UP_BATCHES:
                self.batches, self.seconds = self.batches + 1, self.seconds + now - self.last
            self.last = now
            self.model.stop_training = self.seconds > setting.seconds

    limit = Limit()
    with redirect_stdout(sys.stderr):
        trained = train.train(recipe, packed, seed=params.seed, callbacks=[limit])
    flops = step_flops(trained.model) / 1e9
    speed = limit.batches * recipe.batch_size / limit.seconds
    return Measured(f"{runtime.device()}, {runtime.backend()}", speed, flops, gemm)


def _tiny(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return tuple(min(one, 4) for one in value)
    return min(value, 8) if isinstance(value, int) else value


def _gemm_tflops(side: int) -> float:
    """Return the best rate of a bfloat16 matrix product on the backend."""
    import keras
    import numpy as np

    matrix = keras.ops.cast(np.random.default_rng(0).normal(size=(side, side)).astype(np.float32), "bfloat16")
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        float(keras.ops.matmul(matrix, matrix)[0, 0])  # waits for the result
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds) / 1e12


def _packed(setting: Setting) -> Any:
    import numpy as np
    import pandas as pd

    from tiny_imagenet.input_pipeline.packed import PackedDataset, Split, open_packed

    if setting.data:
        whole = open_packed(setting.data)
        return PackedDataset(whole.train, Split(whole.val.images[:VAL], whole.val.labels[:VAL]), whole.classes)
    random = np.random.default_rng(0)

    def split(num_images: int) -> Split:
        images = random.integers(0, 256, (num_images, 64, 64, 3), np.uint8)
        return Split(images, (np.arange(num_images) % CLASSES).astype(np.int32))

    names = [str(label) for label in range(CLASSES)]
    classes = pd.DataFrame({"label": range(CLASSES), "wnid": names, "name": names})
    sizes = (256, 16) if setting.smoke else (TRAIN, VAL)
    return PackedDataset(split(sizes[0]), split(sizes[1]), classes)


if __name__ == "__main__":
    typer.run(main)
