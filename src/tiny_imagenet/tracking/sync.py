"""Log the results of the working directory to MLflow: one complete run each, restored if the store lost it."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from tiny_imagenet.backend import runtime
from tiny_imagenet.common.files import BusyError, md5, only_one
from tiny_imagenet.config.jobs import Job
from tiny_imagenet.config.params import Params
from tiny_imagenet.models.saved_model import load_model, read_metadata, without_optimizer
from tiny_imagenet.repository import dvc, workspace
from tiny_imagenet.repository.paths import CACHE, CHECKPOINTS, MODELS, RESULTS
from tiny_imagenet.repository.records import Metrics, RunRecord
from tiny_imagenet.tracking.additions import add_model
from tiny_imagenet.tracking.results import (
    CHAMPION,
    REGISTERED_MODEL,
    TrackedRun,
    complete,
    describe_experiment,
    register_champion,
    supersede,
)
from tiny_imagenet.tracking.run import mark_killed


@only_one(CHECKPOINTS / "sync.lock", "another process is logging these results to MLflow: wait for it")
def sync(params: Params, run_descriptions: Mapping[str, str], experiment_description: str) -> list[str]:
    """Log the results of the working directory to MLflow, and return a line for each change.

    Mark runs without a process as killed. Restore missing runs, and complete incomplete ones. Mark earlier runs of the
    working directory as superseded. Register the best model as the champion. Descriptions are Markdown;
    `run_descriptions` has one for the name of each training with results.

    Raise UserError if the store cannot be reached, or another process is syncing.
    """
    root, here = dvc.repository_root(), {"workspace": workspace.workspace_id()}
    done: list[str] = []
    for job in params.jobs:
        try:
            with only_one(workspace.lock_file(job.name), f"{job.name} is being trained"):
                killed = mark_killed(root, name=job.name, tags=here)
                workspace.drop_finished_checkpoint(job)
        except BusyError:
            continue
        done += [f"{job.name}: run {run_id} marked as killed: its training is not running" for run_id in killed]
    runs = {}
    for job in params.jobs:
        if job.name not in run_descriptions:
            continue
        if not _is_evaluated(job):
            done.append(f"{job.name}: trained, but not evaluated since: run `dvc repro`")
            continue
        record = RunRecord.read(MODELS / job.name / "run.json")
        run, restored = complete(
            root,
            job.name,
            record,
            tags=here,
            description=run_descriptions[job.name],
            log_model=partial(_log_model, model=job.name),
        )
        if restored:
            done.append(f"{job.name}: MLflow did not have the run {record.run_id}; restored as {run.run_id}")
        supersede(root, run, here)
        if not job.is_replicate:
            runs[job.name] = run
    if root == Path.cwd():  # not in the copy of a DVC experiment
        describe_experiment(root, params.profile, experiment_description)
        done += _register_champion(root, params, run_descriptions, runs)
    return done


def _register_champion(
    root: Path, params: Params, run_descriptions: Mapping[str, str], runs: Mapping[str, TrackedRun]
) -> list[str]:
    """Register the best model as the champion if the profile has one, and return a line about it."""
    if params.profile not in params.champion.profiles or not runs:
        return []

    def score(name: str) -> float:
        metrics, key = Metrics.read(RESULTS / name / "metrics.json"), params.champion.metric
        return metrics.val_accuracy_as_served if key == "val_accuracy" else float(getattr(metrics, key))

    model = max(runs, key=score)  # the first, if several are equal
    registration = register_champion(root, runs[model], run_descriptions[model])
    name = f"{REGISTERED_MODEL}@{CHAMPION}"
    best = f"{model}, version {registration.version}, by {params.champion.metric}"
    if registration.is_champion:
        return [f"{name}: {best}" + (f"; before: {registration.other}" if registration.other else "")]
    return [
        f"{name} is still {registration.other}; the best is {best}. To give it the alias, remove the alias in MLflow "
        "and run `tiny-imagenet sync`"
    ]


def _is_evaluated(job: Job) -> bool:
    """Return whether dvc.lock shows that the results of a job are those of its current model."""
    locked = dvc.locked_files(Path.cwd(), job.evaluate_stage)
    return all(
        path.is_file() and md5(path) == locked.get(path.as_posix())
        for path in (MODELS / job.name / file for file in ("model.keras", "history.csv"))
    )


def _log_model(run_id: str, model: str) -> None:
    path = MODELS / model / "model.keras"
    if "keras" not in sys.modules:
        runtime.prepare(seed=0)  # no random number is drawn
    example = np.load(CACHE / "val_images.npy", mmap_mode="r")[:1]
    metadata = read_metadata(path)
    add_model(
        run_id,
        without_optimizer(load_model(path)),
        path,
        runtime.requirements(),
        {key: metadata[key] for key in ("wnids", "class_names")},
        np.ascontiguousarray(example),
    )
