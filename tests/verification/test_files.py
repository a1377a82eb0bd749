"""Checks of files, folders and the table: a change of one byte is found, and nothing else fails."""

from pathlib import Path

import pytest
from made_results import METRICS, VALUES, made_params, make_results
from verified_repository import REPORT, edit, edit_json, flip_last_bit, keep_listing

from tiny_imagenet.common.files import md5
from tiny_imagenet.reporting.table import results_table
from tiny_imagenet.repository import dvc
from tiny_imagenet.verification.evidence import has_results, table_rows, written_rows


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("results/model_2/metrics.json", ("model_2", "files")),
        ("results/model_2/architecture.json", ("model_2", "files")),
        ("reports/results.csv", REPORT),
        ("data/overview/report.json", REPORT),
    ],
)
def test_a_changed_byte_of_an_output_is_found(repository, path, where):
    flip_last_bit(Path(path))
    failures = repository.failures()
    assert f"{path if where != REPORT else Path(path).parent} is " in failures[where]
    assert "`git checkout dvc.lock`, or `dvc repro`" in failures[where] or "dvc pull" in failures[where]


@pytest.mark.parametrize("folder", ["reports", "data/cache", "src/training"])
def test_the_first_file_that_differs_in_a_folder_is_named(repository, folder):
    keep_listing(folder)
    where = REPORT if folder == "reports" else ("model_1", "files")
    more, [path] = Path(folder) / "more.txt", [*Path(folder).iterdir()]
    remedy = {"src/training": f"`git checkout {more}`"}.get(folder, f"`rm {more}`")
    more.touch()
    assert f"{more} is d41d8cd9, missing in dvc.lock: {remedy}" in repository.failures()[where]
    more.unlink()
    was = md5(path)
    flip_last_bit(path)
    detail = repository.failures()[where]
    assert f"{path} is {md5(path)[:8]}, {was[:8]} in dvc.lock: " in detail
    assert (f"`git checkout {path}`" if folder == "src/training" else f"rm -f {path}") in detail


def test_bytecode_and_partial_files_are_ignored(repository):
    for folder in ("src/training/__pycache__", "data/cache"):
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "fit.cpython-311.pyc.partial").touch()
    (Path("src/training/__pycache__") / "fit.cpython-311.pyc").touch()
    assert repository.failures() == {}


def test_an_edited_metric_differs_from_mlflow_and_the_table(repository):
    edit("results/model_2/metrics.json", "0.3861", "0.9861")
    failures = repository.specific_failures()
    assert set(failures) == {("model_2", "files"), ("model_2", "final metrics"), ("model_2", "table")}
    assert "val_accuracy is 0.3861 in MLflow, 0.9861 in metrics.json (-0.6)" in failures["model_2", "final metrics"]
    assert "val_accuracy is 0.3861 in reports/results.csv, 0.9861 by the files" in failures["model_2", "table"]


@pytest.mark.parametrize(("old", "new"), [("0.3861", "0.3862"), ("0.3861", "0.38610000000000005"), ("425.8", "4e400")])
def test_a_changed_digit_of_the_table_is_named_with_its_column(repository, old, new):
    lines = Path("reports/results.csv").read_text().splitlines(keepends=True)
    assert lines[2].startswith("model_2")
    Path("reports/results.csv").write_text(lines[0] + lines[1] + lines[2].replace(f",{old},", f",{new},", 1))
    failures = repository.specific_failures()
    assert set(failures) == {("model_2", "table")}
    assert f" is {float(new)} in reports/results.csv, {old} by the files" in failures["model_2", "table"]
    assert "`dvc checkout reports results/model_2`" in failures["model_2", "table"]


def test_another_notation_of_the_same_number_is_accepted(repository):
    text = Path("reports/results.csv").read_text()
    Path("reports/results.csv").write_text(text.replace(",0.3861,", ",3.861e-1,"))
    assert repository.specific_failures() == {}


def test_duplicate_missing_and_unknown_rows_of_the_table_are_named(repository):
    header, first, second = Path("reports/results.csv").read_text().splitlines()
    Path("reports/results.csv").write_text("\n".join([header, first, first, second.replace("model_2", "model_9")]))
    failures = repository.specific_failures()
    assert "has 2 rows of model_1" in failures["model_1", "table"]
    assert "has 0 rows of model_2" in failures["model_2", "table"]
    assert "has a row of model_9" in failures["pipeline", "table"]
    assert len(failures) == 3


@pytest.mark.parametrize("name", ["model.keras", "history.csv", "run.json"])
def test_a_changed_byte_of_a_trained_file_is_found_despite_equal_size_and_time(repository, name):
    path = Path("models/model_2") / name
    was = md5(path)
    flip_last_bit(path)
    assert f"{path} is {md5(path)[:8]}, {was[:8]} in dvc.lock" in repository.specific_failures()["model_2", "files"]


def test_the_remedy_for_a_file_depends_on_dvcs_copy(repository):
    path = Path("models/model_2/model.keras")
    sound, wanted = path.read_bytes(), md5(path)

    def failure() -> str:
        return repository.specific_failures()["model_2", "files"]

    copy = dvc.cache_path(wanted).relative_to(Path.cwd())
    edit(str(path), "model_2", "model_3")
    assert f"`rm -f {path} {copy}`, then `dvc pull` or `dvc repro`" in failure()
    copy.parent.mkdir(parents=True)
    copy.write_bytes(path.read_bytes())  # as through a hard link
    assert f"`rm -f {path} {copy}`, then `dvc pull` or `dvc repro`" in failure()
    copy.write_bytes(sound)
    assert f"`rm -f {path}` and `dvc checkout {path}`" in failure()
    path.write_bytes(sound)
    Path("dvc.lock").write_text(Path("dvc.lock").read_text().replace(wanted, "f" * 32))
    assert "`git checkout dvc.lock`" in failure()


def test_a_missing_model_file_is_named(repository):
    Path("models/model_2/model.keras").unlink()
    assert set(repository.specific_failures()) == {("model_2", "files")}
    assert "models/model_2/model.keras is missing" in repository.specific_failures()["model_2", "files"]


@pytest.mark.parametrize(
    ("path", "subjects"),
    [
        ("models/model_2/run.json", {"files", "recipe", "commit", "run", "table"}),
        ("models/model_2/history.csv", {"files", "epochs"}),
        ("results/model_2/metrics.json", {"files", "final metrics", "table"}),
        ("results/model_2/architecture.json", {"files", "table"}),
    ],
)
@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe", b"epoch,loss\n1,x\n"])
def test_a_damaged_file_is_a_failed_check_with_its_path(repository, path, subjects, content):
    Path(path).write_bytes(content)
    failures = repository.specific_failures()
    assert set(failures) == {("model_2", subject) for subject in subjects}
    assert all(path in detail for detail in failures.values())


@pytest.mark.parametrize("path", ["models/model_2/run.json", "results/model_2/architecture.json"])
def test_a_file_that_lacks_keys_is_a_failed_check_with_its_path(repository, path):
    Path(path).write_text("{}")
    assert path in repository.specific_failures()["model_2", "table"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b'"', b"model\nmodel_2,1,2,3\n", b"a\0b"])
def test_a_damaged_table_is_a_failed_check_of_each_model(repository, content):
    Path("reports/results.csv").write_bytes(content)
    failures = repository.specific_failures()
    assert {("model_1", "table"), ("model_2", "table")} <= set(failures)
    assert all("reports/results.csv" in detail for detail in failures.values())


@pytest.mark.parametrize("key", ["git", "hashes", "dependencies", "params", "versions", "epoch_seconds"])
@pytest.mark.parametrize("value", [None, [1], {"a": {}}])
def test_a_record_with_wrong_types_is_a_failed_check(repository, key, value):
    edit_json("models/model_2/run.json", **{key: value})
    assert ("model_2", "files") in repository.specific_failures()


@pytest.mark.parametrize("model", ["nan", "inf", "null", "true"])
def test_a_row_survives_a_round_trip_even_if_names_look_like_numbers(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    params = made_params(active=[model, "model_1"], models=VALUES["models"] | {model: VALUES["models"]["model_2"]})
    run = {"run_id": "1" * 31 + "e", "device": "1e5", "weights": "007"}
    make_results(Path(), model, run=run | {"hashes": {"params": params.job(model).fingerprint}})
    frame = results_table(params).frame
    Path("reports").mkdir()
    frame.to_csv("reports/results.csv", index=False)
    (row,) = table_rows(model)
    assert {key: row[key] for key in run} == run
    assert row["val_accuracy"] == METRICS["val_accuracy"]
    assert (row["epochs"], row["parameters_paper"]) == (METRICS["epochs"], "")
    assert has_results(model)
    assert table_rows() == written_rows(frame)
