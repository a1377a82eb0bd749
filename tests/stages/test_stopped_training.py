"""A real `dvc repro` of a training, killed or interrupted: the next one goes on, in the same run, to the same bits."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pytest
from repository_copy import Copy, copy_of_repository, tiny

from tiny_imagenet.files import md5

MODEL = "model_2"
EPOCHS = 5
OUTPUTS = ("model.keras", "history.csv")
pytestmark = pytest.mark.slow


def small_model_2(params: dict) -> None:
    tiny(params)
    params["profiles"]["demo"]["training"]["epochs"] = EPOCHS
    params["models"][MODEL]["build"] |= {"filters": [4, 4, 4], "dense_units": 16}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Copy:
    copy = copy_of_repository(tmp_path_factory.mktemp("stopped") / "repository")
    copy.edit(small_model_2)
    copy.commit()
    return copy


@pytest.fixture(scope="module")
def undisturbed(copy) -> dict[str, str]:
    """What a training that nobody stops gives."""
    copy.succeed("dvc", "repro", f"train@{MODEL}")
    return outputs(copy)


def outputs(copy: Copy) -> dict[str, str]:
    return {name: md5(copy.root / "models" / MODEL / name) for name in OUTPUTS}


def train_again(copy: Copy) -> subprocess.Popen[str]:
    """Start a training whose result DVC has nowhere: not in its run cache, and not in its cache of files."""
    folder, cache = copy.root / "models" / MODEL, copy.root / ".dvc" / "cache"
    shutil.rmtree(cache / "runs", ignore_errors=True)
    for name in (*OUTPUTS, "run.json"):
        digest = md5(folder / name)
        (cache / "files" / "md5" / digest[:2] / digest[2:]).unlink(missing_ok=True)
        (folder / name).unlink()
    return copy.start("dvc", "repro", f"train@{MODEL}")


def wait_for_epoch(process: subprocess.Popen[str], epoch: int) -> str:
    """Return what was printed until an epoch was done."""
    printed = ""
    assert process.stdout is not None
    for line in process.stdout:
        printed += line
        if line.startswith(f"epoch  {epoch}/"):
            return printed
    raise AssertionError(printed)


def newest_run(copy: Copy) -> pd.Series:
    return copy.runs().sort_values("start_time").iloc[-1]


def steps(copy: Copy, run_id: str) -> dict[str, list[int]]:
    """Return the steps at which each metric of the epochs was logged, in their order."""
    script = (
        "import json, mlflow, sys; client = mlflow.MlflowClient('sqlite:///mlflow.db');"
        "names = ['loss', 'accuracy', 'val_loss', 'val_accuracy', 'learning_rate'];"
        "print(json.dumps({name: [point.step for point in client.get_metric_history(sys.argv[1], name)]"
        " for name in names}))"
    )
    return json.loads(copy.succeed(sys.executable, "-c", script, run_id).splitlines()[-1])


def finish(copy: Copy, undisturbed: dict[str, str]) -> dict:
    """Let the next `dvc repro` go on, check all that has to hold, and return run.json."""
    printed = copy.succeed("dvc", "repro", f"train@{MODEL}")
    record = json.loads((copy.root / "models" / MODEL / "run.json").read_text())
    run = newest_run(copy)
    assert outputs(copy) == undisturbed, printed
    assert run["run_id"] == record["run_id"]
    assert run["status"] == "FINISHED"
    assert set(map(tuple, steps(copy, run["run_id"]).values())) == {tuple(range(1, EPOCHS + 1))}
    assert not list((copy.root / "checkpoints").glob("*/*"))
    return record


@pytest.mark.parametrize("epoch", [1, 4])
def test_killed_it_goes_on_in_the_same_run_to_the_same_bits(copy, undisturbed, epoch):
    runs = len(copy.runs())
    process = train_again(copy)
    wait_for_epoch(process, epoch)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    record = finish(copy, undisturbed)
    assert len(copy.runs()) == runs + 1
    assert record["resumed_from"][0] >= epoch
    assert len(record["epoch_seconds"]) == EPOCHS


def test_interrupted_it_says_so_marks_the_run_and_goes_on_later(copy, undisturbed):
    process = train_again(copy)
    wait_for_epoch(process, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
    rest, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "stopped" in rest
    assert "exited with 130" in rest
    assert "Traceback" not in rest
    assert newest_run(copy)["status"] == "KILLED"
    assert finish(copy, undisturbed)["resumed_from"][0] >= 2


def test_after_an_edit_the_old_checkpoint_is_not_used_and_its_run_is_marked(copy, undisturbed):
    process = train_again(copy)
    wait_for_epoch(process, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    killed = newest_run(copy)
    assert killed["status"] == "RUNNING"  # nobody could tell MLflow
    with copy.edited(lambda params: params["models"][MODEL]["optimizer"].update(learning_rate=0.002)):
        copy.succeed("dvc", "repro", f"train@{MODEL}")
    record = json.loads((copy.root / "models" / MODEL / "run.json").read_text())
    runs = copy.runs().set_index("run_id")
    assert record["run_id"] != killed["run_id"]
    assert record["resumed_from"] == []
    assert runs.loc[killed["run_id"], "status"] == "KILLED"
    assert runs.loc[record["run_id"], "status"] == "FINISHED"
    assert not list((copy.root / "checkpoints").glob("*/*"))


def test_a_second_training_of_the_same_model_is_refused_and_the_first_goes_on(copy, undisturbed):
    first = copy.start(sys.executable, "-m", "stages.train", MODEL)
    wait_for_epoch(first, 1)
    second = copy.run(sys.executable, "-m", "stages.train", MODEL)
    rest, _ = first.communicate(timeout=120)
    assert second.returncode == 1
    assert f"{MODEL} is being trained by another process" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.returncode == 0, rest
    assert outputs(copy) == undisturbed
