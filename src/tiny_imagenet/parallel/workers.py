"""Train many models and seeds at once: DVC runs the pipeline's stages in Ray's workers."""

import os
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.progress import say
from tiny_imagenet.config.params import Params, parse_params
from tiny_imagenet.models import weights
from tiny_imagenet.parallel.cluster import machines
from tiny_imagenet.repository import dvc
from tiny_imagenet.repository.paths import CHECKPOINTS, RESULTS

_FORWARDED = ("MLFLOW_", "KERAS_BACKEND", "KERAS_HOME")
"""Prefixes of environment variables for the stages. They are passed as arguments, since Ray logs its environments."""


def with_replicates(params: Params, models: Sequence[str], num_seeds: int) -> Params:
    """Return params with `replicates` that train each of `models` with `num_seeds` seeds.

    The first seed is that of params.yaml. The next are those of the current `replicates`, then the lowest free numbers.
    If the current `replicates` already include all, the same object is returned. Raise UserError if longer lists would
    add trainings that were not requested.
    """
    present = params.replicates
    unused = (seed for seed in count(1) if seed != params.seed and seed not in present.seeds)
    seeds = list(present.seeds)[: num_seeds - 1]
    seeds += [next(unused) for _ in range(num_seeds - 1 - len(seeds))]
    if {*models} <= {*present.models} and {*seeds} <= {*present.seeds}:
        return params
    if not ({*present.models} <= {*models} and {*present.seeds} <= {*seeds}) and present.models and present.seeds:
        raise UserError(
            f"params.yaml: `replicates` trains the models {', '.join(present.models)} with each of the seeds "
            f"{', '.join(map(str, present.seeds))}. Longer lists would add trainings that you did not request: edit "
            f"`replicates`, for example to models: [{', '.join(models)}] and seeds: [{', '.join(map(str, seeds))}], "
            "and rerun"
        )
    values = params.model_dump(mode="json", exclude_unset=True)
    return parse_params(values | {"replicates": {"models": list(models), "seeds": seeds}})


def trainings(params: Params, models: Sequence[str], num_seeds: int | None) -> list[str]:
    """Return the names of the trainings: the models and the first `num_seeds` - 1 replicates of each."""
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
    """Run the stages of `trainings` that are out of date, then `compare`, in the working directory.

    The stages `cache`, and `architecture` of the models, run first. Then `before` is called, when the machines are
    checked. Without `workers`, one training per core or GPU runs at a time; without `cores`, all cores are divided;
    without the `address` of a Ray cluster, this machine alone is used.

    Raise UserError if trainings cannot start, or, after all others are done, if one failed.
    """
    root = Path.cwd()
    jobs = [params.job(name) for name in names]
    for job in jobs:
        weights.weights_file(job.recipe.weights, job.recipe.architecture)
    dvc.repro("cache", *(f"architecture@{model}" for model in models))
    failed = {}
    with machines.connected(address, root) as cluster:
        cluster.require_shared(root / CHECKPOINTS)
        if len(cluster.hosts) > 1 and not os.environ.get("MLFLOW_TRACKING_URI"):
            raise UserError(
                f"{len(cluster.hosts)} machines cannot share mlflow.db: start `mlflow server`, set "
                "MLFLOW_TRACKING_URI to its address, and rerun"
            )
        allotment = cluster.allot(len(names), workers, cores)
        before()
        say(f"{len(names)} trainings, {allotment}")
        environment = allotment.environment()
        environment |= {name: value for name, value in os.environ.items() if name.startswith(_FORWARDED)}
        tasks = {job.name: (root, job.name, [job.train_stage, job.evaluate_stage], environment) for job in jobs}
        for done, (name, outcome) in enumerate(cluster.run(run_stages, tasks, allotment), start=1):
            if outcome != 0:
                failed[name] = f"exit code {outcome}" if isinstance(outcome, int) else _reason(outcome)
            say(f"{done} of {len(names)}: {name}: {failed.get(name, 'done')}")
    (root / RESULTS).mkdir(exist_ok=True)  # `compare` depends on it, also if every training failed
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
    """Return the line with the reason: the last of a task's traceback, else the first; the type if it is empty."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if "ray::" in lines[0] else lines[0]


def run_stages(root: Path, name: str, stages: list[str], environment: dict[str, str]) -> int:
    """Run the stages of a training that are out of date, in a worker, and return the exit code."""
    lock = root / CHECKPOINTS / f"{name}.worker.lock"
    return dvc.run_repro(*stages, lock=lock, alone=True, root=root, environment=environment)
