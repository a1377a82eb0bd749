"""Users create, change or delete objects in MLflow: theirs are kept, the pipeline's are restored."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from made_results import make_results

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import md5
from tiny_imagenet.repository.provenance import run_tags
from tiny_imagenet.repository.records import RunRecord
from tiny_imagenet.tracking import results, store
from tiny_imagenet.tracking.additions import add_model, logged_model
from tiny_imagenet.tracking.results import TrackedRun, champion_file, find_run, model_md5, register_champion
from tiny_imagenet.tracking.run import start_run

NAME = results.REGISTERED_MODEL


@pytest.fixture
def root(empty_store, tmp_path, monkeypatch):
    """Work in the root of a repository with an empty store."""
    shutil.copy(empty_store, tmp_path)
    monkeypatch.chdir(tmp_path)
    store.connect(tmp_path)
    return tmp_path


def complete(root: Path, small: Any, name: str = "model_1") -> TrackedRun:
    """Complete the run of a training, or restore it from its files."""
    if not (root / "models" / name).is_dir():
        make_results(root, name, run={"run_id": f"run_of_{name}"})
    record = RunRecord.read(root / "models" / name / "run.json")
    run, _ = results.complete(
        root, name, record, tags={}, description="a row", log_model=lambda run_id: add_model(run_id, *small)
    )
    return run


def log_by_hand(run_id: str, folder: Path, name: str = "model") -> str:
    """Log a model of another library to a run, like a user, and return its id."""
    client = store.client()
    model = client.create_logged_model(client.get_run(run_id).info.experiment_id, name=name, source_run_id=run_id)
    (folder / "by hand").mkdir(exist_ok=True)
    (folder / "by hand" / "MLmodel").write_text("flavors: {}\n")
    client.log_model_artifacts(model.model_id, str(folder / "by hand"))
    client.finalize_logged_model(model.model_id, "READY")
    return str(model.model_id)


def version_by_hand(root: Path, source: str | None = None) -> str:
    """Register a version, like a user, give it the alias, and return its number."""
    client = store.client()
    if not client.search_registered_models(f"name = '{NAME}'"):
        client.create_registered_model(NAME)
    (root / "by hand").mkdir(exist_ok=True)
    version = client.create_model_version(NAME, source or str(root / "by hand"))
    client.set_registered_model_alias(NAME, results.CHAMPION, version.version)
    return str(version.version)


def champion(root: Path) -> tuple[bytes, str]:
    with champion_file(root) as (path, name):
        return path.read_bytes(), name


def champion_version() -> str:
    return str(store.client().get_model_version_by_alias(NAME, results.CHAMPION).version)


# --- versions and the alias ---


def test_a_champion_that_a_user_registered_keeps_the_alias_until_it_is_removed(root, small):
    run, theirs = complete(root, small), version_by_hand(root)
    other = f"version {theirs}, not registered by this pipeline"
    for _ in range(2):
        assert register_champion(root, run, "a row") == results.Registration("2", other, is_champion=False)
    assert champion_version() == theirs
    store.client().delete_registered_model_alias(NAME, "champion")
    assert register_champion(root, run, "a row") == results.Registration("2", None, is_champion=True)
    assert champion(root) == (small[1].read_bytes(), "version 2, model_1")


@pytest.mark.parametrize("source", ["folder", "nowhere", "run", "model"])
def test_a_champion_without_a_model_of_this_pipeline_is_refused_with_its_version(source, root, small):
    run = complete(root, small)
    theirs = log_by_hand(run.run_id, root)
    sources = {
        "folder": None, "nowhere": "/nowhere", "run": f"runs:/{run.run_id}/results", "model": f"models:/{theirs}",
    }  # fmt: skip
    version = version_by_hand(root, sources[source])
    with pytest.raises(UserError, match=rf"is version {version}, not registered .*no data/model.keras in") as caught:
        champion(root)
    assert "give the alias to another version" in str(caught.value)


@pytest.mark.parametrize("source", ["https://127.0.0.1:1/model", "mlflow-artifacts:/model", "dbfs:/model"])
def test_a_champion_at_an_address_that_cannot_be_read_is_refused_with_its_version(source, root, small):
    version = version_by_hand(root, source)
    with pytest.raises(UserError) as caught:
        champion(root)
    assert f"is version {version}, not registered by this pipeline, but {source} cannot be read (" in str(caught.value)
    assert "give the alias to another version" in str(caught.value)


def test_a_champion_that_a_user_registered_is_used_if_it_is_a_model_of_this_pipeline(root, small):
    run = complete(root, small)
    theirs = version_by_hand(root, logged_model(run.run_id).model_uri)
    assert champion(root) == (small[1].read_bytes(), f"version {theirs}, not registered by this pipeline")
    # It becomes the version of the run; no second one is registered.
    assert register_champion(root, run, "a row") == results.Registration(theirs, None, is_champion=True)
    assert champion(root)[1] == f"version {theirs}, model_1"


@pytest.mark.parametrize("deleted", ["version", "alias", "registered model", "logged model", "files", "run"])
def test_a_champion_is_registered_again_after_a_user_deleted(deleted, root, small):
    run, client = complete(root, small), store.client()
    register_champion(root, run, "a row")
    model = logged_model(run.run_id)
    match deleted:
        case "version":
            client.delete_model_version(NAME, "1")
        case "alias":
            client.delete_registered_model_alias(NAME, "champion")
        case "registered model":
            client.delete_registered_model(NAME)
        case "logged model":
            client.delete_logged_model(model.model_id)
        case "files":
            shutil.rmtree(model.artifact_location)
        case "run":
            client.delete_run(run.run_id)
    if deleted in ("logged model", "run"):  # the version and its files still exist
        assert champion(root) == (small[1].read_bytes(), "version 1, model_1")
    else:
        with pytest.raises(UserError, match="registers the best model") as caught:
            champion(root)
        assert "move" not in str(caught.value)
    assert register_champion(root, complete(root, small), "a row").is_champion
    content, name = champion(root)
    assert content == small[1].read_bytes()
    assert name.endswith(", model_1")


def test_an_error_of_the_store_is_not_mistaken_for_a_missing_alias(root, small, monkeypatch):
    run = complete(root, small)

    def away(*_: object) -> None:
        raise store.mlflow().exceptions.MlflowException("connection refused")

    monkeypatch.setattr(store.mlflow().MlflowClient, "get_model_version_by_alias", away)
    with pytest.raises(UserError, match="connection refused"):
        register_champion(root, run, "a row")


def test_the_registry_may_be_another_store(root, small, empty_store, tmp_path_factory, monkeypatch):
    registry = Path(shutil.copy(empty_store, tmp_path_factory.mktemp("registry 50%") / "registry.db"))
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", store.sqlite_uri(registry))
    run = complete(root, small)
    assert register_champion(root, run, "a row").is_champion
    assert champion(root) == (small[1].read_bytes(), "version 1, model_1")
    assert (
        store.mlflow().MlflowClient(registry_uri=store.sqlite_uri(root / "mlflow.db")).search_registered_models() == []
    )


# --- models of a run ---


@pytest.mark.parametrize("name", ["model", "theirs"])
def test_a_model_that_a_user_logged_is_kept_and_not_mistaken_for_the_trainings(name, root, small):
    with start_run(root, experiment="demo", name="model_1", params={}, tags={}) as run:
        theirs = log_by_hand(run.run_id, root, name)
        add_model(run.run_id, *small)
    add_model(run.run_id, *small)
    assert model_md5(root, run.run_id) == md5(small[1])
    experiment = store.client().get_run(run.run_id).info.experiment_id
    models = store.client().search_logged_models([experiment], f"source_run_id = '{run.run_id}'")
    assert len(models) == 2
    assert theirs in {model.model_id for model in models}


def test_a_model_that_was_killed_while_it_was_logged_is_replaced(root, small):
    with start_run(root, experiment="demo", name="model_1", params={}, tags={}) as run:
        pass
    client = store.client()
    experiment = client.get_run(run.run_id).info.experiment_id
    client.create_logged_model(experiment, name="model", source_run_id=run.run_id)
    add_model(run.run_id, *small)
    models = client.search_logged_models([experiment], f"source_run_id = '{run.run_id}'")
    assert [str(model.status) for model in models] == ["READY"]


# --- runs, experiments and tags ---


def test_changed_tags_are_restored_and_tags_of_users_are_kept(root, small):
    run, client = complete(root, small), store.client()
    client.delete_tag(run.run_id, "dvc.stage")
    client.set_tag(run.run_id, "git.commit", "edited")
    client.set_tag(run.run_id, "reviewed by", "me")
    complete(root, small)
    tags = find_run(root, "run_of_model_1").tags
    expected = run_tags(RunRecord.read(root / "models" / "model_1" / "run.json"))
    assert {key: tags.get(key) for key in expected} == expected
    assert tags["reviewed by"] == "me"


def test_a_deleted_run_is_restored(root, small):
    first = complete(root, small)
    store.client().delete_run(first.run_id)
    assert find_run(root, "run_of_model_1") is None
    second = complete(root, small)
    assert second.run_id != first.run_id
    assert find_run(root, "run_of_model_1").run_id == second.run_id


def test_a_deleted_experiment_is_an_error_with_the_command_that_restores_it(root, small):
    run, client = complete(root, small), store.client()
    experiment = client.get_run(run.run_id).info.experiment_id
    client.delete_experiment(experiment)
    assert find_run(root, "run_of_model_1") is None
    restore = f"mlflow experiments restore --experiment-id {experiment}"
    with pytest.raises(UserError, match=restore):
        complete(root, small)
    with pytest.raises(UserError, match=restore):
        results.describe_experiment(root, "demo", "a table")
    client.restore_experiment(experiment)
    assert complete(root, small).run_id == run.run_id


def test_the_remedy_for_a_deleted_object_is_not_to_move_the_store_away(root):
    with pytest.raises(UserError, match="may have been changed or deleted in MLflow") as caught, store.connected(root):
        store.client().set_tag("0" * 32, "key", "value")
    assert "move" not in str(caught.value)
