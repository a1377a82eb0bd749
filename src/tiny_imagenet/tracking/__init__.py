"""MLflow: one run for each training, in one experiment for each profile. The only package that imports it."""

from tiny_imagenet.tracking.additions import add_model
from tiny_imagenet.tracking.results import (
    CHAMPION,
    REGISTERED_MODEL,
    TrackedRun,
    add_results,
    champion_file,
    complete,
    describe_experiment,
    find_run,
    metric_history,
    model_md5,
    register_champion,
    result_hashes,
    supersede,
)
from tiny_imagenet.tracking.run import Run, mark_killed, start_run, training_run
from tiny_imagenet.tracking.store import connect, public, tracking_uri
from tiny_imagenet.tracking.sweeps import open_run

__all__ = [
    "CHAMPION",
    "REGISTERED_MODEL",
    "Run",
    "TrackedRun",
    "add_model",
    "add_results",
    "champion_file",
    "complete",
    "connect",
    "describe_experiment",
    "find_run",
    "mark_killed",
    "metric_history",
    "model_md5",
    "open_run",
    "public",
    "register_champion",
    "result_hashes",
    "start_run",
    "supersede",
    "tracking_uri",
    "training_run",
]
