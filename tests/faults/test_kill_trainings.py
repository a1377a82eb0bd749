"""SIGKILL at random moments of real trainings, stand-ins of all five: the next `dvc repro` ends with the same bits."""

import os
import random
import signal
import time

import pytest
from repository_copy import Copy, copy_of_repository, tiny
from standin import STANDINS
from stopped import Training, wait_for_epoch

from tiny_imagenet.repository.dvc import remove_broken_lock

EPOCHS = 25
KILLS_PER_MODEL = 5
pytestmark = pytest.mark.faults


def small_models(params: dict) -> None:
    tiny(params)
    params["profiles"]["demo"]["training"] |= {"epochs": EPOCHS, "augmentation": "modern"}
    for model, changes in STANDINS.items():
        for key in ("build", "batches_per_epoch", "early_stopping", "reduce_learning_rate"):
            if key in changes:
                params["models"][model][key] = changes[key]
        if "early_stopping" in changes:
            params["models"][model]["early_stopping"] = changes["early_stopping"] | {"patience": EPOCHS // 2}
    params["models"]["model_1"]["optimizer"] = {
        "name": "sgd",
        "learning_rate": 0.01,
        "momentum": 0.9,
        "ema_momentum": 0.9,
    }


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Copy:
    copy = copy_of_repository(tmp_path_factory.mktemp("killed") / "repository")
    copy.edit(small_models)
    copy.commit()
    return copy


@pytest.mark.parametrize("model", STANDINS)
def test_a_training_killed_at_any_moment_resumes_to_the_same_bits(copy, model):
    training = Training(copy, model, EPOCHS)
    training.run()
    expected = training.outputs()
    start = time.monotonic()
    process = training.start_from_scratch()
    wait_for_epoch(process, 1)
    first = time.monotonic() - start
    process.communicate()
    whole = time.monotonic() - start
    assert training.outputs() == expected

    moments = random.Random(model)  # noqa: S311 - repeatable, not secret
    killed, resumed = 0, 0
    while killed < KILLS_PER_MODEL:
        process = training.start_from_scratch()
        for _ in range(2):  # and the one that goes on may be killed as well
            time.sleep(moments.uniform(0.8 * first, whole))  # before that, all are alike: a process that starts
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                killed += 1
            process.communicate()
            remove_broken_lock(copy.root)  # as `make repro` does first: DVC itself writes dvc.lock in place
            process = copy.start("dvc", "repro", f"train@{model}")
        process.communicate()
        remove_broken_lock(copy.root)
        resumed += len(training.resume(expected)["resumed_from"])
    assert resumed >= 2
