"""The trainings of `tiny-imagenet train`, and its `replicates` in params.yaml."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from made_results import VALUES

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import Params, parse_params
from tiny_imagenet.parallel import workers
from tiny_imagenet.parallel.cluster.machines import Allotment
from tiny_imagenet.parallel.workers import trainings, with_replicates


def params(**replicates: Any) -> Params:
    return parse_params(VALUES | {"replicates": replicates})


def test_five_seeds_are_the_models_own_and_four_others():
    models = ["model_1", "model_2"]
    extended = with_replicates(params(), models, 5)
    assert extended == params(models=models, seeds=[2, 3, 4, 5])  # 1 is `seed`
    names = trainings(extended, models, 5)
    assert len(names) == len(set(names)) == 10
    assert names[:4] == ["model_1", "model_2", "model_1-2", "model_2-2"]


def test_current_seeds_come_first_and_lists_may_grow():
    current = params(models=["model_2"], seeds=[7, 2])
    extended = with_replicates(current, ["model_1", "model_2"], 4)
    assert extended == params(models=["model_1", "model_2"], seeds=[7, 2, 3])


def test_replicates_that_include_all_stay():
    current = params(models=["model_1", "model_2"], seeds=[7, 2])
    assert with_replicates(current, ["model_2"], 2) is current
    assert trainings(current, ["model_2"], 2) == ["model_2", "model_2-7"]


@pytest.mark.parametrize("models", [["model_1"], ["model_2"]])
def test_trainings_that_were_not_requested_are_not_added(models):
    current = params(models=["model_2", "model_4"], seeds=[2, 3])
    with pytest.raises(
        UserError, match=r"edit `replicates`, for example to models: \[model_.\] and seeds: \[2, 3, 4\]"
    ):
        with_replicates(current, models, 4)


def test_without_seeds_only_the_models_are_trained():
    assert trainings(params(models=["model_1"], seeds=[2]), ["model_1", "model_3"], None) == ["model_1", "model_3"]


class Machines:
    """A cluster whose trainings end with given outcomes."""

    def __init__(self, outcomes: dict[str, Any], hosts: set[str]):
        self.outcomes, self.hosts = outcomes, hosts

    def require_shared(self, folder: Path) -> None:
        assert folder.name == "checkpoints"

    def allot(self, *_: Any) -> Allotment:
        return Allotment(2, 1, 0)

    def run(self, function: Any, jobs: dict[str, tuple[Any, ...]], allotment: Allotment) -> Iterator[tuple[str, Any]]:
        assert function is workers.run_stages
        yield from ((name, self.outcomes[name]) for name in jobs)


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Call `workers.train` for trainings with given outcomes; return the stages given to DVC."""

    def start(outcomes: dict[str, Any], hosts: set[str], no_table: UserError | None = None) -> list[tuple[str, ...]]:
        asked: list[tuple[str, ...]] = []

        def repro(*stages: str, **_: Any) -> None:
            asked.append(stages)
            if stages == ("compare",):
                assert (tmp_path / "results").is_dir()  # the stage depends on it
                if no_table:
                    raise no_table

        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(workers.dvc, "repro", repro)
        monkeypatch.setattr(workers.machines, "connected", lambda *_: nullcontext(Machines(outcomes, hosts)))
        try:
            workers.train(params(), list(outcomes), list(outcomes), workers=None, cores=None, address=None)
        finally:
            outcomes["asked"] = asked
        return asked

    return start


def test_a_failed_training_is_named_after_the_others_and_the_table(started):
    outcomes: dict[str, Any] = {
        "model_1": 255,
        "model_2": 0,
        "model_3": RuntimeError("ray::run_stages()\nlost"),
        "model_4": OSError(),
    }
    with pytest.raises(UserError) as caught:
        started(outcomes, {"here"})
    reasons = "model_1 (exit code 255); model_3 (lost); model_4 (OSError)"
    assert str(caught.value) == f"3 of 4 trainings failed, see above: {reasons}"
    first, last = outcomes["asked"]
    assert first == ("cache", *(f"architecture@model_{number}" for number in range(1, 5)))
    assert last == ("compare",)


def test_a_table_that_cannot_be_made_does_not_hide_what_failed(started):
    no_table = UserError("no table")
    with pytest.raises(UserError, match=r"1 of 1 trainings failed, see above: model_1 \(exit code 1\)\nno table$"):
        started({"model_1": 1}, {"here"}, no_table)
    with pytest.raises(UserError, match=r"^no table$"):
        started({"model_1": 0}, {"here"}, no_table)


def test_weights_are_checked_before_any_training_starts(started, monkeypatch):
    def missing(weights: str | None, architecture: str) -> None:
        raise UserError(f"no weights of {architecture}")

    monkeypatch.setattr(workers.weights, "weights_file", missing)
    outcomes: dict[str, Any] = {"model_5": 0}
    with pytest.raises(UserError, match="no weights of resnet50"):
        started(outcomes, {"here"})
    assert outcomes["asked"] == []


def test_the_stages_get_the_commands_environment_variables(started, monkeypatch):
    values = {"KERAS_BACKEND": "jax", "KERAS_HOME": "/weights", "MLFLOW_TRACKING_URI": "http://here:5000"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    environments = []

    def run(_: Machines, __: Any, jobs: dict[str, tuple[Any, ...]], ___: Allotment) -> Iterator[tuple[str, Any]]:
        environments.extend(arguments[-1] for arguments in jobs.values())
        yield from ((name, 0) for name in jobs)

    monkeypatch.setattr(Machines, "run", run)
    started({"model_1": 0}, {"here"})
    (environment,) = environments
    assert environment.items() >= values.items()


def test_several_machines_need_an_mlflow_server(started, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match=r"2 machines cannot share mlflow\.db"):
        started({"model_1": 0}, {"here", "there"})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://here:5000")
    assert started({"model_1": 0}, {"here", "there"})[-1] == ("compare",)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "RuntimeError"),
        ("1 worker was killed: low on memory\nmuch advice", "1 worker was killed: low on memory"),
        ("ray::run_stages() (pid=1)\n  File ...\nOSError: no room", "OSError: no room"),
    ],
)
def test_the_line_with_the_reason_is_shown(said, reason):
    assert workers._reason(RuntimeError(said)) == reason


def test_the_exit_code_of_the_stages_is_the_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(workers.dvc, "repro_command", lambda *_, **__: ["sh", "-c", "exit $CODE"])
    for code in (0, 3):
        assert workers.run_stages(tmp_path, "model_1", ["train@model_1"], {"CODE": str(code)}) == code
