"""Run a sweep: many trials of one model on Ray Tune, in sweeps/NAME.

The folder of a trial is named by a fingerprint of everything that decides its result. So the same command resumes a
killed sweep, each trial after its last completed epoch, and after an edit runs only the new trials.
"""

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from filelock import FileLock

from tiny_imagenet.backend import runtime
from tiny_imagenet.common.errors import DivergedError, UserError
from tiny_imagenet.common.files import fingerprint, md5, only_one
from tiny_imagenet.common.progress import say
from tiny_imagenet.config.jobs import Job
from tiny_imagenet.config.params import Params
from tiny_imagenet.config.recipe import Recipe
from tiny_imagenet.models import weights as pretrained
from tiny_imagenet.models.registry import architecture_source
from tiny_imagenet.parallel.cluster import machines
from tiny_imagenet.parallel.cluster.trials import Report, run_trials
from tiny_imagenet.parallel.sweep import results
from tiny_imagenet.parallel.sweep.plan import Plan, Trial, plan
from tiny_imagenet.parallel.sweep.progress import Progress, open_parent
from tiny_imagenet.parallel.sweep.results import Record
from tiny_imagenet.repository import dvc
from tiny_imagenet.repository.paths import CACHE

SWEEPS = Path("sweeps")


class ChangedError(UserError):
    """An input of a trial has changed since the sweep started."""


@dataclass(frozen=True)
class Order:
    """The input of a worker that runs a trial."""

    root: Path
    folder: Path
    """The trial's folder, with its checkpoint and its log. Its name is the fingerprint of what decides the result."""
    recipe: Recipe
    seed: int
    exact: bool
    environment: Mapping[str, str]
    job: Job
    """The training of the model; the trial has its dependencies."""
    dependencies: Mapping[str, str]
    """`_dependencies` when the sweep started."""


def run(
    params: Params, name: str, *, workers: int | None, cores: int | None, address: str | None
) -> tuple[Trial, str, dict[int, str]]:
    """Run the trials of a sweep that are not over yet, in the working directory.

    Return the best of all trials that are over, one line about it, and number -> reason of each lost trial. `workers`,
    `cores` and `address` are those of `workers.train`. Raise UserError if the sweep or a trial is not valid, or if no
    trial has finished an epoch.
    """
    planned = plan(params, name)
    trials = planned.trials
    if params.devices != 1:
        raise UserError(f"devices: a trial has one device, params.yaml says {params.devices}; set it to 1 for a sweep")
    machines.require(address, cores)
    folder = SWEEPS / name
    with only_one(folder / "lock", f"the sweep {name} is being run by another process: wait for it or stop it"):
        dvc.repro("cache")
        recipes = {trial.number: trial.recipe for trial in trials}
        hashes = _dependencies(params.job(planned.sweep.model), recipes)
        folders = {number: folder / "trials" / key for number, key in _keys(params, planned, hashes).items()}
        records = {number: record for number, path in folders.items() if (record := results.read_record(path))}
        lost: dict[int, str] = {}
        if len(records) < len(trials) or not all(record.in_mlflow for record in records.values()):
            with machines.connected(address, Path.cwd()) as cluster:
                allotment = cluster.allot(len(trials), workers, cores)  # the same if the sweep is resumed
                lost = _run_trials(params, planned, hashes, folders, records, cluster, allotment)
        if lost and not any(record.is_ranked for record in records.values()):
            raise UserError(lost_trials(lost))
        best, about = results.best_trial(planned, records)
        results.write_results(folder, planned, records)
        say(results.table(planned, records).drop(columns="run_id").to_string(index=False))
    return best, about, lost


def lost_trials(lost: Mapping[int, str]) -> str:
    """Return a message that names the lost trials."""
    reasons = "\n".join(f"  trial {number}: {reason}" for number, reason in lost.items())
    return f"{len(lost)} trials were lost; rerun to resume them:\n{reasons}"


def _keys(params: Params, planned: Plan, hashes: Mapping[int, Mapping[str, str]]) -> dict[int, str]:
    """Return a fingerprint of what decides the result of each trial: recipe, seed, data, code, early stopping.

    The machine is not included: another one may resume a trial.
    """
    sweep = planned.sweep
    shared = {
        "seed": params.seed,
        "determinism": params.determinism,
        "stop_early": sweep.stop_early and (sweep.metric, sweep.stop_early.model_dump()),
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        "versions": {name: number for name, number in runtime.versions().items() if name not in ("dvc", "mlflow")},
    }
    return {
        trial.number: fingerprint(
            shared | {"recipe": trial.recipe.model_dump(mode="json"), "dependencies": hashes[trial.number]}
        )
        for trial in planned.trials
    }


def _dependencies(job: Job, recipes: Mapping[int, Recipe]) -> dict[int, dict[str, str]]:
    """Return path -> hash of the dependencies of each trial: images, code, architecture, weights.

    The architecture is the package's, not the copy in models/: a trial may have another one than its model.
    """
    shared = {path: digest for path, digest in dvc.dependency_hashes(job).items() if not path.startswith("models/")}
    own = {
        pair: _own_dependencies(*pair)
        for pair in {(recipe.weights, recipe.architecture) for recipe in recipes.values()}
    }
    return {number: shared | own[recipe.weights, recipe.architecture] for number, recipe in recipes.items()}


def _own_dependencies(weights: str | None, architecture: str) -> dict[str, str]:
    hashes = {f"the architecture {architecture}": sha256(architecture_source(architecture).encode()).hexdigest()}
    if path := pretrained.weights_file(weights, architecture):
        hashes[f"weights {weights}"] = md5(path)  # the path may differ on another machine
    return hashes


def _require_unchanged(order: Order) -> None:
    """Raise ChangedError if an input of the trial has changed since the sweep started."""
    now, then = _dependencies(order.job, {0: order.recipe})[0], order.dependencies
    if changed := sorted(path for path in now.keys() | then if now.get(path) != then.get(path)):
        raise ChangedError(f"{', '.join(changed)} changed while the sweep ran; rerun it")


def _run_trials(
    params: Params,
    planned: Plan,
    hashes: Mapping[int, Mapping[str, str]],
    folders: Mapping[int, Path],
    records: dict[int, Record],
    cluster: machines.Cluster,
    allotment: machines.Allotment,
) -> dict[int, str]:
    """Run the trials without a record, and return number -> reason of those that were lost."""
    root, name, sweep, trials = Path.cwd(), planned.name, planned.sweep, planned.trials
    folder = root / SWEEPS / name
    cluster.require_shared(folder)
    firsts = {key: number for number, key in reversed([*folders.items()])}  # of trials with the same values, the first
    say(f"{name}: {len(trials)} trials of {sweep.model}, {len(records)} of them done; {allotment}")
    exact, environment = params.determinism == "exact", allotment.environment()
    environment |= {name: os.environ[name] for name in ("KERAS_BACKEND", "KERAS_HOME") if name in os.environ}
    job = params.job(sweep.model)
    recipes = {trial.number: trial.recipe for trial in trials}
    orders = {
        number: Order(root, root / key, recipes[number], params.seed, exact, environment, job, hashes[number])
        for number, key in folders.items()
        if number not in records and firsts[key] == number
    }

    def work(number: int, report: Report) -> None:
        train_trial(orders[number], report)

    key = fingerprint({"profile": params.profile} | sweep.model_dump(mode="json", exclude={"trials"}))
    parent = open_parent(params, planned, folder / f"run-{key}")
    progress = Progress(params, planned, parent, folders, records)
    known = {number: record.history for number, record in records.items()}
    status = "KILLED"
    try:
        if orders:
            run_trials(
                cluster,
                work,
                sweep,
                list(orders),
                allotment=allotment,
                scratch=folder / "ray",
                known=known,
                progress=progress,
            )
        records |= {number: records[firsts[key]] for number, key in folders.items() if firsts[key] in records}
        progress.deliver()
        status = "FAILED" if progress.lost else "FINISHED"
        if any(record.is_ranked for record in records.values()):
            for path in results.write_results(folder, planned, records):
                parent.log_artifact(path)
    finally:
        progress.close()
        parent.end(status)
    return progress.lost


def train_trial(order: Order, report: Report) -> None:
    """Train a trial from its last completed epoch, and report each epoch. Runs in its own process, on any machine."""
    os.chdir(order.root)
    os.environ.update(order.environment)
    order.folder.mkdir(parents=True, exist_ok=True)
    # The worker of a seemingly lost node may still run. A restart waits for it.
    with (
        FileLock(order.folder / "lock"),
        (order.folder / "log").open("a", encoding="utf-8") as log,
        redirect_stdout(log),
    ):
        try:
            _require_unchanged(order)
            _train_trial(order, report)
            _require_unchanged(order)
        except DivergedError as error:  # Ray must not retry: it would diverge again
            report({"failed": str(error)})
        except ChangedError as error:  # likewise
            report({"refused": str(error)})
        else:
            report({"finished": True})


def _train_trial(order: Order, report: Report) -> None:
    runtime.prepare(order.seed, exact=order.exact)  # before anything that imports Keras
    import keras

    from tiny_imagenet.input_pipeline.packed import open_packed
    from tiny_imagenet.training import train
    from tiny_imagenet.training.checkpoint import Checkpoint

    def report_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
        report({"epoch": epoch + 1, "metrics": {key: float(value) for key, value in metrics.items()}, **metrics})

    checkpoint = Checkpoint(order.folder, order.folder.name)
    for epoch, metrics in enumerate(checkpoint.history()):
        report_epoch(epoch, metrics)
    train.train(
        order.recipe,
        open_packed(CACHE),
        seed=order.seed,
        weights_file=pretrained.weights_file(order.recipe.weights, order.recipe.architecture),
        checkpoint=checkpoint,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=report_epoch)],
    )
