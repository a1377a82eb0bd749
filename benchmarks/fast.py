"""Count the arithmetic of trainings on images that grow, and time their steps at each size.

    python -m benchmarks.fast                            # every block of params.yaml with `image_size_schedule`
    python -m benchmarks.fast --steps 10 fast_15_minutes # a minute; also images/s here

Counted are 100,000 training images an epoch, and after each epoch 10,000 validation images and those of
`reestimate_batch_normalization`, forward at full size: FLOP as in `benchmarks.cost`. Left out are the loader, which
works beside the step, batch normalization, pools, activations, the optimizer, and `evaluate`. Steps use random images.
"""

import statistics
import time
from typing import Annotated, Any

import typer

from benchmarks.cost import forward_flops, step_flops
from tiny_imagenet import entry
from tiny_imagenet.backend import runtime
from tiny_imagenet.config.recipe import Recipe

TRAIN, VAL, CLASSES, SIDE = 100_000, 10_000, 200, 64


def main(
    models: Annotated[list[str] | None, typer.Argument()] = None,
    steps: Annotated[int, typer.Option(min=0, help="Steps to time at each size, after two for warm-up.")] = 0,
    rate: Annotated[float, typer.Option(min=1e-3, help="GFLOP/s to turn FLOP into minutes; an assumption.")] = 100.0,
) -> None:
    """Count MODELS (default: all with `image_size_schedule`)."""
    params = entry.checked_params()
    runtime.prepare(0)
    print(f"{runtime.device()}, {runtime.backend()}")
    for name in models or [name for name, block in params.models.items() if block.image_size_schedule]:
        recipe = params.recipe(name)
        _print_table(name, recipe, steps, rate)


def _print_table(name: str, recipe: Recipe, steps: int, rate: float) -> None:
    sizes = [*recipe.image_sizes, *[SIDE] * recipe.epochs][: recipe.epochs]
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


def _model(recipe: Recipe, size: int) -> Any:
    from tiny_imagenet.models.registry import build_classifier

    return build_classifier(
        recipe.architecture, input_shape=(size, size, 3), num_classes=CLASSES, preprocessing=recipe.preprocessing,
        **recipe.build,
    )  # fmt: skip


def _images_per_second(model: Any, recipe: Recipe, size: int, steps: int) -> float:
    import numpy as np

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
