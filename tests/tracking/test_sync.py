"""After `sync`, MLflow has one complete, current run for each row of the table."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from made_results import made_params, make_results

from tiny_imagenet.common import files
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.repository import workspace
from tiny_imagenet.tracking import store, sync
from tiny_imagenet.tracking.results import champion_file, find_run, metric_history, model_md5
from tiny_imagenet.tracking.run import start_run

ACTIVE = ["model_1", "model_2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory, keras):
    """Return a repository with the results of two models, and an empty store."""
    from tiny_imagenet.models import saved_model
    from tiny_imagenet.models.registry import build_classifier

    root = tmp_path_factory.mktemp("synchronized")
    (root / "dvc.yaml").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(root)
        (root / "data" / "cache").mkdir(parents=True)
        np.save(root / "data" / "cache" / "val_images.npy", np.zeros((2, 64, 64, 3), np.uint8))
        model = build_classifier("two_conv", input_shape=(64, 64, 3), num_classes=2, filters=[2], dense_units=2)
        for name, accuracy in zip(ACTIVE, (0.3, 0.4), strict=True):
            make_results(root, name, run={"run_id": f"run_of_{name}"}, metrics={"val_accuracy": accuracy})
            path = root / "models" / name / "model.keras"
            saved_model.save_model(model, path, wnids=["n1", "n2"], class_names=["one", "two"])
        write_lock(ACTIVE)
        store.connect(root)
        yield root


def write_lock(models: list[str]) -> None:
    """Write a dvc.lock that says that the results are those of the current models."""
    stages = {}
    for model in models:
        paths = [Path("models") / model / name for name in ("model.keras", "history.csv")]
        stage = "evaluate_replicate" if "-" in model else "evaluate"
        stages[f"{stage}@{model}"] = {"deps": [{"path": str(path), "md5": files.md5(path)} for path in paths]}
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))


def run_sync(**changes) -> list[str]:
    params = made_params(active=ACTIVE, **changes)
    return sync.sync(params, {job.name: f"about {job.name}" for job in params.jobs}, "about the table")


def statuses(name: str) -> dict[str, str]:
    experiments = [experiment.experiment_id for experiment in store.client().search_experiments()]
    runs = store.client().search_runs(experiments, f"tags.mlflow.runName = '{name}'")
    return {run.info.run_id: run.info.status for run in runs}


def test_missing_runs_are_restored_once(root):
    first, second = run_sync(), run_sync()
    assert [line.split(":")[0] for line in first] == ACTIVE
    assert all("did not have the run run_of_model_" in line for line in first)
    assert second == []
    run = find_run(root, "run_of_model_1")
    assert run.metrics["final_val_accuracy"] == 0.3
    assert sorted(metric_history(root, run.run_id, "loss")) == [(1, 3.0), (2, 2.0)]
    assert run.tags["workspace"] == workspace.workspace_id()
    assert run.tags["mlflow.note.content"] == "about model_1"
    assert store.client().get_experiment_by_name("demo").tags["mlflow.note.content"] == "about the table"


def test_a_replicate_that_is_trained_again_has_one_current_run(root):
    name, record = "model_1-7", root / "models" / "model_1-7" / "run.json"
    make_results(root, name, run={"run_id": "first_of_the_replicate"})
    (root / "models" / name / "model.keras").symlink_to(root / "models" / "model_1" / "model.keras")
    write_lock([*ACTIVE, name])
    replicates = {"replicates": {"models": ["model_1"], "seeds": [7]}}
    try:
        run_sync(**replicates)
        first = find_run(root, "first_of_the_replicate")
        assert first.is_current
        record.write_text(json.dumps(json.loads(record.read_text()) | {"run_id": "second_of_the_replicate"}))
        run_sync(**replicates)
    finally:
        shutil.rmtree(record.parent)
        shutil.rmtree(root / "results" / name)
        write_lock(ACTIVE)
    second = find_run(root, "second_of_the_replicate")
    assert second.is_current
    assert find_run(root, "first_of_the_replicate").tags["superseded_by"] == second.run_id
    assert all(find_run(root, f"run_of_{model}").is_current for model in ACTIVE)


def test_only_runs_whose_training_is_not_running_are_marked_as_killed(root):
    here = {"workspace": workspace.workspace_id()}
    begun = {}
    for model in ACTIVE:
        with start_run(root, experiment="demo", name=model, params={}, tags=here) as run:
            begun[model] = run.run_id
        store.client().update_run(run.run_id, status="RUNNING")
    with files.only_one(sync.CHECKPOINTS / "model_2.lock", "model_2 is being trained"):
        done = run_sync()
    assert [line for line in done if "killed" in line] == [
        f"model_1: run {begun['model_1']} marked as killed: its training is not running"
    ]
    assert statuses("model_1")[begun["model_1"]] == "KILLED"
    assert statuses("model_2")[begun["model_2"]] == "RUNNING"
    run_sync()
    assert statuses("model_2")[begun["model_2"]] == "KILLED"


def test_the_run_of_a_model_that_is_not_evaluated_is_not_changed(root):
    history = Path("models/model_1/history.csv")
    before, run = history.read_text(), find_run(root, "run_of_model_1")
    history.write_text(before.replace("0.3,2.0", "0.4,2.0"))
    try:
        assert run_sync() == ["model_1: trained, but not evaluated since: run `dvc repro`"]
    finally:
        history.write_text(before)
    assert find_run(root, "run_of_model_1") == run


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("models/model_1/run.json", '{"run_id": '),
        ("models/model_1/run.json", '{"run_id": "x"}'),
        ("models/model_1/run.json", "[]"),
        ("results/model_1/metrics.json", "nothing"),
    ],
)
def test_a_damaged_file_is_one_message_with_its_path(root, name, content):
    path = Path(name)
    before = path.read_text()
    path.write_text(content)
    try:
        with pytest.raises(UserError, match=f"{name} cannot be read .*dvc checkout"):
            run_sync()
    finally:
        path.write_text(before)


def test_a_model_whose_file_is_missing_in_mlflow_is_logged_again(root):
    shutil.rmtree(root / "mlruns")
    run_sync()
    for name in ACTIVE:
        run = find_run(root, f"run_of_{name}")
        assert model_md5(root, run.run_id) == files.md5(Path("models") / name / "model.keras")
        files_of_run = {file.path for file in store.client().list_artifacts(run.run_id)}
        assert files_of_run >= {"history.csv", "results"}


def test_the_champion_is_the_best_model_of_the_chosen_profiles(root):
    assert run_sync() == []  # by default, only paper has a champion
    champion = {"metric": "val_accuracy", "profiles": ["demo"]}
    assert run_sync(champion=champion) == ["tiny-imagenet@champion: model_2, version 1, by val_accuracy"]
    with champion_file(root) as (path, name):
        assert (name, path.read_bytes()) == ("version 1, model_2", Path("models/model_2/model.keras").read_bytes())
    # The first in `active`, if several are equal.
    equal = champion | {"metric": "val_macro_f1"}
    assert run_sync(champion=equal) == [
        "tiny-imagenet@champion: model_1, version 2, by val_macro_f1; before: version 1, model_2"
    ]


def test_the_champion_is_chosen_by_the_accuracy_of_the_served_model(root):
    """In the table, model_2 has 40 % with two views of each image. The served model has 25 % with one."""
    path = Path("results/model_2/metrics.json")
    before = path.read_text()
    path.write_text(json.dumps(json.loads(before) | {"val_accuracy_one_view": 0.25, "num_views": 2}))
    champion = {"metric": "val_accuracy", "profiles": ["demo"]}
    try:
        [line] = run_sync(champion=champion)
    finally:
        path.write_text(before)
        run_sync()
    assert line.startswith("tiny-imagenet@champion: model_1, ")


def test_a_champion_that_a_user_registered_is_kept_and_reported_by_each_sync(root):
    champion, client = {"metric": "val_accuracy", "profiles": ["demo"]}, store.client()
    best = run_sync(champion=champion)[-1].removeprefix("tiny-imagenet@champion: ").partition(";")[0]
    theirs = client.create_model_version("tiny-imagenet", "/theirs").version
    client.set_registered_model_alias("tiny-imagenet", "champion", theirs)
    other = f"version {theirs}, not registered by this pipeline"
    expected = f"tiny-imagenet@champion is still {other}; the best is {best}. To give it the alias, remove"
    for _ in range(2):
        [line] = run_sync(champion=champion)
        assert line.startswith(expected)
    client.delete_model_version("tiny-imagenet", theirs)  # and its alias
    assert run_sync(champion=champion) == [f"tiny-imagenet@champion: {best}"]


def test_a_second_sync_at_once_is_refused(root):
    with files.only_one(sync.CHECKPOINTS / "sync.lock", ""), pytest.raises(UserError, match="another process"):
        run_sync()


def test_in_the_copy_of_an_experiment_only_its_runs_are_completed(root, monkeypatch):
    copy = root / ".dvc" / "tmp" / "exps" / "one"
    copy.mkdir(parents=True)
    (copy / "dvc.yaml").touch()
    for name in ("data", "models", "results"):
        (copy / name).symlink_to(root / name)
    make_results(root, "model_3", run={"run_id": "run_of_an_experiment"})
    (root / "models" / "model_3" / "model.keras").symlink_to(root / "models" / "model_1" / "model.keras")
    monkeypatch.chdir(copy)
    write_lock(["model_3"])
    params = made_params(active=["model_3"], champion={"metric": "val_accuracy", "profiles": ["demo"]})
    done = sync.sync(params, {"model_3": "about model_3"}, "about an experiment")
    assert [line.split(":")[0] for line in done] == ["model_3"]
    assert find_run(root, "run_of_an_experiment").tags["workspace"] == workspace.workspace_id()
    assert store.client().get_experiment_by_name("demo").tags["mlflow.note.content"] == "about the table"
