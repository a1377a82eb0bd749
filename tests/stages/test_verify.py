"""`tiny-imagenet verify` over a real pipeline: each change is found, and the suggested commands undo it."""

import os
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from finished_pipeline import MODELS, copy_of_pipeline
from repository_copy import Copy

from tiny_imagenet.config.params import load_params
from tiny_imagenet.models import saved_model
from tiny_imagenet.repository.records import RunRecord
from tiny_imagenet.tracking import store
from tiny_imagenet.tracking.results import find_run
from tiny_imagenet.verification import checks as verification

MODEL = "model_2"
RUN, KERAS, HISTORY = (Path("models") / MODEL / name for name in ("run.json", "model.keras", "history.csv"))
METRICS, TABLE = Path("results") / MODEL / "metrics.json", Path("reports/results.csv")
CODE, DATA = Path("src/tiny_imagenet/training/train.py"), Path("data/cache/val_labels.npy")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Copy:
    """Return a repository after `dvc repro`."""
    return copy_of_pipeline(tmp_path_factory.mktemp("verify") / "repository", tmp_path_factory)[0]


@pytest.fixture
def copy(made: Copy, monkeypatch) -> Iterator[Copy]:
    """Work in it, and restore MLflow's store afterwards."""
    monkeypatch.chdir(made.root)
    for name in set(os.environ) - set(made.environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", made.environment()["PATH"])
    with closing(sqlite3.connect("mlflow.db")) as store, closing(sqlite3.connect(":memory:")) as before:
        store.backup(before)
        yield made
        before.backup(store)


def failures(*, evaluate: bool = False) -> dict[str, str]:
    """Return the failed checks of the model and of the pipeline."""
    walked = verification.walk(load_params(), [MODEL], evaluate=evaluate)
    return {check.subject: check.detail for _, checks in walked for check in checks if check.holds is False}


def rewrite(path: Path, content: bytes) -> None:
    """Overwrite a file in place, and so DVC's copy if it is a hard link. Keep time and mode."""
    before = path.stat()
    path.chmod(0o600)
    with path.open("rb+") as stream:
        stream.write(content)
        stream.truncate()
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextmanager
def kept(path: Path) -> Iterator[None]:
    content = path.read_bytes()
    try:
        yield
    finally:
        rewrite(path, content)


def last_digit(pattern: str) -> Callable[[bytes], bytes]:
    """Return a function that changes the last digit of the first match."""

    def change(content: bytes) -> bytes:
        index = re.search(pattern.encode(), content).end() - 1
        return content[:index] + b"%d" % ((int(content[index : index + 1]) + 1) % 10) + content[index + 1 :]

    return change


def a_bit(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


def test_without_changes_all_checks_of_a_real_pipeline_pass(made):
    printed = made.succeed("tiny-imagenet", "verify")
    lines = printed.splitlines()
    assert [line for line in lines if line in MODELS] == MODELS
    same = "evaluation     27 metrics measured again, the same to the last digit; 7 files, to the last byte"
    assert printed.count(same) == len(MODELS)
    assert lines[-1] == "23 checks passed"


@pytest.mark.parametrize(
    ("path", "tamper", "subjects", "said"),
    [
        (METRICS, last_digit(r'"val_top5_accuracy": [.\d]+'), {"files", "final metrics", "run's files", "table"},
         "val_top5_accuracy is"),
        (TABLE, last_digit(r"\nmodel_2,three_conv,\d+"), {"table", "files"}, "parameters is"),
        (Path("reports/summary.txt"), last_digit(r"\n model_2 .*?\d\.\d"), {"files"}, "reports/summary.txt is "),
        (KERAS, a_bit, {"files"}, f"{KERAS} is "),
        (HISTORY, last_digit(r"\n2,0\.\d\d"), {"files", "epochs", "run's files"}, "accuracy of epoch 2 is"),
        (RUN, last_digit(r'"run_id": "[^"]*\d'), {"files", "run", "table"}, "MLflow does not have the run"),
        (RUN, last_digit(r'"commit": "[^"]*\d'), {"files", "commit", "run"}, "git does not have"),
        (Path("dvc.lock"), last_digit(r"(?s)train@model_2:.*?data/cache\s+hash: md5\s+md5: \w*\d"),
         {"stages", "files"}, "data/cache is "),
        (CODE, a_bit, {"files"}, f"{CODE.parent} is "),
        (DATA, a_bit, {"files"}, f"{DATA} is "),
    ],
    ids=["metric", "table", "summary", "model", "epoch", "run_id", "commit", "dvc.lock", "code", "data"],
)  # fmt: skip
def test_a_changed_byte_of_a_file_is_found_despite_equal_size_and_time(copy, path, tamper, subjects, said):
    with kept(path):
        rewrite(path, tamper(path.read_bytes()))
        found = failures()
    assert set(found) == subjects
    assert any(said in detail for detail in found.values())


@pytest.mark.parametrize(
    ("tamper", "subject", "said"),
    [
        (
            lambda client, run: client.log_metric(run, "final_val_accuracy", 0.99),
            "final metrics",
            "val_accuracy is 0.99",
        ),
        (lambda client, run: client.log_metric(run, "loss", 0.1, step=3), "epochs", "loss of epoch 3 is 0.1 in MLflow"),
        (lambda client, run: client.log_param(run, "more", 1), "run", "param more is 1 in MLflow"),
        (lambda client, run: client.set_tag(run, "git.commit", "0" * 40), "run", f"tag git.commit is {'0' * 40}"),
    ],
    ids=["final metric", "epoch", "param", "tag"],
)
def test_a_change_in_the_run_is_found(copy, tamper, subject, said):
    tamper(*client_and_run())
    found = failures()
    assert set(found) == {subject}
    assert said in found[subject]


def test_a_changed_model_in_mlflow_is_found_until_it_is_restored(copy):
    model = RunRecord.read(RUN).model_uri.rpartition("/")[2]
    [path] = Path("mlruns").rglob(f"{model}/artifacts/data/model.keras")
    content = path.read_bytes()
    path.write_bytes(a_bit(content))
    found = failures()
    assert set(found) == {"run"}
    assert "the run's model is " in found["run"]
    path.write_bytes(content)
    assert failures() == {}


def client_and_run() -> tuple[Any, str]:
    import mlflow

    store.connect(Path.cwd())
    return mlflow.MlflowClient(), RunRecord.read(RUN).run_id


def test_the_suggested_commands_restore_a_changed_run(copy):
    client, run_id = client_and_run()
    client.log_metric(run_id, "loss", 0.1, step=3)
    delete = re.search(r"`(mlflow runs delete [^`]+)`", failures()["epochs"])[1]
    copy.succeed(*delete.split())
    assert f"does not have the run {run_id}: `tiny-imagenet sync`" in failures()["run"]
    copy.succeed("tiny-imagenet", "sync")
    assert failures() == {}


@pytest.mark.parametrize("name", ["results/per_class.csv", "history.csv"])
def test_a_changed_file_of_the_run_is_found(copy, name):
    run_id = find_run(Path.cwd(), client_and_run()[1]).run_id  # or the one that was restored from it
    [path] = Path("mlruns").rglob(f"{run_id}/artifacts/{name}")
    content = path.read_bytes()
    path.write_bytes(a_bit(content))
    found = failures()
    assert set(found) == {"run's files"}
    assert f"{name} is " in found["run's files"]
    path.write_bytes(content)
    assert failures() == {}


def test_the_suggested_commands_restore_a_replaced_model_file(copy):
    content = a_bit(KERAS.read_bytes())
    KERAS.unlink()
    KERAS.write_bytes(content)
    found = failures()
    assert set(found) >= {"files", "stages"}
    remove, checkout = re.findall(r"`([^`]+)`", found["files"])
    copy.succeed(*remove.split())
    copy.succeed(*checkout.split())
    assert failures() == {}


def test_the_remedy_for_a_model_file_and_dvcs_copy_names_the_copy(copy):
    with kept(KERAS):
        rewrite(KERAS, a_bit(KERAS.read_bytes()))
        remove = re.search(r"`rm -f (\S+) (\S+)`", failures()["files"])
        assert Path(remove[1]) == KERAS
        assert Path(remove[2]).samefile(KERAS)


def test_a_model_with_other_weights_has_other_metrics_and_a_damaged_one_is_named(copy, keras):
    names = saved_model.read_metadata(KERAS)
    with kept(KERAS):
        model = saved_model.load_model(KERAS)
        model.layers[-1].set_weights([-weights for weights in model.layers[-1].get_weights()])
        saved_model.save_model(model, KERAS, wnids=names["wnids"], class_names=names["class_names"])
        found = failures(evaluate=True)["evaluation"]
        assert re.search(r"val_accuracy is [.\d]+ measured again, [.\d]+ written", found)
        assert "here, the last digits may differ" not in found
        with kept(RUN):
            rewrite(RUN, RUN.read_bytes().replace(b'"device": "', b'"device": "another '))
            found = failures(evaluate=True)["evaluation"]
        assert re.search(r"here, the last digits may differ \(device .*, not another ", found)
        rewrite(KERAS, KERAS.read_bytes()[:-1000])
        assert str(KERAS) in failures(evaluate=True)["evaluation"]
