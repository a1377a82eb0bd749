"""Many models and seeds trained at once: the pipeline's own stages, run by DVC in Ray's workers."""

import os
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.progress import say
from tiny_imagenet.config.params import Params
from tiny_imagenet.models import weights
from tiny_imagenet.parallel import cluster
from tiny_imagenet.repository import dvc

_FORWARDED = ("MLFLOW_", "KERAS_BACKEND", "KERAS_HOME")
"""Beginnings of the variables that the stages get from here. As a task's arguments: Ray logs its environments."""


def wanted_replicates(params: Params, models: Sequence[str], num_seeds: int) -> tuple[list[str], list[int]]:
    """Return `replicates` of params.yaml, models and seeds, with which each of `models` has `num_seeds` seeds.

    The model's own seed is the first of them. Seeds that are there come next, then the lowest numbers. What is there
    and covers all this is left as it is.

    Raises:
        UserError: there are replicates that are not among those wanted, and adding to both lists would train more.
    """
    there = params.replicates
    free = (seed for seed in count(1) if seed != params.seed and seed not in there.seeds)
    seeds = list(there.seeds)[: num_seeds - 1]
    seeds += [next(free) for _ in range(num_seeds - 1 - len(seeds))]
    if {*models} <= {*there.models} and {*seeds} <= {*there.seeds}:
        return list(there.models), list(there.seeds)
    if not ({*there.models} <= {*models} and {*there.seeds} <= {*seeds}) and there.models and there.seeds:
        raise UserError(
            f"params.yaml: `replicates` has the models {', '.join(there.models)} with the seeds "
            f"{', '.join(map(str, there.seeds))}, and every model there has every seed. What is asked for would add "
            f"more trainings than it names: edit `replicates`, to models: [{', '.join(models)}] and "
            f"seeds: [{', '.join(map(str, seeds))}], say, and start again"
        )
    return list(models), seeds


def trainings(params: Params, models: Sequence[str], num_seeds: int | None) -> list[str]:
    """Return the names of what is to be trained: the models, and of their replicates the first `num_seeds` - 1."""
    seeds = params.replicates.seeds[: num_seeds - 1] if num_seeds else ()
    return [*models, *(f"{model}-{seed}" for seed in seeds for model in models)]


def train(
    params: Params,
    models: Sequence[str],
    names: Sequence[str],
    *,
    workers: int | None,
    cores: int | None,
    address: str | None,
    before: Callable[[], None] = lambda: None,
) -> None:
    """Bring trainings and their evaluations up to date, in the working directory, and make the table.

    Args:
        params: params.yaml.
        models: whose architectures are copied first, beside the packed images.
        names: of `trainings`.
        workers: trainings at once; None: as many as there are cores, or GPUs.
        cores: of each training; None: all are divided.
        address: of a Ray cluster; None: this machine.
        before: is called when the machines are found fit, before the trainings start.

    Raises:
        UserError: a training has failed, after all others are done; or they cannot be started.
    """
    root = Path.cwd()
    jobs = [params.job(name) for name in names]
    for job in jobs:
        weights.weights_file(job.recipe.weights, job.recipe.architecture)
    dvc.repro("cache", *(f"architecture@{model}" for model in models))
    failed = {}
    with cluster.connected(address, root) as machines:
        machines.require_shared(root / "checkpoints")
        if len(machines.hosts) > 1 and not os.environ.get("MLFLOW_TRACKING_URI"):
            raise UserError(
                f"{len(machines.hosts)} machines cannot share mlflow.db: start `mlflow server`, set "
                "MLFLOW_TRACKING_URI to its address, and start again"
            )
        allotment = machines.allot(len(names), workers, cores)
        before()
        say(f"{len(names)} trainings, {allotment}")
        environment = allotment.environment()
        environment |= {name: value for name, value in os.environ.items() if name.startswith(_FORWARDED)}
        tasks = {job.name: (root, job.name, [job.train_stage, job.evaluate_stage], environment) for job in jobs}
        for done, (name, outcome) in enumerate(machines.run(run_stages, tasks, allotment), start=1):
            if outcome != 0:
                failed[name] = f"exit code {outcome}" if isinstance(outcome, int) else _reason(outcome)
            say(f"{done} of {len(names)}: {name}: {failed.get(name, 'done')}")
    (root / "results").mkdir(exist_ok=True)  # where no training has any, the table says so
    problems = []
    if failed:
        reasons = "; ".join(f"{name} ({reason})" for name, reason in failed.items())
        problems.append(f"{len(failed)} of {len(names)} trainings failed, see above: {reasons}")
    try:
        dvc.repro("compare", alone=True)
    except UserError as error:
        problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))


def _reason(error: Exception) -> str:
    """Return the line that says why: the last of a task's traceback, else the first; the type where there is none."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if "ray::" in lines[0] else lines[0]


def run_stages(root: Path, name: str, stages: list[str], environment: dict[str, str]) -> int:
    """Bring the stages of a training up to date, and return the exit code; runs in a worker, and ends with it."""
    lock = root / "checkpoints" / f"{name}.worker.lock"
    return dvc.run_repro(*stages, lock=lock, alone=True, root=root, environment=environment)
