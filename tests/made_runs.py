"""Runs in MLflow that tests write and read."""

from pathlib import Path
from typing import Any

from tiny_imagenet.tracking.run import start_run


def write_run(root: Path, *, epochs: int = 0, **changes: Any) -> str:
    """Write a run of some epochs into the store of `root`, and return its id. The loss of an epoch is its number."""
    settings: dict[str, Any] = {"experiment": "demo", "name": "model_1", "params": {}, "tags": {}}
    with start_run(root, **settings | changes) as run:
        for epoch in range(1, epochs + 1):
            run.log_epoch(epoch, {"loss": float(epoch)})
    return run.run_id


def points(client: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    """Return step and value of each point of a metric."""
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]
