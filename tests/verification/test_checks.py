"""Checks of git, DVC, data, code and params, which trainings are checked, and the command.

The files and the store are made up; tests/stages/test_verify.py has a real pipeline.
"""

import copy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from made_results import METRICS, RUN, VALUES, made_params, make_results
from verified_repository import (
    CODE,
    COMMIT,
    DATA,
    DEPENDENCIES,
    MODELS,
    PARAMS,
    REPORT,
    RUN_IDS,
    edit,
    edit_json,
    flip_last_bit,
    keep_listing,
)

from tiny_imagenet.cli import app
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import md5
from tiny_imagenet.repository import dvc
from tiny_imagenet.repository.records import Metrics
from tiny_imagenet.verification import checks as verification
from tiny_imagenet.verification.evidence import Evidence

SUBJECTS = ["files", "stages", "recipe", "commit", "run", "final metrics", "epochs", "run's files", "table"]


def test_without_changes_all_checks_pass(repository):
    checks = repository.checks()
    assert list(checks) == [
        *((model, subject) for model in MODELS for subject in [*SUBJECTS, "evaluation"]),
        ("pipeline", "stages"),
        ("pipeline", "files"),
        ("pipeline", "table"),
    ]
    assert repository.failures() == {}
    assert set(repository.skipped()) == {(model, "evaluation") for model in MODELS}


def test_a_replicate_is_checked_like_a_model(repository):
    params = made_params(active=list(MODELS), replicates={"models": ["model_2"], "seeds": [7]})
    RUN_IDS["model_2-7"] = "7" * 32
    try:
        repository.add_replicate("model_2-7", params)
        assert [check.detail for check in repository.checks_of(params, "model_2-7") if check.holds is False] == []
        edit("results/model_2-7/metrics.json", "0.3861", "0.9861")
        flip_last_bit(Path("models/model_2-7/model.keras"))
        repository.changed = ["replicate@model_2-7: changed outs: models/model_2-7/model.keras (modified)"]
        failed = {check.subject: check.detail for check in repository.checks_of(params, "model_2-7") if not check.holds}
        assert set(failed) == {"files", "stages", "final metrics", "run's files", "evaluation"}
        assert "models/model_2-7/model.keras is " in failed["files"]
        assert "results/model_2-7/metrics.json is " in failed["files"]
        assert "model_2-7" in dict(verification.walk(params, evaluate=False))
    finally:
        del RUN_IDS["model_2-7"]


def test_pretrained_weights_that_were_replaced_are_named(repository, tmp_path):
    weights = tmp_path / "weights.h5"
    weights.write_bytes(b"original")
    hashes = {"params": PARAMS.job("model_2").fingerprint, "data": "d" * 16, "weights": md5(weights)}
    edit_json("models/model_2/run.json", weights=str(weights), hashes=hashes)
    assert ("model_2", "recipe") not in repository.failures("model_2")
    weights.write_bytes(b"other weights")
    assert "the pretrained weights" in repository.failures("model_2")["model_2", "recipe"]


# --- git, DVC, data, code, params ---


def test_a_commit_that_git_does_not_have_is_named(repository):
    repository.commits.clear()
    failures = repository.specific_failures("model_1")
    assert set(failures) == {("model_1", "commit")}
    assert f"git does not have {COMMIT}" in failures["model_1", "commit"]


@pytest.mark.parametrize(
    ("git", "tags", "remark"),
    [
        ({"commit": COMMIT, "dirty": True}, {"git.dirty": "true"}, "later changes are in run.json"),
        ({"commit": None, "dirty": None}, {"git.commit": "none", "git.dirty": "unknown"}, "without git"),
    ],
)
def test_a_dirty_tree_or_no_repository_is_a_remark(repository, git, tags, remark):
    edit_json("models/model_2/run.json", git=git)
    repository.write_lock()
    repository.change_run(tags=tags)
    assert repository.specific_failures() == {}
    assert remark in repository.checks()["model_2", "commit"].detail


def test_a_commit_that_git_refused_to_tell_is_a_failure(repository):
    refused = {"commit": None, "dirty": None, "problem": "fatal: detected dubious ownership in repository"}
    edit_json("models/model_2/run.json", git=refused)
    repository.write_lock()
    repository.change_run(tags={"git.commit": "refused", "git.dirty": "unknown"})
    failures = repository.specific_failures()
    assert set(failures) == {("model_2", "commit")}
    assert "git did not answer (fatal: detected dubious ownership" in failures["model_2", "commit"]


@pytest.mark.parametrize(
    ("path", "remedy"),
    [
        (CODE, "`git checkout src/training`, or `dvc repro`"),
        ("stages/train.py", "`git checkout stages/train.py`, or `dvc repro`"),
        (DATA, "DVC has no intact copy: `rm -rf data/cache .dvc/cache/files/md5/"),
    ],
)
def test_a_changed_byte_of_data_or_code_is_found_for_each_model_that_depends_on_it(repository, path, remedy):
    dependency = Path(path if path in DEPENDENCIES else Path(path).parent)
    was = dvc.path_md5(dependency)
    flip_last_bit(Path(path))
    failures = repository.specific_failures()
    assert set(failures) == {(model, "files") for model in MODELS}
    now = dvc.path_md5(dependency)
    assert f"{dependency} is {now[:8]}, {was[:8]} in dvc.lock: {remedy}" in failures["model_1", "files"]


@pytest.mark.parametrize("path", ["stages/train.py", DATA])
def test_a_missing_dependency_is_named(repository, path):
    if path == DATA:
        keep_listing("data/cache")
    Path(path).unlink()
    assert f"{path} is missing" in repository.specific_failures()["model_2", "files"]


def test_a_changed_hash_in_dvc_lock_is_named(repository):
    was = dvc.path_md5(Path("data/cache"))
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["train@model_1"]["deps"][1]["md5"] = "f" * 32
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    failures = repository.specific_failures()
    assert set(failures) == {("model_1", "files")}
    assert f"data/cache is {was[:8]}, {was[:8]} in run.json, ffffffff in dvc.lock" in failures["model_1", "files"]
    assert "`git checkout dvc.lock`" in failures["model_1", "files"]


def test_dependencies_that_differ_between_dvc_lock_and_run_json_are_named(repository):
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    lock["stages"]["train@model_2"]["deps"][2]["path"] = "src/other.py"
    Path("dvc.lock").write_text(yaml.safe_dump(lock))
    detail = repository.specific_failures()["model_2", "files"]
    assert "src/other.py is missing, missing in run.json" in detail
    digest = md5(Path("stages/train.py"))[:8]
    assert f"stages/train.py is {digest}, {digest} in run.json, missing in dvc.lock" in detail


def test_each_large_file_is_read_once(repository, monkeypatch):
    hashed, path_md5 = [], dvc.path_md5
    monkeypatch.setattr(dvc, "path_md5", lambda path: hashed.append(path) or path_md5(path))
    repository.checks()
    assert hashed.count(Path("models/model_1/model.keras")) == hashed.count(Path("data/cache")) == 1


@pytest.mark.parametrize("content", ["", "{", "stages: {}", "stages: []", "stages: {train@model_2: {deps: 3}}", "\x00"])
def test_a_damaged_dvc_lock_is_a_failed_check(repository, content):
    Path("dvc.lock").write_text(content)
    assert {("model_1", "files"), ("model_2", "files")} <= set(repository.specific_failures())


def test_a_changed_recipe_is_named(repository):
    changed = VALUES["models"]["model_2"] | {"optimizer": {"name": "adam", "learning_rate": 0.002}}
    params = made_params(active=list(MODELS), models=VALUES["models"] | {"model_2": changed})
    checks_by_subject = {
        check.subject: check
        for name, checks in verification.walk(params, ["model_2"], evaluate=False)
        for check in checks
    }
    assert not checks_by_subject["recipe"].holds
    assert params.job("model_2").fingerprint in checks_by_subject["recipe"].detail
    assert PARAMS.job("model_2").fingerprint in checks_by_subject["recipe"].detail


def test_stale_stages_are_failures_of_their_model_or_of_the_pipeline(repository):
    repository.changed += [
        "train@model_2: changed deps: stages/train.py: modified",
        "evaluate@model_1: changed outs: results/model_1: modified",
        "cache: changed deps: src/x.py: modified",
        "compare: changed command",
    ]
    failures = repository.specific_failures()
    assert set(failures) == {("model_2", "stages"), ("model_1", "stages"), ("pipeline", "stages")}
    assert failures["pipeline", "stages"].count("; ") == 1
    assert "train@model_2: changed deps: stages/train.py: modified" in failures["model_2", "stages"]
    assert set(repository.specific_failures("model_2")) == {("model_2", "stages"), ("pipeline", "stages")}


def test_an_error_of_dvc_is_one_failure(repository, monkeypatch):
    def fail(root: Path) -> list[str]:
        raise FileNotFoundError(2, "No such file or directory", "dvc")

    monkeypatch.setattr(dvc, "changed_since_lock", fail)
    assert set(repository.specific_failures()) == {("pipeline", "stages")}
    assert ("model_1", "stages") in repository.skipped()


# --- which models, and the command ---


def test_a_model_without_results_fails_only_if_it_is_named(repository):
    for path in ("models/model_2/run.json", "results/model_2/metrics.json"):
        Path(path).unlink()
    repository.write_table()
    assert repository.specific_failures() == {}
    assert "`dvc repro`" in repository.skipped()["model_2", "results"]
    assert set(repository.failures("model_2")) == {("model_2", "results"), REPORT}


def test_a_model_in_the_table_without_files_fails(repository):
    Path("results/model_2/metrics.json").unlink()
    failures = repository.specific_failures()
    assert set(failures) == {("model_2", "files"), ("model_2", "final metrics"), ("model_2", "table")}
    assert "results/model_2/metrics.json" in failures["model_2", "table"]


@pytest.fixture
def verify(repository, monkeypatch, capsys):
    """Run `tiny-imagenet verify --no-evaluation` and return its exit code, output and errors."""
    values = VALUES | {"active": list(MODELS)}
    Path("params.yaml").write_text(yaml.safe_dump(values))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tiny-imagenet", "verify", "--no-evaluation", *arguments])
        with pytest.raises(SystemExit) as caught:
            app.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return run


def test_the_command_prints_a_heading_for_each_model_and_a_line_for_each_check(verify):
    code, output, errors = verify()
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert [line for line in lines[:-1] if not line.startswith("  ")] == ["model_1", "model_2", "pipeline"]
    assert lines[1] == "  ok         files          data, code, model and results are as in dvc.lock"
    assert lines[10] == "  skipped    evaluation     the model was not evaluated again"
    assert lines[-1] == "21 checks passed; skipped: 2"


def test_the_command_exits_with_1_and_counts_failed_checks(verify):
    edit("results/model_2/metrics.json", "0.3861", "0.9861")
    code, output, errors = verify("model_2")
    assert code == 1
    assert "  FAILS      final metrics  val_accuracy is 0.3861 in MLflow" in output
    assert errors == "error: 4 of 12 checks failed, see above\n"
    assert verify("model_1")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model_22"], "did you mean 'model_2'"),
        (["model_3"], "`active` does not name it"),
        (["model_1", "--determinism", "model_2"], "not both"),
    ],
)
def test_invalid_arguments_are_refused_with_one_message(verify, arguments, message):
    code, output, errors = verify(*arguments)
    assert (code, output) == (1, "")
    assert message in errors
    assert "Traceback" not in errors


def test_a_missing_table_is_one_message(verify):
    Path("reports/results.csv").unlink()
    code, output, errors = verify()
    assert (code, output) == (1, "")
    assert errors == "error: there is no reports/results.csv: run `dvc repro`\n"


@pytest.mark.parametrize("flip", [False, True])
def test_a_model_is_evaluated_again_with_the_overrides_of_its_profile(flip, monkeypatch, tmp_path, keras):
    """The profile decides whether `evaluate` uses mirror images."""
    from tiny_imagenet.evaluation import evaluate
    from tiny_imagenet.input_pipeline import packed
    from tiny_imagenet.models import saved_model

    measured = []

    def measure(model, packed, history, recipe, *, best_epoch):
        measured.append((recipe.flip_at_test, best_epoch))
        architecture = {"parameters": 1, "parameters_200_classes": 2}
        return SimpleNamespace(metrics=Metrics.model_validate(METRICS), architecture=architecture)

    def write(_, folder, *, model_md5):
        (folder / "per_class.csv").write_text("recall\n0.5\n")

    profiles = copy.deepcopy(VALUES["profiles"])
    profiles["demo"]["training"]["flip_at_test"] = flip
    monkeypatch.chdir(tmp_path)
    make_results(Path(), "resnet18")
    edit_json("results/resnet18/architecture.json", parameters=1, parameters_200_classes=2)
    monkeypatch.setattr(saved_model, "load_model", lambda _: None)
    monkeypatch.setattr(packed, "open_packed", lambda _: None)
    monkeypatch.setattr(evaluate, "evaluate", measure)
    monkeypatch.setattr(evaluate, "write_evaluation", write)
    Path("results/resnet18/per_class.csv").write_text("recall\n0.5\n")
    evidence = Evidence(made_params(profiles=profiles).job("resnet18"), None)
    detail = verification._evaluation(evidence, evaluate=True)
    assert f"{len(METRICS) + 2} metrics measured again, the same to the last digit; 1 files" in detail
    assert measured == [(flip, RUN["best_epoch"])]
    Path("results/resnet18/per_class.csv").write_text("recall\n0.9\n")
    with pytest.raises(UserError, match=r"per_class.csv differs from what the model gives"):
        verification._evaluation(evidence, evaluate=True)
