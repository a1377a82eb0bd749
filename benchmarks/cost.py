"""Estimate the cost of the paper profile: each model's arithmetic, its speed on this machine, hours for 15 epochs.

    python -m benchmarks.cost                     # all five, about two minutes on two cores
    python -m benchmarks.cost --steps 20 model_2

Uses random images of 64 x 64, 200 classes, batch 64 and the recipe's optimizer. Reports the median step, after two for
warm-up. The loader is left out: it runs beside the step and is faster than any of these models on a CPU.
"""

import math
import statistics
import time
from typing import Annotated, Any

import typer

from tiny_imagenet import entry
from tiny_imagenet.backend import runtime
from tiny_imagenet.backend.layers import all_layers

IMAGES = 100_000 * 15
GPU_TERAFLOPS = 10.0
"""32-bit convolutions of a recent GPU in practice; an assumption, not a measurement."""


def main(models: Annotated[list[str] | None, typer.Argument()] = None, steps: int = 6) -> None:
    """Measure MODELS (default: all active ones) for some STEPS each."""
    params = entry.checked_params()
    runtime.prepare(0)
    import numpy as np

    from tiny_imagenet.training.build import build_model

    print(f"{runtime.device()}, {runtime.backend()}, batch 64, median of {steps} steps")
    print("| model | GFLOP per image, forward | images/s here | hours here | hours at 10 TFLOP/s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 64, 64, 3), np.uint8)
    labels = rng.integers(0, 200, 64).astype(np.int32)
    total_here = total_gpu = 0.0
    for name in models or params.active:
        recipe = params.recipe(name).model_copy(update={"weights": None})
        model = build_model(recipe, num_classes=200, weights_file=None)
        targets = np.eye(200, dtype=np.float32)[labels] if recipe.soft_labels else labels
        seconds = []
        for _ in range(steps + 2):
            start = time.perf_counter()
            model.train_on_batch(images, targets)
            seconds.append(time.perf_counter() - start)
        rate = 64 / statistics.median(seconds[2:])
        flops = forward_flops(model)
        here = IMAGES / rate / 3600
        gpu = step_flops(model) * IMAGES / (GPU_TERAFLOPS * 1e12) / 3600
        total_here, total_gpu = total_here + here, total_gpu + gpu
        print(f"| {name} | {flops / 1e9:.3f} | {rate:.0f} | {here:.1f} | {gpu:.2f} |", flush=True)
    print(f"| all | | | {total_here:.1f} | {total_gpu:.2f} |")


def forward_flops(model: Any) -> float:
    """Return 2 x the multiply-adds of convolutions and dense layers, for one image."""
    return sum(_flops_by_layer(model))


def step_flops(model: Any) -> float:
    """Return the FLOPs of a training step for one image.

    Forward, gradient of the weights, gradient of the input: thrice forward, but the first layer needs no gradient of
    its input. Batch normalization, pools, activations and the optimizer are not counted.
    """
    layers = _flops_by_layer(model)
    return 3 * sum(layers) - layers[0]


def _flops_by_layer(model: Any) -> list[float]:
    flops = []
    for layer in all_layers(model):
        if type(layer).__name__ in {"Conv2D", "DepthwiseConv2D"}:
            _, height, width, _ = layer.output.shape
            flops.append(2.0 * height * width * math.prod(layer.kernel.shape))
        elif type(layer).__name__ == "Dense":
            positions = math.prod(layer.output.shape[1:-1])  # ConvNeXt has dense layers for each pixel
            flops.append(2.0 * positions * math.prod(layer.kernel.shape))
    return flops


if __name__ == "__main__":
    typer.run(main)
