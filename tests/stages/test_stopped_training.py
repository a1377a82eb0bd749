"""A real `dvc repro` of a training, killed or interrupted: the next one goes on, in the same run, to the same bits."""

import os
import re
import signal
import sys

import pytest
from repository_copy import copy_of_repository, tiny
from stopped import Training, wait_for_epoch

MODEL = "model_2"
EPOCHS = 5
pytestmark = pytest.mark.slow


def small_model_2(params: dict) -> None:
    tiny(params)
    params["profiles"]["demo"]["training"]["epochs"] = EPOCHS
    params["models"][MODEL]["build"] |= {"filters": [4, 4, 4], "dense_units": 16}


@pytest.fixture(scope="module")
def training(tmp_path_factory) -> Training:
    copy = copy_of_repository(tmp_path_factory.mktemp("stopped") / "repository")
    copy.edit(small_model_2)
    copy.commit()
    return Training(copy, MODEL, EPOCHS)


@pytest.fixture(scope="module")
def undisturbed(training) -> dict[str, str]:
    """What a training that nobody stops gives."""
    training.run()
    return training.outputs()


def test_a_killed_training_resumes_in_the_same_run_to_the_same_bits(training, undisturbed):
    runs, lock = len(training.copy.runs()), training.copy.root / "dvc.lock"
    before = lock.read_bytes()
    process = training.start_from_scratch()
    wait_for_epoch(process, 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    record = training.resume(undisturbed)
    assert record["resumed_from"][0] >= 4
    assert len(training.copy.runs()) == runs + 1

    lock.write_bytes(before)  # as DVC would leave it, killed before it has noted the whole training
    training.forget()
    again = training.resume(undisturbed)
    assert again["run_id"] == record["run_id"]
    assert again["resumed_from"] == [*record["resumed_from"], EPOCHS]
    assert len(training.copy.runs()) == runs + 1


def test_an_interrupted_training_marks_its_run_as_killed_and_resumes(training, undisturbed):
    noted = training.record()["run_id"]  # by DVC: the next one starts from scratch, in a new run
    process = training.start_from_scratch()
    wait_for_epoch(process, 2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
    rest, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "stopped" in rest
    assert re.search(r"exited with (130|-2)\b", rest)  # -2: dash, where it is the shell between, ends by the signal
    assert "Traceback" not in rest
    assert training.newest_run()["status"] == "KILLED"
    record = training.resume(undisturbed)
    [resumed_from] = record["resumed_from"]
    assert resumed_from >= 2
    assert record["run_id"] != noted


def test_after_an_edit_the_old_checkpoint_is_not_used_and_its_run_is_marked(training, undisturbed):
    process = training.start_from_scratch()
    wait_for_epoch(process, 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    killed = training.newest_run()
    assert killed["status"] == "RUNNING"  # nobody could tell MLflow
    with training.copy.edited(lambda params: params["models"][MODEL]["optimizer"].update(learning_rate=0.002)):
        training.run()
    record = training.record()
    runs = training.copy.runs().set_index("run_id")
    assert record["run_id"] != killed["run_id"]
    assert record["resumed_from"] == []
    assert runs.loc[killed["run_id"], "status"] == "KILLED"
    assert runs.loc[record["run_id"], "status"] == "FINISHED"


def test_a_second_training_of_the_same_model_is_refused_and_the_first_continues(training, undisturbed):
    first = training.copy.start(sys.executable, "-m", "stages.train", MODEL)
    wait_for_epoch(first, 1)
    os.killpg(first.pid, signal.SIGSTOP)  # or else it may be done before the second has started
    second = training.copy.run(sys.executable, "-m", "stages.train", MODEL)
    os.killpg(first.pid, signal.SIGCONT)
    rest, _ = first.communicate(timeout=120)
    assert second.returncode == 1
    assert f"{MODEL} is being trained by another process" in second.stderr
    assert "Traceback" not in second.stderr
    assert first.returncode == 0, rest
    assert training.outputs() == undisturbed
