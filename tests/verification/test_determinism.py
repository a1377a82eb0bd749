"""The check that a seed gives the same bits twice, its record, and the report on it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_results import RUN as MADE_RUN
from made_results import VALUES
from standin import STANDINS, packed_digits

from tiny_imagenet.cli import app
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import fingerprint
from tiny_imagenet.config.params import Params, load_params, parse_params
from tiny_imagenet.reporting import table
from tiny_imagenet.repository.records import RunRecord
from tiny_imagenet.verification import determinism

ROOT = Path(__file__).parents[2]
OUTCOME = {"same": True, "epochs": 2, "batches": 8, "device": "CPU, 2 cores"}


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Params:
    """Work in a repository with packed digits and a small model 2."""
    packed = packed_digits()
    cache = tmp_path / "data" / "cache"
    cache.mkdir(parents=True)
    for split in ("train", "val"):
        np.save(cache / f"{split}_images.npy", getattr(packed, split).images)
        np.save(cache / f"{split}_labels.npy", getattr(packed, split).labels)
        np.save(cache / f"{split}_ranks.npy", np.arange(len(getattr(packed, split))))
    packed.classes.to_csv(cache / "classes.csv", index=False)
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["models"]["model_2"]["build"] = STANDINS["model_2"]["build"]
    values["models"]["model_2"]["optimizer"]["ema_momentum"] = 0.9
    del values["models"]["model_2"]["reduce_learning_rate"]
    values["models"]["model_2"]["learning_rate_schedule"] = {"decay": "cosine", "warmup_epochs": 4}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    return load_params()


@pytest.fixture
def verify(monkeypatch, capsys):
    """Run `tiny-imagenet verify --determinism` and return its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tiny-imagenet", "verify", "--determinism", *arguments])
        with pytest.raises(SystemExit) as caught:
            app.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return run


@pytest.mark.e2e
def test_two_fresh_processes_give_the_same_bits_and_the_outcome_is_recorded(repository, verify):
    code, output, _ = verify("model_2", "--batches", "3")
    assert code == 0, output
    assert "model_2: the same bits twice" in output
    kept = json.loads(Path("docs/results/determinism.json").read_text())["model_2"]
    assert kept["same"]
    assert kept["weights"][0] == kept["weights"][1] != kept["history"][0]
    assert (kept["epochs"], kept["batches"]) == (2, 3)
    assert kept["params"] == repository.job("model_2").fingerprint
    assert kept["versions"]["tensorflow"]


def test_a_difference_is_printed_recorded_and_exits_with_1(repository, verify, monkeypatch):
    hashes = iter("ab")
    monkeypatch.setattr(
        determinism, "_in_fresh_process", lambda *_: {"weights": next(hashes), "history": "c", "device": "some GPU"}
    )
    code, output, errors = verify("model_2")
    assert code == 1
    assert "weights: a and b: NOT the same" in output
    assert "history: c and c: the same" in output
    assert "differ on some GPU" in errors
    assert not json.loads(Path("docs/results/determinism.json").read_text())["model_2"]["same"]


def test_without_data_the_error_names_the_stage_to_run(repository, verify, tmp_path):
    (tmp_path / "data" / "cache" / "classes.csv").unlink()
    code, _, errors = verify("model_2")
    assert code == 1
    assert "dvc repro cache" in errors


def test_an_unknown_model_is_refused_with_a_similar_name(repository, verify):
    code, _, errors = verify("model_22")
    assert code == 1
    assert "did you mean 'model_2'" in errors


@pytest.mark.e2e
def test_a_failed_training_is_an_error(repository, tmp_path):
    np.save(tmp_path / "data" / "cache" / "train_labels.npy", np.zeros(3, np.int32))
    with pytest.raises(UserError, match="training 1 of 2 failed with exit code 1"):
        determinism.verify("model_2", repository)


def test_the_record_has_the_latest_outcome_of_each_model(tmp_path):
    for model in ("model_2", "model_1", "model_2"):
        determinism.record(model, {"same": model == "model_1"}, tmp_path / "a" / "determinism.json")
    kept = json.loads((tmp_path / "a" / "determinism.json").read_text())
    assert kept == {"model_1": {"same": True}, "model_2": {"same": False}}


# --- in the report ---

RUN = MADE_RUN | {"dependencies": {"src/a.py": "1"}, "versions": {"keras": "3"}}
RUNS = {"model_1": RunRecord.model_validate(RUN)}


def shown(tmp_path: Path, now: Params, **outcome: object) -> dict[str, str]:
    recorded = OUTCOME | {"dependencies": fingerprint(RUN["dependencies"]), "versions": RUN["versions"]} | outcome
    determinism.record("model_1", recorded, tmp_path / "determinism.json")
    return table.determinism(now, RUNS, tmp_path / "determinism.json")


def test_the_report_shows_the_outcome_for_the_run_that_it_has(tmp_path):
    params = parse_params(VALUES)
    own = {"params": params.job("model_1").fingerprint}
    assert shown(tmp_path, params, **own) == {"model_1": "yes, 2 epochs of 8 batches on CPU, 2 cores"}
    assert shown(tmp_path, params, **own, same=False)["model_1"].startswith("NO, ")
    assert shown(tmp_path, parse_params(VALUES | {"seed": 77}), **own) == {}
    assert shown(tmp_path, params, **own, dependencies="of other code") == {}
    assert shown(tmp_path, params, **own, versions={"keras": "4"}) == {}
    assert table.determinism(params, RUNS, tmp_path / "missing.json") == {}
    (tmp_path / "determinism.json").write_text('{"model_1": {"same": true}}')  # as written by another version
    assert table.determinism(params, RUNS, tmp_path / "determinism.json") == {}


def test_a_damaged_record_is_refused(tmp_path):
    (tmp_path / "determinism.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        determinism.record("model_1", OUTCOME, tmp_path / "determinism.json")
