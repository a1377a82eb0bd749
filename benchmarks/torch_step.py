"""Train the five models in PyTorch's own modules, channels last, as a child process of `benchmarks.training step`.

The argument is the name of a model. Each line on stdin is a number of steps; each answer is a line of JSON. Adam is
PyTorch's fused one, its fastest; threads and allocator have PyTorch's defaults.
"""

import json
import sys
import time
from typing import Any

import torch
from torch import nn

CLASSES, BATCH, SIDE = 200, 64, 64
_EPSILON = 1e-3  # Keras's, for batch normalization


def _plain(filters: list[int], flat: int, units: int, *, dropout: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in zip([3, *filters], filters, strict=False):
        layers += [nn.Conv2d(before, after, 3), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Linear(flat, units), nn.ReLU(), *([nn.Dropout(0.5)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(units, CLASSES))


def _normalized(
    filters: list[int], pool_after: set[int], pool: nn.Module, flat: int, units: list[int], *, dropout: bool
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index, (before, after) in enumerate(zip([3, *filters], filters, strict=False)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after, _EPSILON), nn.ReLU()]
        layers += [pool] if index in pool_after else []
    layers.append(nn.Flatten())
    for before, after in zip([flat, *units], units, strict=False):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after, _EPSILON), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.Dropout(0.5)] if dropout else []), nn.Linear(units[-1], CLASSES))


class _Bottleneck(nn.Module):
    """ResNet50's block as Keras has it: biases, and the stride in the first 1x1 convolution."""

    def __init__(self, before: int, filters: int, stride: int, *, project: bool):
        super().__init__()

        def convolution(inputs: int, outputs: int, size: int, step: int = 1) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, size, step, padding=size // 2), nn.BatchNorm2d(outputs, 1.001e-5)]

        self.main = nn.Sequential(
            *convolution(before, filters, 1, stride),
            nn.ReLU(),
            *convolution(filters, filters, 3),
            nn.ReLU(),
            *convolution(filters, 4 * filters, 1),
        )
        self.shortcut = nn.Sequential(*convolution(before, 4 * filters, 1, stride)) if project else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.main(x) + self.shortcut(x))


def _resnet50() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, padding=3), nn.BatchNorm2d(64, 1.001e-5), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, padding=1))
    before = 64
    for filters, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(_Bottleneck(before, filters, stride if block == 0 else 1, project=block == 0))
            before = 4 * filters
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 1024), nn.ReLU(), nn.Dropout(0.5)]
    return nn.Sequential(*layers, nn.Linear(1024, CLASSES))


def build(name: str) -> nn.Sequential:
    """Return a model of the paper with random weights."""
    if name == "model_1":
        return _plain([32, 64], 64 * 14 * 14, 1024, dropout=False)
    if name == "model_2":
        return _plain([32, 64, 128], 128 * 6 * 6, 512, dropout=True)
    if name == "model_3":
        pool = nn.MaxPool2d(3, 2, padding=1)
        return _normalized([64, 64, 128, 128, 256, 512], {1, 3, 5}, pool, 512 * 8 * 8, [4096, 1024], dropout=False)
    if name == "model_4":
        return _normalized([64, 128, 256], {0, 1, 2}, nn.MaxPool2d(2), 256 * 8 * 8, [512], dropout=True)
    if name == "model_5":
        return _resnet50()
    raise SystemExit(f"no PyTorch twin of {name}")


# Model 1 penalises its last convolution, model 3 all its kernels but the last layer's.
_L2 = {"model_1": (0.01, lambda name: name == "3.weight"), "model_3": (0.001, lambda name: not name.startswith("28."))}


def _penalised(name: str, model: nn.Module) -> tuple[float, list[torch.Tensor]]:
    rate, chosen = _L2.get(name, (0.0, lambda _: False))
    return rate, [weight for key, weight in model.named_parameters() if weight.ndim > 1 and chosen(key)]


def main() -> None:
    """Answer requests for steps until stdin ends."""
    torch.manual_seed(0)
    name = sys.argv[1]
    model = build(name).to(memory_format=torch.channels_last)
    rate, penalised = _penalised(name, model)
    learning_rate = 0.001 if name in ("model_2", "model_4") else 0.0001
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, eps=1e-7, fused=True)
    criterion = nn.CrossEntropyLoss()
    images = torch.randint(0, 256, (BATCH, 3, SIDE, SIDE), dtype=torch.uint8)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (BATCH,))
    floats: list[Any] = [*model.parameters(), *(buffer for buffer in model.buffers() if buffer.ndim)]
    print(
        json.dumps({"parameters": sum(tensor.numel() for tensor in floats), "version": torch.__version__}), flush=True
    )
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            optimizer.zero_grad()
            loss = criterion(model(images.float() / 255), labels)
            for weight in penalised:
                loss = loss + rate * weight.square().sum()
            loss.backward()
            optimizer.step()
            loss.item()
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"step": seconds, "gemm": []}), flush=True)


if __name__ == "__main__":
    main()
