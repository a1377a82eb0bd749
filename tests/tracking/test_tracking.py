"""MLflow's store: one database whoever is first, one run per training, results added once."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_results import RUN, make_results

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.repository.records import RunRecord
from tiny_imagenet.tracking import results, store, sweeps
from tiny_imagenet.tracking import run as tracking_run
from tiny_imagenet.tracking.additions import add_model
from tiny_imagenet.tracking.results import (
    add_results,
    champion_file,
    describe_experiment,
    find_run,
    register_champion,
    supersede,
)
from tiny_imagenet.tracking.run import Run, mark_killed, start_run


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Return a repository's root with a store, which takes 5 s to make."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        root = tmp_path_factory.mktemp("a repository")
        store.connect(root)
        yield root


@pytest.fixture
def client(root):
    import mlflow

    return mlflow.MlflowClient(store.tracking_uri(root))


def train(root: Path, *, experiment: str = "demo", epochs: int = 0, **given: Any) -> str:
    """Write a run of some epochs, whose loss is the epoch, and return its id."""
    values: dict[str, Any] = {"name": "model_1", "params": {}, "tags": {}}
    with start_run(root, experiment=experiment, **values | given) as run:
        for epoch in range(1, epochs + 1):
            run.log_epoch(epoch, {"loss": float(epoch)})
    return run.run_id


def history(client: Any, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in client.get_metric_history(run_id, name)]


# --- the store ---


def test_the_store_is_in_the_root_unless_the_environment_names_another(tmp_path, monkeypatch):
    assert store.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert store.tracking_uri(tmp_path) == "http://somewhere:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert store.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_connecting_says_where_and_sends_no_telemetry(root):
    import mlflow

    assert store.connect(root) == mlflow.get_tracking_uri() == f"sqlite:///{root}/mlflow.db"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def alembic_version(database: Path) -> str:
    with sqlite3.connect(database) as connection:
        return str(connection.execute("select version_num from alembic_version").fetchone()[0])


WRITER = """
import pathlib, sys
from tiny_imagenet.tracking.run import start_run
root, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with start_run(root, experiment="demo", name=name, params={}, tags={}) as run:
    run.log_epoch(1, {"loss": 1.0})
"""


@pytest.mark.slow
def test_three_processes_that_start_at_once_make_one_whole_database(root, tmp_path):
    import mlflow

    # What a process that was killed may have left.
    for leftover in (f"mlflow.db.{'0a' * 16}.partial", f"mlflow.db.{'0a' * 16}.partial-journal"):
        (tmp_path / leftover).write_bytes(b"half a database")
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    processes = [subprocess.Popen([*command, f"model_{n}"], stderr=subprocess.PIPE, text=True) for n in (1, 2, 3)]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    assert alembic_version(tmp_path / "mlflow.db") == alembic_version(root / "mlflow.db")
    assert list(tmp_path.glob("*.partial*")) == []

    client = mlflow.MlflowClient(store.tracking_uri(tmp_path))
    experiment = client.get_experiment_by_name("demo")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"model_1", "model_2", "model_3"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert [history(client, run.info.run_id, "loss") for run in runs] == [[(1, 1.0)]] * 3


def test_another_store_named_by_the_environment_gets_the_runs_and_none_is_made_here(root, tmp_path, monkeypatch):
    import mlflow

    shutil.copy(root / "mlflow.db", tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    here = tmp_path / "here"
    here.mkdir()
    run_id = train(here, experiment="elsewhere", epochs=1)
    assert history(mlflow.MlflowClient(f"sqlite:///{tmp_path}/other.db"), run_id, "loss") == [(1, 1.0)]
    assert not (here / "mlflow.db").exists()
    assert mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db").get_experiment_by_name("elsewhere") is None


@pytest.mark.parametrize("uri", ["unheard://of", "http://127.0.0.1:9"])
def test_a_store_that_cannot_be_used_is_a_users_mistake_with_its_address(uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError) as caught:
        train(tmp_path)
    assert uri in str(caught.value)


def test_a_file_that_is_no_database_is_a_users_mistake_with_its_path(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database")
    with pytest.raises(UserError) as caught:
        train(tmp_path)
    assert str(tmp_path / "mlflow.db") in str(caught.value)


# --- a run ---


def test_a_run_has_its_name_params_and_tags_in_the_experiment_of_its_profile(root, client):
    params = {"optimizer.name": "adam", "epochs": 6, "weights": None, "build.filters": [32, 64]}
    run = client.get_run(train(root, experiment="paper", name="model_4", params=params, tags={"git.dirty": "false"}))
    assert client.get_experiment(run.info.experiment_id).name == "paper"
    assert run.info.run_name == "model_4"
    assert run.data.params == {key: str(value) for key, value in params.items()}
    assert run.data.tags["git.dirty"] == "false"
    assert run.info.status == "FINISHED"


def test_a_second_run_joins_the_experiment(root, client):
    first, second = (client.get_run(train(root, experiment="twice")) for _ in range(2))
    assert first.info.experiment_id == second.info.experiment_id
    assert first.info.run_id != second.info.run_id


def test_epochs_are_logged_at_steps_from_1_as_in_history_csv(root, client):
    run_id = train(root, epochs=3)
    assert history(client, run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_the_callback_logs_keras_epoch_0_as_step_1_under_the_same_names(root, client, keras):
    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        callback = run.epoch_callback()
        for epoch in range(2):
            callback.on_epoch_end(epoch, {"val_accuracy": np.float32(0.5), "learning_rate": 0.1})
    assert history(client, run.run_id, "val_accuracy") == [(1, 0.5), (2, 0.5)]
    assert history(client, run.run_id, "learning_rate") == [(1, 0.1), (2, 0.1)]
    assert run.tracking_uri == store.tracking_uri(root)


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_whose_training_fails_or_is_stopped_says_so_and_the_error_goes_on(error, status, root, client):
    with pytest.raises(error), start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        raise error
    assert client.get_run(run.run_id).info.status == status


def test_ctrl_c_waits_for_the_end_of_a_batch_and_the_second_one_does_not(root, client, keras):
    reached, before = [], signal.getsignal(signal.SIGINT)

    def interrupted(times):
        with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
            reached.append(run.run_id)
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
            reached.append("went on")
            run.epoch_callback().on_train_batch_end(0, logs={})
            reached.append("never")

    with pytest.raises(KeyboardInterrupt):
        interrupted(1)
    assert reached[1:] == ["went on"]
    assert client.get_run(reached[0]).info.status == "KILLED"
    with pytest.raises(KeyboardInterrupt):
        interrupted(2)
    assert len(reached) == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_after_the_last_batch_is_not_lost(root, client):
    def interrupted():
        with start_run(root, experiment="demo", name="m", params={}, tags={}):
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        interrupted()


# --- a run that is taken up again ---


def stop(root, *, epochs=2, name="m"):
    """Start a run that is killed after some epochs: it stays RUNNING."""
    started = start_run(root, experiment="demo", name=name, params={"a": 1}, tags={"tag": "first"})
    with started as run:
        for epoch in range(1, epochs + 1):
            run.log_epoch(epoch, {"loss": float(epoch)})
    store.client().update_run(run.run_id, status="RUNNING")  # as one is left by SIGKILL
    return run.run_id


def resume(root, run_id):
    return start_run(root, experiment="demo", name="m", params={"a": 1}, tags={"tag": "second"}, resume=run_id)


def test_a_stopped_run_is_gone_on_with_and_ends_finished(root, client):
    stopped = stop(root)
    with resume(root, stopped) as run:
        assert client.get_run(stopped).info.status == "RUNNING"
        run.log_epoch(3, {"loss": 3.0})
    assert run.run_id == stopped
    assert client.get_run(stopped).info.status == "FINISHED"
    assert client.get_run(stopped).data.tags["tag"] == "second"
    assert history(client, stopped, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_what_the_store_lacks_of_the_epochs_that_are_done_is_logged_and_nothing_twice(root, client):
    stopped = stop(root, epochs=2)
    done = [{"loss": 1.0, "accuracy": 0.1}, {"loss": 2.0, "accuracy": 0.2}, {"loss": 3.0, "accuracy": 0.3}]
    for _ in range(2):
        with resume(root, stopped) as run:
            run.log_history(done)
    assert history(client, stopped, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert history(client, stopped, "accuracy") == [(1, 0.1), (2, 0.2), (3, 0.3)]


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "of another store"])
def test_a_run_that_the_store_does_not_have_is_begun_anew(root, client, deleted):
    stopped = stop(root) if deleted else "0" * 32
    if deleted:
        client.delete_run(stopped)
    with resume(root, stopped) as run:
        run.log_history([{"loss": 1.0}])
    assert run.run_id != stopped
    assert history(client, run.run_id, "loss") == [(1, 1.0)]


def test_dead_runs_of_a_workspace_are_marked_as_killed_and_others_left_alone(root, client):
    experiment = client.create_experiment("some")

    def create(name="m", workspace="here", status="RUNNING"):
        run_id = client.create_run(experiment, run_name=name, tags={"workspace": workspace}).info.run_id
        client.update_run(run_id, status=status)
        return run_id

    dead, kept, failed = create(), create(), create(status="FAILED")
    elsewhere, other = create(workspace="there"), create(name="other")
    mark_killed(root, name="m", tags={"workspace": "here"}, but=kept)
    found = {run_id: client.get_run(run_id).info.status for run_id in (dead, kept, failed, elsewhere, other)}
    assert list(found.values()) == ["KILLED", "RUNNING", "FAILED", "RUNNING", "RUNNING"]


def test_a_run_gone_on_with_keeps_its_params_and_gets_those_it_lacks(root, client):
    stopped = stop(root)
    with start_run(root, experiment="demo", name="m", params={"a": 2, "b": 3}, tags={}, resume=stopped):
        pass
    assert client.get_run(stopped).data.params == {"a": "1", "b": "3"}


@pytest.fixture(scope="module")
def small(tmp_path_factory, keras):
    """Return a model, its file, and what is logged with it."""
    from tiny_imagenet.models import saved_model
    from tiny_imagenet.models.registry import build_classifier

    model = build_classifier("two_conv", input_shape=(64, 64, 3), num_classes=2, filters=[2], dense_units=2)
    path = tmp_path_factory.mktemp("small") / "model.keras"
    classes = {"wnids": ["n1", "n2"], "class_names": ["one", "two"]}
    saved_model.save_model(model, path, **classes)
    return model, path, ["keras", "numpy"], classes, np.zeros((1, 64, 64, 3), np.uint8)


def test_a_run_gone_on_with_has_its_model_once(root, client, small):
    stopped = stop(root)
    for _ in range(2):
        with resume(root, stopped) as run:
            run.log_model(*small)
    experiment = client.get_run(stopped).info.experiment_id
    found = client.search_logged_models([experiment], f"source_run_id = '{stopped}'")
    assert [str(logged.status) for logged in found] == ["READY"]


def test_under_mlflow_run_the_run_is_a_child_and_the_parent_stays_as_it_is(root, client, monkeypatch):
    experiment = client.get_experiment(client.create_experiment("of mlflow run"))
    parent = client.create_run(experiment.experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", parent.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment.experiment_id)
    child = client.get_run(train(root, experiment="demo", epochs=1))
    assert child.info.run_id != parent.info.run_id
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert client.get_experiment(child.info.experiment_id).name == "demo"
    after = client.get_run(parent.info.run_id)
    assert (after.info.status, after.data.metrics) == ("RUNNING", {})


def test_a_run_by_itself_has_no_parent(root, client):
    assert "mlflow.parentRunId" not in client.get_run(train(root)).data.tags


def test_a_deleted_experiment_is_a_users_mistake_with_the_command_that_restores_it(root, client):
    deleted = client.create_experiment("deleted one")
    client.delete_experiment(deleted)
    with pytest.raises(UserError) as caught:
        train(root, experiment="deleted one")
    assert "'deleted one' was deleted" in str(caught.value)
    assert f"mlflow experiments restore --experiment-id {deleted}" in str(caught.value)


def test_artifacts_lie_in_the_root_beside_the_database(root, client, tmp_path):
    (tmp_path / "history.csv").write_text("epoch\n1\n")
    with start_run(root, experiment="with artifacts", name="m", params={}, tags={}) as run:
        run.log_artifact(tmp_path / "history.csv")
    assert Path(client.get_run(run.run_id).info.artifact_uri).is_relative_to(root / "mlruns")
    assert next((root / "mlruns").rglob("history.csv")).read_text() == "epoch\n1\n"


def test_a_logged_model_takes_plain_pixels_and_gives_the_same_bits(root, client, small, capfd):
    import mlflow

    model, path, *_ = small
    with start_run(root, experiment="models", name="m", params={}, tags={}) as run:
        uri = run.log_model(*small)
    assert capfd.readouterr().out == ""
    info = mlflow.models.get_model_info(uri)
    inputs, outputs = info.signature.inputs.inputs[0], info.signature.outputs.inputs[0]
    assert (inputs.type, inputs.shape) == (np.dtype(np.uint8), (-1, 64, 64, 3))
    assert (outputs.type, outputs.shape) == (np.dtype(np.float32), (-1, 2))
    assert info.metadata == {"wnids": ["n1", "n2"], "class_names": ["one", "two"]}
    folder = Path(mlflow.artifacts.download_artifacts(uri))
    assert (folder / "data" / "model.keras").read_bytes() == path.read_bytes()
    example = mlflow.models.Model.load(folder).load_input_example(str(folder))
    assert (example.shape, example.dtype) == ((1, 64, 64, 3), np.uint8)
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    served = mlflow.pyfunc.load_model(uri).predict(images)
    np.testing.assert_array_equal(served, model.predict_on_batch(images))


def test_the_dataset_is_the_input_of_the_run_and_named_once(root, client):
    setup = RunRecord.model_validate(RUN)
    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        run.log_dataset(setup)
        run.log_dataset(setup)
    [logged] = client.get_run(run.run_id).inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("digits", "0123456789abcdef")
    assert '"train": 40' in logged.dataset.profile


def test_a_password_in_the_address_stays_out_of_what_is_shared():
    assert store.public("postgresql://me:secret@host/db") == "postgresql://host/db"
    assert (
        store.public("failed at http://me:se@host:5000 and http://a:b@c") == "failed at http://host:5000 and http://c"
    )
    assert store.public("http://me:s@e/c@host:5000/path") == "http://host:5000/path"
    assert store.public("sqlite:////a/b@c/mlflow.db") == "sqlite:////a/b@c/mlflow.db"


# --- the store goes away ---


class Away:
    """Let the store fail as an unreachable server does, for as long as `is_away`."""

    def __init__(self, monkeypatch):
        import mlflow

        self.is_away, self.loses_answer = False, False
        for name in ("log_batch", "log_artifact", "log_inputs", "get_metric_history", "search_logged_models"):
            monkeypatch.setattr(mlflow.MlflowClient, name, self.failing(getattr(mlflow.MlflowClient, name)))

    def failing(self, method):
        import mlflow

        def call(*arguments, **named):
            if self.loses_answer:
                method(*arguments, **named)
            if self.is_away or self.loses_answer:
                raise mlflow.exceptions.MlflowException("connection refused")
            return method(*arguments, **named)

        return call


@pytest.fixture
def store_away(monkeypatch):
    monkeypatch.setattr(tracking_run, "_PATIENCE", 0)
    return Away(monkeypatch)


def test_a_store_that_takes_long_to_fail_is_asked_less_often(root, store_away, monkeypatch):
    monkeypatch.setattr(tracking_run, "_PATIENCE", 10)
    seconds, asked = [0.0], []

    def log_batch(*arguments, **named):
        import mlflow

        asked.append(seconds[0])
        seconds[0] += 30
        raise mlflow.exceptions.MlflowException("timed out")

    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        monkeypatch.setattr(store.mlflow().MlflowClient, "log_batch", log_batch)
        monkeypatch.setattr(tracking_run.time, "monotonic", lambda: seconds[0])
        for epoch in range(1, 11):
            run.log_epoch(epoch, {"loss": 1.0})
            seconds[0] += 60
        monkeypatch.undo()
    assert asked == [0, 30 + 10 * 30]


def test_epochs_that_the_store_missed_are_delivered_when_it_is_back(root, client, store_away, capfd):
    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        for epoch in range(1, 6):
            store_away.is_away = epoch in (2, 3)
            run.log_epoch(epoch, {"loss": float(epoch)})
    assert history(client, run.run_id, "loss") == [(epoch, float(epoch)) for epoch in range(1, 6)]
    printed = capfd.readouterr().err
    assert printed.count("cannot be used (connection refused)") == 1
    assert printed.count("is back, and has") == 1
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_what_arrived_though_the_answer_was_lost_is_not_logged_twice(root, client, store_away):
    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        run.log_epoch(1, {"loss": 1.0})
        store_away.loses_answer = True
        run.log_epoch(2, {"loss": 2.0})
        store_away.loses_answer = False
        run.log_epoch(3, {"loss": 3.0})
    assert history(client, run.run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_store_that_stays_away_does_not_stop_a_training(root, client, store_away, tmp_path, small):
    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        store_away.is_away = True
        run.log_epoch(1, {"loss": 1.0})
        run.log_artifact(tmp_path / "not read")
        assert run.log_model(*small) is None
    store_away.is_away = False
    assert history(client, run.run_id, "loss") == []


# --- results ---


def result(
    run_id: str = "0" * 32, *, name: str = "model_1", losses: Sequence[float] = (2.0, 1.0), **metrics: float
) -> RunRecord:
    """Write the files of a training into the working directory, and return its run.json."""
    shutil.rmtree(Path("models") / name, ignore_errors=True)
    shutil.rmtree(Path("results") / name, ignore_errors=True)
    run = {"run_id": run_id, "experiment": "restoring", "epoch_seconds": [10.0, 20.0]}
    make_results(Path(), name, run=run, metrics={"val_accuracy": 0.5} | metrics)
    rows = "".join(f"{epoch},0.5,0.5,{loss},1.5\n" for epoch, loss in enumerate(losses, start=1))
    (Path("models") / name / "history.csv").write_text(f"epoch,accuracy,val_accuracy,loss,val_loss\n{rows}")
    return RunRecord.read(Path("models") / name / "run.json")


def complete(root, record, small, name="model_1"):
    return results.complete(
        root,
        name,
        record,
        tags={"workspace": "here"},
        description="a row",
        log_model=lambda run_id: add_model(run_id, *small),
    )


@pytest.fixture
def working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_run_that_is_not_in_the_store_is_restored_from_the_files_and_never_twice(
    root, client, working_directory, small
):
    record = result()
    (first, restored), (second, again) = (complete(root, record, small) for _ in range(2))
    assert (restored, again) == (True, False)
    assert first.run_id == second.run_id
    assert find_run(root, "0" * 32).run_id == first.run_id
    run = client.get_run(first.run_id)
    assert run.data.tags["restored_from"] == "0" * 32
    assert run.data.tags["mlflow.note.content"] == "a row"
    assert (run.info.run_name, run.info.status) == ("model_1", "FINISHED")
    assert (run.info.end_time - run.info.start_time) == 30_000
    assert run.data.params == {"epochs": "2"}
    assert history(client, first.run_id, "loss") == [(1, 2.0), (2, 1.0)]
    assert history(client, first.run_id, "final_val_accuracy") == [(0, 0.5)]
    assert {found.path for found in client.list_artifacts(first.run_id)} >= {"history.csv", "results"}
    assert len(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{first.run_id}'")) == 1


def test_a_run_that_lacks_something_is_completed(root, client, working_directory, small):
    run_id = train(root, experiment="restoring", epochs=1)
    store.client().update_run(run_id, status="RUNNING")  # the server was away when it ended
    run, restored = complete(root, result(run_id, losses=(1.0, 0.5)), small)
    assert (run.run_id, restored, run.status) == (run_id, False, "FINISHED")
    assert sorted(history(client, run_id, "loss")) == [(1, 1.0), (2, 0.5)]
    assert run.metrics["final_val_accuracy"] == 0.5


def test_results_that_change_are_logged_and_others_are_not_logged_again(root, client, working_directory, small):
    run_id = train(root)
    for accuracy in (0.5, 0.5, 0.25):
        complete(root, result(run_id, val_accuracy=accuracy, num_images=200), small)
    assert sorted(history(client, run_id, "final_val_accuracy")) == [(0, 0.25), (0, 0.5)]
    assert client.get_run(run_id).data.metrics["final_val_accuracy"] == 0.25
    assert history(client, run_id, "final_num_images") == [(0, 200.0)]


def test_of_the_finished_runs_of_a_workspace_one_is_current(root, client):
    name, here = "superseding", {"workspace": "here"}
    first, second = (train(root, experiment="demo", name=name, tags=here) for _ in range(2))
    elsewhere = train(root, experiment="demo", name=name, tags={"workspace": "there"})
    other = train(root, experiment="demo", name="other", tags=here)

    def superseded():
        return [client.get_run(run).data.tags.get("superseded_by") for run in (first, second, elsewhere, other)]

    supersede(root, find_run(root, second), here)
    assert superseded() == [second, None, None, None]
    assert not find_run(root, first).is_current
    supersede(root, find_run(root, first), here)  # switched back to it, out of DVC's cache
    assert superseded() == [None, first, None, None]


def test_the_champion_is_registered_once_and_the_alias_moves(root, client, working_directory, small):
    runs = []
    for number, name in enumerate(("model_1", "model_2")):
        runs.append(complete(root, result(f"{number + 1:032}", name=name), small, name)[0])
    with pytest.raises(UserError, match="has no tiny-imagenet@champion yet"), champion_file(root):
        pass
    registered = [register_champion(root, run, "a row") for run in (*runs, runs[1], runs[0])]
    assert [(each.version, each.other) for each in registered] == [
        ("1", None), ("2", "version 1, model_1"), ("2", None), ("1", "version 2, model_2"),
    ]  # fmt: skip
    assert all(each.is_champion for each in registered)
    assert len(client.search_model_versions("name = 'tiny-imagenet'")) == 2
    version = client.get_model_version_by_alias("tiny-imagenet", "champion")
    assert (version.run_id, version.description) == (runs[0].run_id, "a row")
    with champion_file(root) as (path, name):
        assert (path.read_bytes(), name) == (small[1].read_bytes(), "version 1, model_1")


def test_an_experiments_description_is_what_was_said_last(root, client):
    for text in ("a table", "another"):
        describe_experiment(root, "described", text)
    assert client.get_experiment_by_name("described").tags["mlflow.note.content"] == "another"


def test_results_of_a_run_that_this_store_does_not_have_are_reported_and_no_error(root, tmp_path):
    assert add_results(root, "0123456789abcdef0123456789abcdef", {"val_accuracy": 0.5}, tmp_path) is False


# --- a store that has moved ---


def test_after_the_repository_has_moved_its_artifacts_are_found_at_the_new_place(root, tmp_path, monkeypatch):
    import mlflow

    here, there = shutil.copytree(root, tmp_path / "here"), tmp_path / "there"
    note = tmp_path / "note.txt"
    note.write_text("kept")
    with start_run(here, experiment="moving", name="before", params={}, tags={}) as before:
        before.log_artifact(note)
    here.rename(there)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow sets it, for the processes that this one would start
    with start_run(there, experiment="moving", name="after", params={}, tags={}) as after:
        after.log_artifact(note)
    client = mlflow.MlflowClient(f"sqlite:///{there / 'mlflow.db'}")
    for run in (before, after):
        assert client.get_run(run.run_id).info.artifact_uri.startswith(str(there / "mlruns" / "moving"))
        assert [found.path for found in client.list_artifacts(run.run_id)] == ["note.txt"]
    assert not here.exists()


def test_a_store_without_its_artifacts_beside_it_is_left_as_it_is(root, tmp_path, monkeypatch):
    import mlflow

    here, alone = shutil.copytree(root, tmp_path / "here"), tmp_path / "alone"
    with start_run(here, experiment="moving", name="before", params={}, tags={}) as run:
        pass
    alone.mkdir()
    (here / "mlflow.db").rename(alone / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    store.connect(alone)
    client = mlflow.MlflowClient(f"sqlite:///{alone / 'mlflow.db'}")
    assert client.get_run(run.run_id).info.artifact_uri.startswith(str(here))


def test_metrics_for_a_store_that_cannot_be_reached_are_no_missing_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match="cannot be used"):
        add_results(tmp_path, "0" * 32, {"val_accuracy": 0.5}, tmp_path)


def test_runs_of_a_sweep_are_open_at_once_are_gone_on_with_and_end_as_told(root, client):
    def open_run(name: str, **more: Any) -> Run:
        return sweeps.open_run(
            root, experiment="sweeps", name=name, params={"rate": 0.1}, tags={"sweep": "rates"}, **more
        )

    parent = open_run("rates")
    first, second = (open_run(f"rates-{number}", parent=parent) for number in (1, 2))
    first.log_epoch(1, {"loss": 1.0})
    second.log_epoch(1, {"loss": 2.0})
    second.end("KILLED")
    again = open_run("rates-2", parent=parent, resume=second.run_id)
    assert again.run_id == second.run_id
    assert client.get_run(again.run_id).info.status == "RUNNING"
    for epoch, loss in enumerate((2.0, 1.5), start=1):  # a trial that was lost reports all of its epochs again
        again.log_epoch(epoch, {"loss": loss})
    again.log_epoch(2, {"loss": 1.5})
    first.end("FINISHED")
    again.end("FINISHED")
    for run, losses in ((first, [1.0]), (again, [2.0, 1.5])):
        found = client.get_run(run.run_id)
        assert found.info.status == "FINISHED"
        assert found.data.tags["mlflow.parentRunId"] == parent.run_id
        assert found.data.params == {"rate": "0.1"}
        history = client.get_metric_history(run.run_id, "loss")
        assert [(point.step, point.value) for point in history] == list(enumerate(losses, start=1))
    assert client.get_run(parent.run_id).info.status == "RUNNING"
    assert open_run("rates", resume="0" * 32).run_id not in {parent.run_id, "0" * 32}


def test_ctrl_c_while_mlflow_is_imported_stays_one(root, monkeypatch):
    """An import that was interrupted leaves a module behind which fails otherwise when it is asked for again."""
    asked = []

    def half_imported() -> Any:
        asked.append(True)
        raise KeyboardInterrupt if len(asked) == 1 else AttributeError("partially initialized module 'mlflow'")

    monkeypatch.setattr(store, "mlflow", half_imported)
    with pytest.raises(KeyboardInterrupt):
        mark_killed(root, name="a", tags={})
