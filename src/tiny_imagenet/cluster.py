"""Ray, for work that is done many times at once: on this machine, or on a cluster. The only file that imports it.

Ray is optional (the extra `ray`), and imported when it is used. Only the calls themselves go over the network: data,
checkpoints and results are files of the repository, which every machine has to see at the same path.
"""

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from tiny_imagenet import runtime
from tiny_imagenet.errors import UserError
from tiny_imagenet.sweep_params import Sweep

_OBJECT_STORE_BYTES = 80 * 1024**2  # what Ray takes at least; nothing large goes through it
_TIMES_LOST = 3  # a task or trial whose node or process was lost is begun again so often
_SECONDS_TO_STOP = 30
_FORWARDED = ("MLFLOW_", "KERAS_BACKEND")
"""Beginnings of the variables that workers get from here; on this machine they get all."""
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",  # two trainings may print the same line
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without GPUs, leave CUDA_VISIBLE_DEVICES as it is
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the results have files of their own
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that has diverged has no metric
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # its banner
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
Report = Callable[[Mapping[str, Any]], None]


class Observer(Protocol):
    """Is told, in the process that started them, how trials go."""

    def started(self, number: int) -> None:
        """Take note that a trial begins, or begins again after it was lost."""

    def reported(self, number: int, figures: Mapping[str, Any]) -> None:
        """Take what a trial reports; after it was lost, it reports all of its epochs again."""

    def ended(self, number: int, error: str | None) -> None:
        """Take note that a trial is over: done, stopped early, or lost too often (`error`)."""


@dataclass(frozen=True)
class Share:
    """How the machines are divided."""

    workers: int
    """Trainings at once."""
    cores: int
    """Of each training."""
    gpus: int
    """Of each training: 1 where there are any."""

    def environment(self) -> dict[str, str]:
        """Return the variables by which a training computes on its cores alone."""
        return {} if self.gpus else runtime.thread_settings(self.cores)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    host: str
    cores: int
    gpus: int


class Cluster:
    """What `connected` yields: the machines, and the ways to have them work."""

    def __init__(self, ray: Any, nodes: list[Node]):
        self._ray = ray
        self.nodes = nodes

    @property
    def hosts(self) -> set[str]:
        """The names of the machines."""
        return {node.host for node in self.nodes}

    def share(self, num_jobs: int, workers: int | None, cores: int | None) -> Share:
        """Return how `num_jobs` trainings are spread: over all cores, unless it is said how many workers or cores.

        Raises:
            UserError: no machine has so many cores.
        """
        gpus = sum(node.gpus for node in self.nodes)
        total, most = sum(node.cores for node in self.nodes), max(node.cores for node in self.nodes)
        if cores is not None and cores > most:
            raise UserError(f"--cores {cores}: no machine here has more than {most}")
        if workers is None:
            workers = max(1, min(num_jobs, gpus or total // (cores or 1)))
        cores = cores or max(1, min(total // workers, most))
        return Share(workers, cores, gpus=1 if gpus else 0)

    def run(
        self, function: Callable[..., Any], jobs: Mapping[str, tuple[Any, ...]], share: Share
    ) -> Iterator[tuple[str, Any]]:
        """Call `function` with each of the jobs' arguments, as many at once as `share` says; yield name, outcome.

        The outcome is what was returned, or an Exception. When the caller stops iterating, what runs is interrupted.
        """
        ray = self._ray
        task = ray.remote(
            num_cpus=share.cores, num_gpus=share.gpus, max_calls=1, max_retries=_TIMES_LOST, retry_exceptions=False
        )(function)
        waiting = list(jobs.items())
        running: dict[Any, str] = {}
        try:
            while waiting or running:
                while waiting and len(running) < share.workers:
                    name, arguments = waiting.pop(0)
                    running[task.options(name=name).remote(*arguments)] = name
                done, _ = ray.wait(list(running))
                for reference in done:
                    name = running.pop(reference)
                    try:
                        yield name, ray.get(reference)
                    except Exception as error:
                        yield name, error
        finally:
            for reference in running:
                ray.cancel(reference)
            if running:
                ray.wait(list(running), num_returns=len(running), timeout=_SECONDS_TO_STOP)

    def require_shared(self, folder: Path) -> None:
        """See that each node has `folder` at the same path, with the same files in it.

        Raises:
            UserError: one does not; it is named.
        """
        ray = self._ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        token = folder / f".{secrets.token_hex(8)}.partial"
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()
        try:
            look = ray.remote(num_cpus=0)(_exists)
            asked = {
                look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
                    str(token)
                ): node
                for node in self.nodes
            }
            for reference, node in asked.items():
                if not ray.get(reference):
                    raise UserError(
                        f"the machine {node.host} does not see {folder}: every machine of the cluster needs this "
                        "repository at the same path, on a file system that they share"
                    )
        finally:
            token.unlink()

    def run_trials(
        self,
        function: Callable[[int, Report], None],
        sweep: Sweep,
        numbers: list[int],
        *,
        share: Share,
        scratch: Path,
        known: Mapping[int, Sequence[Mapping[str, float]]],
        observer: Observer,
    ) -> None:
        """Run trials on Ray Tune, which stops bad ones early and begins lost ones again.

        Args:
            function: what a trial does, with its number and a way to report figures; `epoch` is among them.
            sweep: the metric, and how bad trials are stopped.
            numbers: the trials that are to be run.
            share: how many at once, on what.
            scratch: a folder for Tune's own files, which all machines see; it is removed.
            known: the epochs of trials that were run before, by which ASHA judges the others.
            observer: is told of everything.
        """
        tune = self._ray.tune

        class Bridge(tune.Callback):  # type: ignore[misc, name-defined] # Ray may be missing as types are checked
            def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
                observer.started(trial.config["number"])

            def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
                observer.reported(trial.config["number"], result)

            def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
                observer.ended(trial.config["number"], None)

            def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
                lost = trial.get_error()
                reason = (str(lost).strip() or "lost").splitlines()[-1]
                observer.ended(trial.config["number"], reason)

        def trainable(config: dict[str, int]) -> None:
            def report(figures: Mapping[str, Any]) -> None:
                tune.report(dict(figures))

            function(config["number"], report)

        shutil.rmtree(scratch, ignore_errors=True)
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": share.cores, "gpu": share.gpus}),
            param_space={"number": tune.grid_search(numbers)},
            tune_config=tune.TuneConfig(
                scheduler=scheduler(tune, sweep, known), max_concurrent_trials=share.workers, reuse_actors=False
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(scratch.absolute()),
                failure_config=tune.FailureConfig(max_failures=_TIMES_LOST),
                callbacks=[Bridge()],
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _exists(path: str) -> bool:
    with suppress(OSError):
        os.listdir(Path(path).parent)  # noqa: PTH208 - a network file system looks anew
    return Path(path).exists()


def scheduler(tune: Any, sweep: Sweep, known: Mapping[int, Sequence[Mapping[str, float]]]) -> Any:
    """Return ASHA, which knows what trials of an earlier call have reached; or what stops none."""
    if sweep.stop_early is None:
        return tune.schedulers.FIFOScheduler()
    scheduler = tune.schedulers.ASHAScheduler(
        time_attr="epoch",
        metric=sweep.metric,
        mode=sweep.mode,
        max_t=sweep.epochs,
        grace_period=sweep.stop_early.grace_epochs,
        reduction_factor=sweep.stop_early.reduction_factor,
        stop_last_trials=False,
    )
    for number, history in known.items():
        stand_in = SimpleNamespace(trial_id=f"known {number}")
        scheduler.on_trial_add(None, stand_in)
        for epoch, figures in enumerate(history, start=1):
            scheduler.on_trial_result(None, stand_in, {"epoch": epoch, **figures})
    return scheduler


def require_ray() -> Any:
    """Return the module ray; raises UserError where it is not installed."""
    os.environ.update({name: value for name, value in _SETTINGS.items() if name not in os.environ})
    try:
        import ray
        import ray.tune
    except ImportError as error:
        raise UserError(f"this runs on Ray, which is not installed ({error}): make extras") from None
    return ray


@contextmanager
def connected(address: str | None, root: Path) -> Iterator[Cluster]:
    """Start Ray on this machine, or connect to a cluster, for the block.

    Args:
        address: host:port of a cluster's head, "auto" for the one that this machine is part of; None: this machine.
        root: the repository, whose sources the workers run.

    Raises:
        UserError: Ray is not installed, or nothing answers at the address.
    """
    ray = require_ray()
    variables = {name: value for name, value in os.environ.items() if name.startswith(_FORWARDED)}
    sources = str(Path(__file__).parents[1])
    options: dict[str, Any] = {
        "include_dashboard": False,
        "logging_level": "error",
        "runtime_env": {"env_vars": variables | {"PYTHONPATH": f"{sources}:{root}"}},
    }
    if address is None:
        options |= {
            "address": "local",
            "num_cpus": runtime.cores(),
            "object_store_memory": _OBJECT_STORE_BYTES,
            "_node_ip_address": "127.0.0.1",  # nobody else's
        }
    else:
        options |= {"address": address}
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{where} cannot be used: {reason}") from None
    try:
        yield Cluster(ray, _nodes(ray))
    finally:
        ray.shutdown()


def _nodes(ray: Any) -> list[Node]:
    return [
        Node(
            node["NodeID"],
            node["NodeManagerHostname"],
            int(node["Resources"].get("CPU", 0)),
            int(node["Resources"].get("GPU", 0)),
        )
        for node in ray.nodes()
        if node["Alive"] and node["Resources"].get("CPU", 0) >= 1
    ]
