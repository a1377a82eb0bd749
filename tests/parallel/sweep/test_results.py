"""The results of a sweep: the best trial, the table, and the files."""

import json

import pandas as pd
import pytest
import yaml
from made_results import VALUES

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import Params, parse_params
from tiny_imagenet.parallel.sweep.plan import plan
from tiny_imagenet.parallel.sweep.results import (
    FAILED,
    STOPPED,
    Record,
    best_trial,
    read_record,
    table,
    write_record,
    write_results,
)


def params(metric: str = "holdout_accuracy") -> Params:
    sweep = {"model": "model_2", "epochs": 3, "metric": metric, "search": {"batch_size": {"grid": [8, 16, 32, 64]}}}
    return parse_params(json.loads(json.dumps(VALUES)) | {"sweeps": {"sizes": sweep}})


def epochs(*accuracies: float) -> list[dict[str, float]]:
    return [
        {"holdout_accuracy": accuracy, "holdout_loss": 1 - accuracy, "val_accuracy": accuracy / 2}
        for accuracy in accuracies
    ]


RECORDS = {
    1: Record(history=epochs(0.2, 0.5, 0.4), run_id="a"),
    2: Record(FAILED, epochs(0.9), "b", "the training has diverged"),
    3: Record(STOPPED, epochs(0.1), "c"),
    4: Record(history=epochs(0.3, 0.4, 0.5), run_id="d"),
}


@pytest.mark.parametrize("metric", ["holdout_accuracy", "holdout_loss"])
def test_the_best_epoch_of_a_trial_that_did_not_fail_decides_and_the_first_of_equals_wins(metric):
    sizes = plan(params(metric), "sizes")
    assert best_trial(sizes, RECORDS)[0].number == 1
    ordered = table(sizes, RECORDS)
    assert list(ordered["trial"]) == [1, 4, 3, 2]
    assert list(ordered["batch_size"]) == [8, 64, 32, 16]
    assert list(ordered["epochs"]) == [3, 3, 1, 1]
    assert list(ordered["best_epoch"].dropna()) == [2, 3, 1]
    assert list(ordered["val_accuracy"].dropna()) == [0.25, 0.25, 0.05]


def test_the_files_agree(tmp_path):
    sizes = plan(params(), "sizes")
    files = write_results(tmp_path, sizes, RECORDS)
    assert all(path.is_file() for path in files)
    written = pd.read_csv(tmp_path / "results.csv")
    assert list(written["status"]) == ["finished", "finished", STOPPED, FAILED]
    text = (tmp_path / "best.yaml").read_text()
    assert "# trial 1 of the sweep sizes: holdout_accuracy 0.5000" in text
    assert yaml.safe_load(text) == {"sizes": sizes.trials[0].block}


def test_a_record_survives_a_round_trip(tmp_path):
    assert read_record(tmp_path) is None
    for record in RECORDS.values():
        write_record(tmp_path, record, {"batch_size": 8})
        assert read_record(tmp_path) == record
    (tmp_path / "trial.json").write_text('{"status": "fin')
    with pytest.raises(UserError, match=r"remove .*: the trial runs again"):
        read_record(tmp_path)


def test_if_every_trial_failed_there_is_no_best_one():
    with pytest.raises(UserError, match="no trial of the sweep sizes has finished an epoch"):
        best_trial(plan(params(), "sizes"), {2: RECORDS[2]})


def test_null_and_parts_are_written_as_yaml_would_read_them():
    sweep = {"model": "model_2", "epochs": 3, "search": {"augmentation": {"grid": [{"shift": 0.1}, None]}}}
    given = parse_params(json.loads(json.dumps(VALUES)) | {"sweeps": {"parts": sweep}})
    shown = table(plan(given, "parts"), {number: RECORDS[number] for number in (1, 2)})
    assert [json.loads(value) for value in shown["augmentation"]] == [{"shift": 0.1}, None]
