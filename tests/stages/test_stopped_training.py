"""A real `dvc repro` of a training, killed or interrupted: the next one goes on, in the same run, to the same bits."""

import os
import re
import signal
import sys
from dataclasses import dataclass

import pytest
from finished_pipeline import copy_of_pipeline
from stopped import Training, wait_for_epoch, wait_for_line

MODEL = "model_2"
EPOCHS = 5
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Training:
    copy, _ = copy_of_pipeline(tmp_path_factory.mktemp("stopped") / "repository", tmp_path_factory)
    copy.edit(lambda params: params["profiles"]["demo"]["training"].update(epochs=EPOCHS))
    copy.commit()
    return Training(copy, MODEL, EPOCHS)


@pytest.fixture(scope="module")
def undisturbed(training) -> dict[str, str]:
    """What a training that nobody stops gives."""
    training.run()
    return training.outputs()


@pytest.fixture(scope="module")
def killed(training, undisturbed, tmp_path_factory) -> Training:
    """Another copy of the repository, in which the training was killed after its fourth epoch. Tests copy it."""
    killed = training.copied_to(tmp_path_factory.mktemp("killed") / "repository")
    process = killed.start_from_scratch()
    wait_for_epoch(process, 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return killed


def test_a_killed_training_resumes_in_the_same_run_to_the_same_bits(killed, undisturbed, tmp_path):
    training = killed.copied_to(tmp_path / "repository")
    runs, lock = len(training.copy.runs()), training.copy.root / "dvc.lock"
    before, run = lock.read_bytes(), training.newest_run()["run_id"]
    record = training.resume(undisturbed)
    assert record["resumed_from"][0] >= 4
    assert record["run_id"] == run
    assert len(training.copy.runs()) == runs

    lock.write_bytes(before)  # as DVC would leave it, killed before it has noted the whole training
    training.forget()
    again = training.resume(undisturbed)
    assert again["run_id"] == record["run_id"]
    assert again["resumed_from"] == [*record["resumed_from"], EPOCHS]
    assert len(training.copy.runs()) == runs


def test_after_an_edit_the_old_checkpoint_is_not_used_and_its_run_is_marked(killed, tmp_path):
    training = killed.copied_to(tmp_path / "repository")
    stopped = training.newest_run()
    assert stopped["status"] == "RUNNING"  # nobody could tell MLflow
    with training.copy.edited(lambda params: params["models"][MODEL]["optimizer"].update(learning_rate=0.002)):
        training.run()
    record = training.record()
    runs = training.copy.runs().set_index("run_id")
    assert record["run_id"] != stopped["run_id"]
    assert record["resumed_from"] == []
    assert runs.loc[stopped["run_id"], "status"] == "KILLED"
    assert runs.loc[record["run_id"], "status"] == "FINISHED"


@dataclass(frozen=True)
class Interrupted:
    exit_code: int
    printed: str
    """After the second epoch."""
    noted: str
    """The run that DVC had noted before: the interrupted training started from scratch, in a new run."""


@pytest.fixture(scope="module")
def interrupted(training, undisturbed) -> Interrupted:
    noted = training.record()["run_id"]
    process = training.start_from_scratch()
    wait_for_epoch(process, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
    rest, _ = process.communicate(timeout=60)
    return Interrupted(process.returncode, rest, noted)


def test_an_interrupted_training_marks_its_run_as_killed(training, interrupted):
    assert interrupted.exit_code != 0
    assert "stopped" in interrupted.printed
    # -2: dash, where it is the shell between, ends by the signal
    assert re.search(r"exited with (130|-2)\b", interrupted.printed)
    assert "Traceback" not in interrupted.printed
    assert training.newest_run()["status"] == "KILLED"


def test_an_interrupted_training_resumes_and_a_second_one_is_refused_meanwhile(training, interrupted, undisturbed):
    first = training.copy.start("dvc", "repro", f"train@{MODEL}")
    wait_for_line(first, f"{MODEL}: resuming after epoch ")
    os.killpg(first.pid, signal.SIGSTOP)  # or else it may be done before the second has started
    second = training.copy.run(sys.executable, "-m", "stages.train", MODEL)
    os.killpg(first.pid, signal.SIGCONT)
    rest, _ = first.communicate(timeout=300)
    assert second.returncode == 1
    assert f"{MODEL} is being trained by another process" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.returncode == 0, rest
    record = training.check(undisturbed, rest)
    [resumed_from] = record["resumed_from"]
    assert resumed_from >= 2
    assert record["run_id"] != interrupted.noted
