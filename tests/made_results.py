"""Folders as `train` and `evaluate` leave them, with made-up figures, for tests of what reads them."""

import json
from pathlib import Path
from typing import Any

import yaml

from tiny_imagenet.config.params import Params, parse_params
from tiny_imagenet.reporting.inputs import ReportInputs, read_inputs
from tiny_imagenet.repository.paths import OVERVIEW

ROOT = Path(__file__).parents[1]
VALUES: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
PARAMETERS = {
    "model_1": 13_070_472,
    "model_2": 2_555_656,
    "model_3": 140_382_728,
    "model_4": 8_866_376,
    "model_5": 25_890_888,
}
METRICS: dict[str, float | int] = {
    "train_accuracy": 0.5,
    "train_accuracy_low": 0.4969,
    "train_accuracy_high": 0.5031,
    "train_accuracy_clean": 0.55,
    "train_accuracy_clean_low": 0.5469,
    "train_accuracy_clean_high": 0.5531,
    "val_accuracy": 0.3861,
    "val_accuracy_low": 0.3766,
    "val_accuracy_high": 0.3957,
    "val_accuracy_paper_protocol": 0.3514,
    "val_accuracy_paper_protocol_low": 0.3421,
    "val_accuracy_paper_protocol_high": 0.3608,
    "val_top5_accuracy": 0.6512,
    "val_top5_accuracy_low": 0.6418,
    "val_top5_accuracy_high": 0.6605,
    "val_balanced_accuracy": 0.3861,
    "val_balanced_accuracy_low": 0.3766,
    "val_balanced_accuracy_high": 0.3957,
    "val_loss": 2.5,
    "val_macro_f1": 0.38,
    "val_calibration_error": 0.05,
    "num_images": 10_000,
    "num_train_images": 100_000,
    "epochs": 15,
    "best_epoch": 12,
}
RUN: dict[str, Any] = {
    "experiment": "demo",
    "profile": "demo",
    "dataset": "digits",
    "seed": 1,
    "determinism": "exact",
    "weights": None,
    "device": "CPU AMD EPYC, 2 cores, 24 GiB",
    "devices": 1,
    "threads": "2 cores",
    "backend": "tensorflow 2.21.0",
    "precision": "float32",
    "preprocessing": "rescale",
    "params": {"epochs": 2},
    "stage": "train",
    "git": {"commit": None, "dirty": None, "diff": ""},
    "dependencies": {},
    "hashes": {"data": "0123456789abcdef"},
    "platform": "Linux",
    "versions": {},
    "images": {"classes": 10, "train": 40, "val": 20},
    "source": "embedded in the project",
    "started_at": "2026-01-02T03:04:05+00:00",
    "run_id": "0123456789abcdef0123456789abcdef",
    "tracking_uri": "sqlite:////somewhere/mlflow.db",
    "artifact_uri": "/somewhere/mlruns/artifacts",
    "model_uri": None,
    "model_md5": "0f" * 16,
    "epoch_seconds": [1.25, 2.5],
    "images_per_second": 425.8,
    "resumed_from": [],
    "best_epoch": 12,
}
DATA: dict[str, Any] = {
    "classes": 200,
    "in_archive": {"train": 100_000, "val": 10_000},
    "unlabelled": 10_000,
    "train_boxes_without_image": 0,
    "strays": [],
    "used": {"train": 100_000, "val": 10_000},
    "per_class": {"train": {f"n{label}": 500 for label in range(200)}, "val": {f"n{n}": 50 for n in range(200)}},
    "train_channel_means": [122.0, 114.0, 101.0],
    "train_channel_standard_deviations": [70.0, 68.0, 72.0],
    "duplicates": {"counts": {kind: {"train-val": {"pairs": 0}} for kind in ("exact", "near")}},
}


def made_params(**changes: Any) -> Params:
    """Return the committed params with some top keys changed."""
    return parse_params(VALUES | changes)


def make_results(root: Path, model: str, *, run: Any = None, metrics: Any = None) -> None:
    """Write `models/<model>` and `results/<model>` below a root, with some values changed."""
    models, results = root / "models" / model, root / "results" / model
    models.mkdir(parents=True)
    results.mkdir(parents=True)
    parameters = PARAMETERS.get(model, 1234)
    architecture = {
        "parameters": parameters - 7,
        "parameters_200_classes": parameters,
        "batch_normalization_layers": 0 if model in ("model_1", "model_2") else 3,
        "layers": [],
        "model_md5": (RUN | (run or {}))["model_md5"],
    }
    (models / "run.json").write_text(json.dumps(RUN | {"run_id": f"run of {model}"} | (run or {})))
    (models / "history.csv").write_text(
        "epoch,accuracy,val_accuracy,loss,val_loss,learning_rate\n1,0.1,0.2,3.0,2.5,0.001\n2,0.4,0.3,2.0,2.1,0.001\n"
    )
    (results / "metrics.json").write_text(json.dumps(METRICS | (metrics or {})))
    (results / "architecture.json").write_text(json.dumps(architecture))


def make_data(root: Path, params: Params, **changes: Any) -> None:
    """Write the report of the data below a root, as `cache` does for these params, with some values changed."""
    path = root / OVERVIEW / "report.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    made = {"profile": params.profile, "dataset": params.dataset.fingerprint} | DATA | changes
    path.write_text(json.dumps(made))


def made_inputs(params: Params, root: Path) -> ReportInputs:
    """Return the inputs of a report from what is below a root, and the report of the data, which is made."""
    make_data(root, params)
    return read_inputs(params, root)
