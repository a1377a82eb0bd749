"""Count the arithmetic of trainings on images that grow, and time their steps at each size.

    python -m benchmarks.fast                            # every block of params.yaml with `image_size_schedule`
    python -m benchmarks.fast --steps 10 fast_15_minutes # a minute; also images/s here
    python -m benchmarks.fast --draw                     # docs/pictures/accuracy_by_flop.svg, from docs/results

Counted are 100,000 training images an epoch, and after each epoch 10,000 validation images and those of
`reestimate_batch_normalization`, forward at full size: FLOP as in `benchmarks.cost`. Left out are the loader, which
works beside the step, batch normalization, pools, activations, the optimizer, and `evaluate`. Steps use random images.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from benchmarks.cost import forward_flops, step_flops
from tiny_imagenet import entry, plotting
from tiny_imagenet.backend import runtime
from tiny_imagenet.common.tables import read_csv
from tiny_imagenet.config.params import Params
from tiny_imagenet.config.recipe import Recipe
from tiny_imagenet.repository.paths import KEPT_RESULTS

TRAIN, VAL, CLASSES, SIDE = 100_000, 10_000, 200, 64
FIGURE = Path("docs/pictures/accuracy_by_flop.svg")
OF_ALL_IMAGES = ("paper", "fast")
"""Folders of docs/results whose models were trained on all images."""


def main(
    models: Annotated[list[str] | None, typer.Argument()] = None,
    steps: Annotated[int, typer.Option(min=0, help="Steps to time at each size, after two for warm-up.")] = 0,
    rate: Annotated[float, typer.Option(min=1e-3, help="GFLOP/s to turn FLOP into minutes; an assumption.")] = 150.0,
    draw: Annotated[bool, typer.Option("--draw", help="Draw the kept results by FLOP instead.")] = False,
) -> None:
    """Count MODELS (default: all with `image_size_schedule`)."""
    params = entry.checked_params()
    runtime.prepare(0)
    if draw:
        _draw(params)
        return
    print(f"{runtime.device()}, {runtime.backend()}")
    for name in models or [name for name, block in params.models.items() if block.image_size_schedule]:
        recipe = params.recipe(name)
        _print_table(name, recipe, steps, rate)


def _print_table(name: str, recipe: Recipe, steps: int, rate: float) -> None:
    sizes = _sizes(recipe, recipe.epochs)
    whole = _model(recipe, SIDE)
    print(f"\n{name}: {whole.count_params():,} parameters, batches of {recipe.batch_size}\n")
    print("| images of | epochs | GFLOP per image, forward and backward | GFLOP | images/s |")
    print("| --- | ---: | ---: | ---: | ---: |")
    total, seconds = 0.0, 0.0
    for size in sorted({*sizes, SIDE}):
        model = _model(recipe, size)
        epochs = sizes.count(size)
        flops = epochs * TRAIN * step_flops(model) / 1e9
        total += flops
        speed = _images_per_second(model, recipe, size, steps) if steps else None
        seconds += epochs * TRAIN / speed if speed else 0
        shown = f"{speed:,.0f}" if speed else ""
        print(f"| {size} pixels | {epochs} | {step_flops(model) / 1e9:.3f} | {flops:,.0f} | {shown} |", flush=True)
    forward = recipe.epochs * (VAL + (recipe.reestimate_batch_normalization or 0)) * forward_flops(whole) / 1e9
    total += forward
    print(f"| 64 pixels, forward only | {recipe.epochs} | {forward_flops(whole) / 1e9:.3f} | {forward:,.0f} | |")
    print(f"| all | {recipe.epochs} | | {total:,.0f} | |")
    print(f"\n{total / rate / 60:.1f} minutes at {rate:g} GFLOP/s", end="")
    print(f"; the steps alone take {seconds / 60:.1f} minutes here" if steps else "")


def _draw(params: Params) -> None:
    """Draw the validation accuracy after each epoch of the kept results against the FLOP of training until then."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for folder in (KEPT_RESULTS / name for name in OF_ALL_IMAGES):
        histories = read_csv(folder / "histories.csv", {"model": str, "epoch": int}, float)
        for name, history in histories.groupby("model", sort=False):
            recipe = params.recipe(str(name))
            sizes = _sizes(recipe, len(history))
            flops = {size: TRAIN * step_flops(_model(recipe, size)) / 1e9 for size in {*sizes}}
            spent = np.cumsum([flops[size] for size in sizes])
            curves[str(name)] = list(spent), history["val_accuracy"].tolist()
    title = "Validation accuracy by the FLOP of training\nTiny ImageNet, 100,000 training and 10,000 validation images"
    with plotting.new_figure(FIGURE.with_suffix(""), 6.4, 4, suffixes=("svg",), title=title) as (_, axes):
        axis = axes[0, 0]
        for look, (name, (gigaflops, accuracies)) in zip(plotting.looks(len(curves)), curves.items(), strict=True):
            axis.plot(gigaflops, accuracies, markersize=4, label=name, **look)
        axis.set(xlabel="GFLOP of training", ylabel="accuracy, one view", xlim=(0, None))
        axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        plotting.from_zero(axis)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        plotting.beside(axis)
    print(FIGURE)


def _sizes(recipe: Recipe, epochs: int) -> list[int]:
    """Return the side of the training images in each epoch."""
    return [*recipe.image_sizes, *[SIDE] * epochs][:epochs]


def _model(recipe: Recipe, size: int) -> Any:
    from tiny_imagenet.models.registry import build_classifier

    return build_classifier(
        recipe.architecture, input_shape=(size, size, 3), num_classes=CLASSES, preprocessing=recipe.preprocessing,
        **recipe.build,
    )  # fmt: skip


def _images_per_second(model: Any, recipe: Recipe, size: int, steps: int) -> float:
    from tiny_imagenet.training.build import compile_model
    from tiny_imagenet.training.phases import phases

    compile_model(model, recipe, phases(recipe)[-1], TRAIN // recipe.batch_size)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (recipe.batch_size, size, size, 3), np.uint8)
    labels = random.integers(0, CLASSES, recipe.batch_size).astype(np.int32)
    targets = np.eye(CLASSES, dtype=np.float32)[labels] if recipe.soft_labels else labels
    seconds = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        model.train_on_batch(images, targets)
        seconds.append(time.perf_counter() - start)
    return recipe.batch_size / statistics.median(seconds[2:])


if __name__ == "__main__":
    typer.run(main)
