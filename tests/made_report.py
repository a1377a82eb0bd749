"""Everything that results.html is made from, with made-up results: folders of models, tables, little pictures."""

import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from made_results import PARAMETERS, VALUES, made_inputs, made_params, make_results
from PIL import Image

from tiny_imagenet.reporting.figures import DRAWN, FIGURES

MODELS = tuple(PARAMETERS)
SCRIPT = "<script>alert(1)</script>"
QUOTED = """a "quoted' & <b>name</b>"""
LONG = "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch"  # nowhere to break a line
VAL = {"model_1": 0.1822, "model_2": 0.2614, "model_3": 0.3021, "model_4": 0.3861, "model_5": 0.4987}
VERDICTS = ("reproduced", "above", "below", "cannot be tested here")
LAYERS = [
    {"name": "rescaling", "type": "Rescaling", "output_shape": [64, 64, 3], "parameters": 0},
    {"name": "conv2d", "type": "Conv2D", "output_shape": [62, 62, 32], "parameters": 896},
    {"name": "max_pooling2d", "type": "MaxPooling2D", "output_shape": [31, 31, 32], "parameters": 0},
    {"name": "flatten", "type": "Flatten", "output_shape": [12544], "parameters": 0},
    {"name": "dense", "type": "Dense", "output_shape": [200], "parameters": 2_509_000},
]


def png(width: int, height: int, seed: int = 0) -> bytes:
    """Return a picture of 16 x 16 grey squares, as large as a file as a plot, not as a photograph."""
    squares = np.random.default_rng(seed).integers(0, 256, (-(-height // 16), -(-width // 16)), np.uint8)
    pixels = squares.repeat(16, 0).repeat(16, 1)[:height, :width]
    with io.BytesIO() as stream:
        Image.fromarray(pixels).save(stream, "png", dpi=(150, 150))
        return stream.getvalue()


def svg(text: str) -> bytes:
    """Return a drawing with the head that matplotlib writes."""
    return (
        f'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="460.8pt" height="288pt" '
        f'viewBox="0 0 460.8 288" version="1.1"><rect width="460.8" height="288" fill="#0072B2"/>'
        f"<text>{text}</text></svg>"
    ).encode()


def class_names(number: int) -> list[str]:
    """Return names of classes: one that would be a script, one with quotes, a long one, and plain ones."""
    return [SCRIPT, QUOTED, LONG, *(f"class {place}, of animals and other things" for place in range(number - 3))]


def make_model(root: Path, model: str, *, num_classes: int = 200, epochs: int = 15, seed: int = 0) -> None:
    """Write `models/<model>` and `results/<model>` with every file that they may have."""
    random, top = np.random.default_rng(seed), VAL.get(model, 0.3)
    low, high = top - 0.0095, top + 0.0096
    accuracies = {"val_accuracy": top, "val_accuracy_low": low, "val_accuracy_high": high,
                  "val_accuracy_paper_protocol": top - 0.03, "val_top5_accuracy": top + 0.25,
                  "train_accuracy": top + 0.1, "train_accuracy_clean": top + 0.2,
                  "train_accuracy_clean_low": top + 0.197, "train_accuracy_clean_high": top + 0.203,
                  "val_balanced_accuracy": top, "val_balanced_accuracy_low": low,
                  "val_balanced_accuracy_high": high}  # fmt: skip
    run = {
        "dependencies": {
            "data/cache/train_images.npy": f"{seed:032x}",
            "src/tiny_imagenet/training/train.py": "b" * 32,
        },
        "git": {"commit": "08759e9a3f0b1c2d3e4f5a6b7c8d9e0f1a2b3c4d", "dirty": seed == 1, "diff": ""},
        "versions": {"keras": "3.15.1", "tensorflow": "2.21.0", "python": "3.11.7"},
        "epoch_seconds": [round(60 + 3 * random.random(), 2) for _ in range(epochs)],
        "images_per_second": round(10 ** random.uniform(1.2, 3.9), 1),
        "images": {"classes": num_classes, "train": 100_000, "val": 10_000},
        "resumed_from": [7] if seed == 2 else [],
    }
    make_results(root, model, metrics=accuracies | {"best_epoch": epochs - 2, "epochs": epochs}, run=run)
    results = root / "results" / model
    rise = 1 - np.exp(-np.arange(1, epochs + 1) / 4)
    pd.DataFrame(
        {"epoch": np.arange(1, epochs + 1), "accuracy": (top + 0.1) * rise, "val_accuracy": top * rise,
         "loss": 5.3 - 3 * rise, "val_loss": 5.2 - 2.5 * rise, "learning_rate": 0.0001}
    ).to_csv(root / "models" / model / "history.csv", index=False)  # fmt: skip
    architecture = json.loads((results / "architecture.json").read_text())
    (results / "architecture.json").write_text(json.dumps(architecture | {"layers": LAYERS}))

    names, recall = class_names(num_classes), random.beta(4, 6, num_classes)
    pd.DataFrame(
        {"label": range(num_classes), "wnid": [f"n{place:08d}" for place in range(num_classes)], "name": names,
         "precision": recall, "recall": recall, "f1": recall, "support": 50}
    ).to_csv(results / "per_class.csv", index=False)  # fmt: skip
    wrong = [{"actual": names[place % num_classes], "predicted": names[(place + 1) % num_classes], "count": 30 - place}
             for place in range(30)]  # fmt: skip
    itself = [{"actual": name, "predicted": name, "count": 20} for name in names]
    pd.DataFrame(itself + wrong).to_csv(results / "confusion.csv", index=False)
    figures = results / "figures"
    figures.mkdir()
    for name in ("confusion", "calibration", "classes"):
        (figures / f"{name}.png").write_bytes(png(900, 810, seed))
        (figures / f"{name}.svg").write_bytes(svg(f"{name} of {model}"))
    (figures / "gallery.png").write_bytes(png(1500, 1200, seed))


def audited_tables(models: Sequence[str]) -> pd.DataFrame:
    """Return an audit of the paper's tables with every verdict."""
    rows = [
        {"where": where, "model": model, "quantity": quantity, "paper": paper, "authors_log": None, "ours": ours,
         "low": low, "high": high, "verdict": VERDICTS[place % 4], "reason": "the interval contains the paper's",
         "deviations": "20 epochs in the log, 15 in the paper: `model_2_as_published`"}
        for where, quantity, paper, ours, low, high in (
            ("figure 9", "parameters", 13_070_472, 13_070_472, None, None),
            ("figure 10", "validation accuracy", 0.1419, 0.1822, 0.1748, 0.1899),
        )
        for place, model in enumerate(models)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def audited_claims() -> pd.DataFrame:
    """Return an audit of claims with every verdict, and with text that would be a tag."""
    verdicts = ("holds", "does not hold", "not shown", "cannot be tested here")
    return pd.DataFrame(
        {"claim": [f"Transfer wins, {verdict}" for verdict in verdicts], "where": "section VI",
         "paper": "43.14 % against 38.61 %", "ours": f"49.87 % {SCRIPT}", "verdict": verdicts,
         "reason": "paired test: p < 0.0001"}
    )  # fmt: skip


def paired_tests(models: Sequence[str]) -> pd.DataFrame:
    """Return a paired test of every two models, real where they are two apart."""
    rows = [
        {"model_a": a, "model_b": b, "accuracy_a": VAL[a], "accuracy_b": VAL[b], "difference": VAL[a] - VAL[b],
         "low": VAL[a] - VAL[b] - 0.01, "high": VAL[a] - VAL[b] + 0.01, "only_a": 900, "only_b": 1700,
         "p": 1e-9 if two - one > 1 else 0.2, "p_holm": 1e-8 if two - one > 1 else 0.4, "real": two - one > 1}
        for one, a in enumerate(models) for two, b in enumerate(models) if one < two
    ]  # fmt: skip
    return pd.DataFrame(rows)


def make_report(root: Path, models: Sequence[str] = MODELS) -> dict[str, Any]:
    """Write what the page reads below a root, for some of the models, and return the arguments of `results_html`."""
    for seed, model in enumerate(models):
        make_model(root, model, seed=seed)
    figures = root / FIGURES
    figures.mkdir(parents=True)
    for name in DRAWN:
        (figures / f"{name}.png").write_bytes(png(960, 600))
        (figures / f"{name}.svg").write_bytes(svg(name))
    for name in ("classes", "augmentation"):
        (figures / f"{name}.png").write_bytes(png(1200, 900))
    inputs = made_inputs(made_params(profile="paper", active=list(MODELS)), root)
    frame = inputs.table.frame
    spread = {"val_accuracy_mean": frame["val_accuracy"], "val_accuracy_std": 0.004, "num_seeds": 3}
    return {
        "inputs": dataclasses.replace(
            inputs,
            table=dataclasses.replace(inputs.table, frame=frame.assign(**spread)),
            paired=paired_tests(models),
            determinism=dict.fromkeys(models, "yes, 2 epochs of 3 batches on CPU"),
        ),
        "audited_tables": audited_tables(models),
        "audited_claims": audited_claims(),
        "captions": {name: name.replace("_", " ") for name in (*DRAWN, "classes", "augmentation")},
        "root": root,
    }


def with_status(arguments: dict[str, Any], status: dict[str, str]) -> dict[str, Any]:
    """Return the arguments where models have no results for these reasons, besides those that have none."""
    inputs = arguments["inputs"]
    table = dataclasses.replace(inputs.table, status={**inputs.table.status, **status})
    return arguments | {"inputs": dataclasses.replace(inputs, table=table)}


def demo_params() -> Any:
    """Return params whose profile changes recipes."""
    return made_params(profile="demo", profiles=VALUES["profiles"])
