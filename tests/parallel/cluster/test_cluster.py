"""Dividing machines, and messages if Ray is missing or not reachable. Needs no Ray."""

import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tiny_imagenet.backend import runtime
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.parallel.cluster import machines
from tiny_imagenet.parallel.cluster.machines import Allotment, Cluster, Node
from tiny_imagenet.parallel.cluster.trials import scheduler
from tiny_imagenet.parallel.sweep.schema import Sweep


def cluster(*cores: int, gpus: int = 0) -> Cluster:
    return Cluster(None, [Node(str(number), f"host{number}", size, gpus) for number, size in enumerate(cores)])


@pytest.mark.parametrize(
    ("cores", "jobs", "wanted", "expected"),
    [
        ((2,), 10, (None, None), (2, 1)),  # one per core
        ((2,), 1, (None, None), (1, 2)),  # not more than jobs
        ((8,), 10, (2, None), (2, 4)),  # cores are divided
        ((8,), 10, (None, 2), (4, 2)),
        ((8,), 10, (3, 1), (3, 1)),
        ((4, 4), 3, (1, None), (1, 4)),  # a training has one machine
        ((4, 4), 20, (None, None), (8, 1)),
        ((2,), 10, (5, None), (2, 1)),  # the others would wait for a core
        ((2, 2), 10, (4, 2), (2, 2)),
        ((8,), 2, (4, None), (2, 2)),  # the others would wait for a job; the cores stay as requested
        ((2,), 0, (None, None), (1, 2)),
        ((2, 6), 2, (None, None), (2, 2)),  # one on each machine, and either can resume both
        ((4, 16), 3, (None, None), (3, 4)),
        ((4, 8), 4, (2, None), (2, 4)),
        ((0, 4), 8, (None, None), (4, 1)),  # a head without cores
    ],
)
def test_cores_are_divided_by_the_workers(cores, jobs, wanted, expected):
    allotment = cluster(*cores).allot(jobs, *wanted)
    assert (allotment.workers, allotment.cores, allotment.gpus) == (*expected, 0)


def test_each_training_gets_a_gpu_if_there_are_any():
    allotment = cluster(8, 8, gpus=2).allot(10, None, None)
    assert (allotment.workers, allotment.cores, allotment.gpus) == (4, 4, 1)
    assert allotment.environment() == {}


def test_machines_are_the_living_nodes_of_ray_that_have_cores():
    def node(name: str, *, alive: bool = True, **resources: float) -> dict[str, object]:
        return {"NodeID": f"id of {name}", "NodeManagerHostname": name, "Alive": alive, "Resources": resources}

    ray = SimpleNamespace(
        nodes=lambda: [node("one", CPU=8.0, GPU=2.0), node("two", CPU=4.0), node("dead", alive=False), node("head")]
    )
    assert machines._nodes(ray) == [Node("id of one", "one", 8, 2), Node("id of two", "two", 4, 0)]


def test_no_more_trainings_run_at_once_than_there_are_gpus():
    assert cluster(8, gpus=2).allot(10, 4, None).workers == 2


def test_a_machine_without_gpus_is_not_used_if_others_have_some():
    mixed = Cluster(None, [Node("0", "head", 64, 0), Node("1", "worker", 8, 2)])
    allotment = mixed.allot(4, None, None)
    assert (allotment.workers, allotment.cores, allotment.gpus) == (2, 4, 1)
    with pytest.raises(UserError, match="--cores 16: no machine here has more than 8"):
        mixed.allot(4, None, 16)


def test_more_cores_than_a_machine_has_are_refused():
    with pytest.raises(UserError, match="--cores 5: no machine here has more than 4"):
        cluster(4, 4).allot(10, None, 5)


def test_a_training_computes_only_on_its_cores():
    assert Allotment(workers=2, cores=3, gpus=0).environment() == runtime.thread_settings(3)
    assert set(runtime.thread_settings(3).values()) == {"3"}


def test_without_ray_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"needs Ray, which is not installed.*make extras"):
        machines.require()


@pytest.mark.parametrize("address", ["head", "ray://head:10001", ":6379", "head:port", ""])
def test_an_invalid_address_is_refused(address):
    with pytest.raises(UserError, match="expected host:port"), machines.connected(address, Path.cwd()):
        pass


def test_an_address_without_a_cluster_is_refused_at_once():
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"nothing answers .* {address}"), machines.connected(address, Path.cwd()):
            pass


class AuthenticationError(Exception):
    """A stand-in for Ray's error, which has no other base class."""


@pytest.mark.parametrize("kind", [ConnectionError, AuthenticationError])
def test_a_cluster_that_refuses_is_named_with_advice_about_its_token(kind, tmp_path, monkeypatch):
    class Ray:
        exceptions = SimpleNamespace(AuthenticationError=AuthenticationError)

        @staticmethod
        def init(**_: object) -> None:
            raise kind("no token\nmuch advice")

    monkeypatch.setattr(machines, "require", lambda *_: Ray)
    expected = r"the Ray cluster at first:1 cannot be used: no token\. If `ray start` printed .* RAY_AUTH_MODE=token"
    with pytest.raises(UserError, match=expected), machines.connected("first:1", tmp_path):
        pass


@pytest.mark.parametrize(
    ("metric", "good", "bad"),
    [("val_loss", 1.0, 2.0), ("holdout_loss", 1.0, 2.0), ("val_accuracy", 0.6, 0.3), ("holdout_accuracy", 0.6, 0.3)],
)
def test_trials_are_stopped_early_by_the_worse_of_a_loss_and_of_an_accuracy(metric, good, bad):
    """Half of the trials continue after epoch 1: the fourth has to be better than the median of three known ones."""
    tune = pytest.importorskip("ray.tune", reason="Ray is not installed: make extras")
    stop_early = {"grace_epochs": 1, "reduction_factor": 2}
    sweep = Sweep.model_validate(
        {"model": "model_2", "metric": metric, "epochs": 8, "trials": 9, "stop_early": stop_early,
         "search": {"optimizer.learning_rate": {"uniform": [0.1, 0.2]}}}
    )  # fmt: skip
    middle = (good + bad) / 2
    known = {number: [{metric: middle + 0.001 * number}] for number in range(3)}
    for value, decision in ((good, "CONTINUE"), (bad, "STOP")):
        asha, trial = scheduler(tune, sweep, known), SimpleNamespace(trial_id="a trial")
        asha.on_trial_add(None, trial)
        assert asha.on_trial_result(None, trial, {"epoch": 1, metric: value}) == decision
