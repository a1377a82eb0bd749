"""Count parameters, input and arithmetic of the pretrained models, without timing them.

    python -m benchmarks.transfer                 # every block of params.yaml that has weights; half a minute
    python -m benchmarks.transfer vgg16

With 200 classes and random weights. Hours are for the block's epochs of 100,000 images at 10 TFLOP/s, an assumption as
in
`benchmarks.cost`: an epoch of the head costs a forward pass, one of all layers a whole step. Savings of a
`backbone_share` below 1 are not counted.
"""

from typing import Annotated

import typer

from benchmarks.cost import GPU_TERAFLOPS, forward_flops, step_flops
from tiny_imagenet import entry
from tiny_imagenet.backend import runtime

IMAGES = 100_000


def main(models: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    """Count MODELS (default: all blocks with pretrained weights)."""
    params = entry.checked_params()
    runtime.prepare(0)
    import keras

    from tiny_imagenet.models.registry import build_classifier, preprocessing_of

    print(
        "| block | architecture | parameters | of the backbone | it sees | pixels | GFLOP per image, forward | "
        "hours at 10 TFLOP/s |"
    )
    print("| --- | --- | ---: | ---: | ---: | --- | ---: | ---: |")
    for name in models or [name for name, block in params.models.items() if block.weights]:
        block = params.models[name]
        model = build_classifier(
            block.architecture,
            input_shape=(64, 64, 3),
            num_classes=200,
            preprocessing=block.preprocessing,
            **block.build,
        )
        backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
        head_epochs = block.fine_tuning.head_epochs if block.fine_tuning else 0
        flops = head_epochs * forward_flops(model) + ((block.epochs or 15) - head_epochs) * step_flops(model)
        print(
            f"| {name} | {block.architecture} | {model.count_params():,} | {backbone.count_params():,} | "
            f"{backbone.input.shape[1]} x {backbone.input.shape[2]} | "
            f"{preprocessing_of(block.architecture, block.preprocessing)} | {forward_flops(model) / 1e9:.2f} | "
            f"{flops * IMAGES / (GPU_TERAFLOPS * 1e12) / 3600:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    typer.run(main)
