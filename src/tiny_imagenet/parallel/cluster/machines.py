"""Start Ray on this machine or connect to a cluster, divide the machines among trainings, and run tasks.

Ray is optional (the extra `ray`), and imported on first use. Only calls go over the network: data, checkpoints and
results are files of the repository, which every machine needs at the same path.
"""

import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny_imagenet.backend import runtime
from tiny_imagenet.common import signals
from tiny_imagenet.common.errors import UserError

_OBJECT_STORE_BYTES = 80 * 1024**2  # Ray's minimum; nothing large goes through it
TIMES_LOST = 3  # retries of a task or trial whose node or process was lost
_SECONDS_TO_STOP = 30
_SECONDS_TO_ANSWER = 5
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_oom_retries": str(TIMES_LOST),  # Ray retries forever if a training is too large for the memory
    "RAY_task_oom_retry_delay_base_ms": "60000",  # a terminated process may take so long to exit
    "RAY_DEDUP_LOGS": "0",  # two trainings may print the same line
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without GPUs, leave CUDA_VISIBLE_DEVICES as it is
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # the sweep writes its own files
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a diverged trial has no metric
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # no banner
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}

# A worker must not kill its children when it exits: one is the watchdog, which stops the others.
_OF_WORKERS = {"RAY_kill_child_processes_on_worker_exit": "0"}

# Let Ray listen on 127.0.0.1 only, as on macOS, not on every address of the machine.
_THIS_MACHINE_ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class Allotment:
    """How the machines are divided."""

    workers: int
    """Trainings at once."""
    cores: int
    """CPU cores per training."""
    gpus: int
    """GPUs per training: 1 if there are any."""

    def __str__(self) -> str:
        return f"{self.workers} at once, {self.cores} cores{' and a GPU' if self.gpus else ''} each"

    def environment(self) -> dict[str, str]:
        """Return the environment variables that limit a training to its cores."""
        return {} if self.gpus else runtime.thread_settings(self.cores)


@dataclass(frozen=True)
class Node:
    """A machine of the cluster."""

    id: str
    host: str
    cores: int
    gpus: int


@dataclass
class Cluster:
    """The machines of a running Ray."""

    ray: Any
    nodes: list[Node]

    @property
    def hosts(self) -> set[str]:
        """The names of the machines."""
        return {node.host for node in self.nodes}

    def allot(self, num_jobs: int, workers: int | None, cores: int | None) -> Allotment:
        """Return how to divide the machines among `num_jobs` trainings. All cores are used by default.

        If there are GPUs, each training gets one, and machines without GPUs are not used. By default, a training gets
        at most the cores of the smallest machine, so that any machine can resume it. Workers without a core, a GPU or
        a training are left out. Raise UserError if no machine has that many cores.
        """
        with_gpus = any(node.gpus for node in self.nodes)
        nodes = [node for node in self.nodes if node.cores and bool(node.gpus) == with_gpus] or self.nodes

        def at_once(cores: int) -> int:
            return sum(min(node.cores // cores, node.gpus if with_gpus else node.cores) for node in nodes)

        most = max(node.cores for node in nodes)
        if cores is not None and cores > most:
            raise UserError(f"--cores {cores}: no machine here has more than {most}; give a smaller number")
        if workers is None:
            workers = max(1, min(num_jobs, at_once(cores or 1)))
        if cores is None:
            smallest = min(node.cores for node in nodes)
            cores = next((number for number in range(smallest, 1, -1) if at_once(number) >= workers), 1)
        return Allotment(max(1, min(workers, num_jobs, at_once(cores))), cores, gpus=1 if with_gpus else 0)

    def run(
        self, function: Callable[..., Any], jobs: Mapping[str, tuple[Any, ...]], allotment: Allotment
    ) -> Iterator[tuple[str, Any]]:
        """Call `function` with the arguments of each job, and yield (name, outcome) as calls end.

        The outcome is the returned value or an Exception. If the caller stops iterating, running calls are interrupted.
        """
        ray = self.ray
        task = ray.remote(
            num_cpus=allotment.cores,
            num_gpus=allotment.gpus,
            max_calls=1,
            max_retries=TIMES_LOST,
            retry_exceptions=False,
        )(function)
        waiting = list(jobs.items())
        running: dict[Any, str] = {}
        try:
            while waiting or running:
                while waiting and len(running) < allotment.workers:
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
        """Raise UserError if a node does not have `folder` at the same path, with the same files in it."""
        ray = self.ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        token = folder / f".{secrets.token_hex(8)}.partial"
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()
        try:
            exists = ray.remote(num_cpus=0)(_exists)
            calls = {
                exists.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)).remote(
                    str(token)
                ): node
                for node in self.nodes
            }
            for reference, node in calls.items():
                try:
                    has_token = ray.get(reference)
                except ray.exceptions.RayError as error:
                    reason = str(error).strip().splitlines()[-1]
                    raise UserError(f"the machine {node.host} cannot run this repository's code: {reason}") from None
                if not has_token:
                    raise UserError(
                        f"the machine {node.host} does not have {folder}: put the repository on a file system that all "
                        "machines share, at the same path"
                    )
        finally:
            token.unlink(missing_ok=True)


def _exists(path: str) -> bool:
    with suppress(OSError):
        os.listdir(Path(path).parent)  # noqa: PTH208 - refreshes a network file system
    return Path(path).exists()


def require(address: str | None = None, cores: int | None = None) -> Any:
    """Set Ray's environment variables, then import and return Ray, for a cluster at `address` or this machine.

    Raise UserError if Ray is not installed, nothing answers at the address, or this machine has fewer cores.
    """
    if address is None and cores is not None and cores > runtime.cores():
        raise UserError(f"--cores {cores}: this machine has {runtime.cores()}; give a smaller number")
    if address is not None:
        _require_answer(address)
    settings = _SETTINGS if address else _SETTINGS | _THIS_MACHINE_ALONE
    os.environ.update({name: value for name, value in settings.items() if name not in os.environ})
    try:
        import ray
        import ray.tune
    except ImportError as error:
        raise UserError(f"this command needs Ray, which is not installed ({error}): run `make extras`") from None
    return ray


@contextmanager
def connected(address: str | None, root: Path) -> Iterator[Cluster]:
    """Start Ray on this machine, or connect to a cluster, for the block. The workers run the sources of `root`.

    The address is host:port of a cluster's head, or "auto" for the cluster of this machine; None: this machine only.
    Raise UserError if Ray is not installed, or if nothing answers at the address.
    """
    ray = require(address)
    sources = str(Path(__file__).parents[3])
    options: dict[str, Any] = {
        "include_dashboard": False,
        "logging_level": "error",
        "runtime_env": {"env_vars": {"PYTHONPATH": f"{sources}:{root}", **_OF_WORKERS}},  # Ray logs these
    }
    if address is None:
        options |= {"address": "local", "num_cpus": runtime.cores(), "object_store_memory": _OBJECT_STORE_BYTES}
    else:
        options["address"] = address
    try:
        ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError, OSError, ray.exceptions.AuthenticationError) as error:
        where = f"the Ray cluster at {address}" if address else "Ray on this machine"
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if address:
            reason += (
                ". If `ray start` printed that it uses a token: set RAY_AUTH_MODE=token here, too, and copy "
                "~/.ray/auth_token from the first machine"
            )
        raise UserError(f"{where} cannot be used: {reason}") from None
    try:
        yield Cluster(ray, _nodes(ray))
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C: Ray raises either, with its own exit code
        raise SystemExit(signals.STOPPED) from None
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise UserError if the address is not valid or nothing listens there. Ray itself would wait for minutes."""
    host, _, port = address.rpartition(":")
    if address == "auto":
        return
    if not host or "/" in address or not port.isdigit():
        raise UserError(f"--address '{address}': expected host:port of a Ray cluster's head, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=_SECONDS_TO_ANSWER).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"nothing answers at the Ray cluster's address {address} ({error}): run `ray start --head` there, or "
            "correct the address"
        ) from None


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
