"""The commands `train` and `sweep`: what they refuse before anything starts, and what `sweep` writes back."""

import re
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny_imagenet import entry
from tiny_imagenet.cli import app
from tiny_imagenet.config.params import Params
from tiny_imagenet.parallel import workers
from tiny_imagenet.parallel.cluster import machines
from tiny_imagenet.parallel.sweep import run as sweeping
from tiny_imagenet.parallel.sweep.plan import plan

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command and return its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tiny-imagenet", *arguments])
        with pytest.raises(SystemExit) as caught:
            app.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train"], "name either models or --all"),
        (["train", "model_1", "--all"], "name either models or --all"),
        (["train", "model_22"], "'model_22' is not active in params.yaml (did you mean 'model_2'?)"),
        (["train", "model_2_as_published"], "'model_2_as_published' is not active"),
        (["sweep", "rate"], "no sweep 'rate' in params.yaml (did you mean 'rates'?); known: rates"),
        (["sweep", "rates", "--write-block", "model_2"], "models.model_2 exists already"),
        (["sweep", "rates", "--write-block", "Model"], "'Model' is not a valid block name"),
    ],
)
def test_an_invalid_call_is_one_message(arguments, expected, command, repository):
    before = (repository / "params.yaml").read_text()
    code, output, errors = command(*arguments)
    assert (code, output) == (1, "")
    assert errors.startswith("error: ")
    assert expected in errors
    assert "Traceback" not in errors
    assert (repository / "params.yaml").read_text() == before


@pytest.fixture
def typo(repository) -> str:
    """A sweep with a key that is misspelt; the message that refuses it."""
    path = repository / "params.yaml"
    text = path.read_text()
    assert "loguniform:" in text
    path.write_text(text.replace("loguniform:", "loguniforn:", 1))
    key = "params.yaml: sweeps.rates.search.optimizer.learning_rate"
    return f"{key}: unknown key 'loguniforn' (did you mean 'loguniform'?)"


def test_an_error_in_a_sweep_stops_no_stage(typo, repository):
    from stages import download

    assert entry.checked_params().active[0] == "model_1"
    download.main()
    assert (repository / "data" / "raw" / "dataset.zip").is_file()


def test_an_error_in_a_sweep_is_a_remark_of_check_and_refused_by_sweep(typo, command):
    code, output, errors = command("check")
    assert (code, errors) == (0, "")
    assert f"warning: `dvc repro` will work, but `tiny-imagenet sweep rates` would fail: {typo}" in output
    code, output, errors = command("sweep", "rates")
    assert (code, output) == (1, "")
    assert errors.startswith(f"error: {typo}")


@pytest.mark.parametrize("command_line", [["train", "--all", "--seeds", "3"], ["sweep", "rates"]])
@pytest.mark.parametrize(
    ("arguments", "changes", "expected"),
    [
        (["--address", "127.0.0.1:1"], {}, "nothing answers at the Ray cluster's address 127.0.0.1:1"),
        (["--cores", "4096"], {}, "--cores 4096: this machine has"),
        ([], {"devices": 2}, "devices"),
    ],
)
def test_a_sweep_that_cannot_run_is_refused_before_anything_is_written(
    command_line, arguments, changes, expected, command, repository
):
    path = repository / "params.yaml"
    text = path.read_text()
    for key, value in changes.items():
        text = re.sub(rf"(?m)^{key}:.*$", f"{key}: {value}", text)
    path.write_text(text)
    code, _, errors = command(*command_line, *arguments)
    assert code == 1
    assert expected in errors
    assert path.read_text() == text


@pytest.mark.parametrize(("hosts", "arguments"), [({"here", "there"}, []), ({"here"}, ["--cores", "3"])])
def test_unsuitable_machines_leave_params_unchanged(hosts, arguments, command, repository, monkeypatch):
    cluster = machines.Cluster(None, [machines.Node(host, host, 2, 0) for host in hosts])
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(cluster, "require_shared", lambda _: None)
    monkeypatch.setattr(machines, "require", lambda *_: None)
    monkeypatch.setattr(machines, "connected", lambda *_: nullcontext(cluster))
    monkeypatch.setattr(workers.dvc, "repro", lambda *_, **__: None)
    before = (repository / "params.yaml").read_text()
    code, _, errors = command("train", "--all", "--seeds", "3", *arguments)
    assert code == 1
    assert "machine" in errors
    assert (repository / "params.yaml").read_text() == before


def test_the_best_trial_is_written_back_even_if_others_were_lost(command, repository, monkeypatch):
    def run(params, name, **_):
        return plan(params, name).trials[2], "trial 3", {4: "out of memory"}

    monkeypatch.setattr(sweeping, "run", run)
    code, _, errors = command("sweep", "rates", "--write-block", "model_2_swept")
    assert code == 1
    assert "trial 4: out of memory" in errors
    assert "model_2_swept:" in (repository / "params.yaml").read_text()


def test_without_ray_train_writes_nothing_and_says_what_to_install(command, repository, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    before = (repository / "params.yaml").read_text()
    code, _, errors = command("train", "--all", "--seeds", "5")
    assert (code, errors.count("\n")) == (1, 1)
    assert "make extras" in errors
    assert (repository / "params.yaml").read_text() == before


@pytest.fixture
def started(monkeypatch) -> list[tuple[Any, ...]]:
    """What `train` would have trained, without training it, on machines that are fit."""
    calls: list[tuple[Any, ...]] = []

    def train(_: Params, models: list[str], names: list[str], *, before: Callable[[], None], **rest: Any) -> None:
        before()
        calls.append((models, names, rest))

    monkeypatch.setattr(machines, "require", lambda *_: None)
    monkeypatch.setattr(workers, "train", train)
    return calls


def test_seeds_are_written_to_params(command, repository, started):
    code, output, _ = command("train", "model_1", "model_2", "--seeds", "3", "--workers", "2", "--cores", "1")
    assert code == 0
    assert "params.yaml: replicates is now models: [model_1, model_2], seeds: [2, 3]" in output
    assert yaml.safe_load((repository / "params.yaml").read_text())["replicates"] == {
        "models": ["model_1", "model_2"], "seeds": [2, 3]
    }  # fmt: skip
    (call,) = started
    assert call == (
        ["model_1", "model_2"],
        ["model_1", "model_2", "model_1-2", "model_2-2", "model_1-3", "model_2-3"],
        {"workers": 2, "cores": 1, "address": None},
    )
    _, output, _ = command("train", "model_1", "model_2", "--seeds", "3")
    assert "params.yaml" not in output  # they are there


def test_all_means_the_active_models_and_their_replicates(command, repository, started):
    command("train", "model_1", "--seeds", "2")
    command("train", "--all")
    assert started[-1][1] == ["model_1", "model_2", "model_3", "model_4", "model_5", "model_1-2"]


def test_the_best_parameters_become_a_block(command, repository, monkeypatch):
    def run(params, name, **_):
        return plan(params, name).trials[2], "trial 3 of the sweep rates: holdout_accuracy 0.5000", {}

    monkeypatch.setattr(sweeping, "run", run)
    code, output, _ = command("sweep", "rates", "--write-block", "model_2_swept")
    assert code == 0
    assert "added models.model_2_swept" in output
    assert (
        "model_2_swept:                  # trial 3 of the sweep rates: holdout_accuracy 0.5000\n"
        in (repository / "params.yaml").read_text()
    )
    code, _, errors = command("sweep", "rates", "--write-block", "model_2_swept")
    assert (code, "exists already" in errors) == (1, True)
