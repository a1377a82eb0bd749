"""Runs that are written: their content, resume, Ctrl-C, and a store that fails meanwhile."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from made_results import RUN
from made_runs import points, write_run

from tiny_imagenet.repository.records import RunRecord
from tiny_imagenet.tracking import run as tracking_run
from tiny_imagenet.tracking import store
from tiny_imagenet.tracking.run import mark_killed, start_run

# --- a run ---


def test_a_run_has_its_name_params_and_tags_in_the_experiment_of_its_profile(root, client):
    params = {"optimizer.name": "adam", "epochs": 6, "weights": None, "build.filters": [32, 64]}
    run_id = write_run(root, experiment="paper", name="model_4", params=params, tags={"git.dirty": "false"})
    run = client.get_run(run_id)
    assert client.get_experiment(run.info.experiment_id).name == "paper"
    assert run.info.run_name == "model_4"
    assert run.data.params == {key: str(value) for key, value in params.items()}
    assert run.data.tags["git.dirty"] == "false"
    assert run.info.status == "FINISHED"


def test_a_second_run_is_in_the_same_experiment(root, client):
    first, second = (client.get_run(write_run(root, experiment="twice")) for _ in range(2))
    assert first.info.experiment_id == second.info.experiment_id
    assert first.info.run_id != second.info.run_id


def test_epochs_are_logged_as_steps_from_1(root, client):
    run_id = write_run(root, epochs=3)
    assert points(client, run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_the_callback_logs_kerass_epoch_0_as_step_1(root, client, keras):
    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        callback = run.epoch_callback()
        for epoch in range(2):
            callback.on_epoch_end(epoch, {"val_accuracy": np.float32(0.5), "learning_rate": 0.1})
    assert points(client, run.run_id, "val_accuracy") == [(1, 0.5), (2, 0.5)]
    assert points(client, run.run_id, "learning_rate") == [(1, 0.1), (2, 0.1)]
    assert run.tracking_uri == store.tracking_uri(root)


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_a_run_whose_training_fails_or_is_stopped_has_that_status_and_the_error_is_raised(error, status, root, client):
    with pytest.raises(error), start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        raise error
    assert client.get_run(run.run_id).info.status == status


def test_ctrl_c_is_raised_after_a_batch_and_a_second_one_at_once(root, client, keras):
    reached, before = [], signal.getsignal(signal.SIGINT)

    def interrupted(times):
        with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
            reached.append(run.run_id)
            for _ in range(times):
                os.kill(os.getpid(), signal.SIGINT)
            reached.append("continued")
            run.epoch_callback().on_train_batch_end(0, logs={})
            reached.append("never")

    with pytest.raises(KeyboardInterrupt):
        interrupted(1)
    assert reached[1:] == ["continued"]
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


# --- a run that is resumed ---


def stop(root, *, epochs=2, name="m"):
    """Return the id of a run that was killed after some epochs: its status is RUNNING."""
    started = start_run(root, experiment="demo", name=name, params={"a": 1}, tags={"tag": "first"})
    with started as run:
        for epoch in range(1, epochs + 1):
            run.log_epoch(epoch, {"loss": float(epoch)})
    store.client().update_run(run.run_id, status="RUNNING")  # as after SIGKILL
    return run.run_id


def resume(root, run_id):
    return start_run(root, experiment="demo", name="m", params={"a": 1}, tags={"tag": "second"}, resume=run_id)


def test_a_stopped_run_is_resumed_and_ends_finished(root, client):
    stopped = stop(root)
    with resume(root, stopped) as run:
        assert client.get_run(stopped).info.status == "RUNNING"
        run.log_epoch(3, {"loss": 3.0})
    assert run.run_id == stopped
    assert client.get_run(stopped).info.status == "FINISHED"
    assert client.get_run(stopped).data.tags["tag"] == "second"
    assert points(client, stopped, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_missing_epochs_are_logged_and_none_twice(root, client):
    stopped = stop(root, epochs=2)
    epochs = [{"loss": 1.0, "accuracy": 0.1}, {"loss": 2.0, "accuracy": 0.2}, {"loss": 3.0, "accuracy": 0.3}]
    for _ in range(2):
        with resume(root, stopped) as run:
            run.log_history(epochs)
    assert points(client, stopped, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert points(client, stopped, "accuracy") == [(1, 0.1), (2, 0.2), (3, 0.3)]


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "of another store"])
def test_a_new_run_is_started_if_the_store_does_not_have_the_old_one(root, client, deleted):
    stopped = stop(root) if deleted else "0" * 32
    if deleted:
        client.delete_run(stopped)
    with resume(root, stopped) as run:
        run.log_history([{"loss": 1.0}])
    assert run.run_id != stopped
    assert points(client, run.run_id, "loss") == [(1, 1.0)]


def test_only_running_runs_of_the_workspace_are_marked_as_killed(root, client):
    experiment = client.create_experiment("some")

    def create(name="m", workspace="here", status="RUNNING"):
        run_id = client.create_run(experiment, run_name=name, tags={"workspace": workspace}).info.run_id
        client.update_run(run_id, status=status)
        return run_id

    killed, kept, failed = create(), create(), create(status="FAILED")
    elsewhere, other = create(workspace="there"), create(name="other")
    mark_killed(root, name="m", tags={"workspace": "here"}, but=kept)
    statuses = [client.get_run(run_id).info.status for run_id in (killed, kept, failed, elsewhere, other)]
    assert statuses == ["KILLED", "RUNNING", "FAILED", "RUNNING", "RUNNING"]


def test_a_resumed_run_keeps_its_params_and_receives_missing_ones(root, client):
    stopped = stop(root)
    with start_run(root, experiment="demo", name="m", params={"a": 2, "b": 3}, tags={}, resume=stopped):
        pass
    assert client.get_run(stopped).data.params == {"a": "1", "b": "3"}


def test_a_resumed_run_has_one_model(root, client, small):
    stopped = stop(root)
    for _ in range(2):
        with resume(root, stopped) as run:
            run.log_model(*small)
    experiment = client.get_run(stopped).info.experiment_id
    models = client.search_logged_models([experiment], f"source_run_id = '{stopped}'")
    assert [str(logged.status) for logged in models] == ["READY"]


def test_under_mlflow_run_the_run_is_a_child_and_the_parent_is_not_changed(root, client, monkeypatch):
    experiment = client.get_experiment(client.create_experiment("of mlflow run"))
    parent = client.create_run(experiment.experiment_id)
    monkeypatch.setenv("MLFLOW_RUN_ID", parent.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment.experiment_id)
    child = client.get_run(write_run(root, experiment="demo", epochs=1))
    assert child.info.run_id != parent.info.run_id
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert client.get_experiment(child.info.experiment_id).name == "demo"
    after = client.get_run(parent.info.run_id)
    assert (after.info.status, after.data.metrics) == ("RUNNING", {})


def test_without_mlflow_run_a_run_has_no_parent(root, client):
    assert "mlflow.parentRunId" not in client.get_run(write_run(root)).data.tags


def test_artifacts_are_in_the_root_beside_the_database(root, client, tmp_path):
    (tmp_path / "history.csv").write_text("epoch\n1\n")
    with start_run(root, experiment="with artifacts", name="m", params={}, tags={}) as run:
        run.log_artifact(tmp_path / "history.csv")
    assert Path(client.get_run(run.run_id).info.artifact_uri).is_relative_to(root / "mlruns")
    assert next((root / "mlruns").rglob("history.csv")).read_text() == "epoch\n1\n"


def test_a_logged_model_accepts_uint8_pixels_and_gives_the_same_bits(root, client, small, capfd):
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


def test_the_dataset_is_logged_once_as_input_of_the_run(root, client):
    setup = RunRecord.model_validate(RUN)
    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        run.log_dataset(setup)
        run.log_dataset(setup)
    [logged] = client.get_run(run.run_id).inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("digits", "0123456789abcdef")
    assert '"train": 40' in logged.dataset.profile


# --- the store fails during a run ---


class Away:
    """Make the store fail like an unreachable server while `is_away`."""

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


def test_a_store_that_fails_slowly_is_called_less_often(root, store_away, monkeypatch):
    monkeypatch.setattr(tracking_run, "_PATIENCE", 10)
    seconds, calls = [0.0], []

    def log_batch(*arguments, **named):
        import mlflow

        calls.append(seconds[0])
        seconds[0] += 30
        raise mlflow.exceptions.MlflowException("timed out")

    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        monkeypatch.setattr(store.mlflow().MlflowClient, "log_batch", log_batch)
        monkeypatch.setattr(tracking_run.time, "monotonic", lambda: seconds[0])
        for epoch in range(1, 11):
            run.log_epoch(epoch, {"loss": 1.0})
            seconds[0] += 60
        monkeypatch.undo()
    assert calls == [0, 30 + 10 * 30]


def test_missed_epochs_are_logged_when_the_store_is_back(root, client, store_away, capfd):
    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        for epoch in range(1, 6):
            store_away.is_away = epoch in (2, 3)
            run.log_epoch(epoch, {"loss": float(epoch)})
    assert points(client, run.run_id, "loss") == [(epoch, float(epoch)) for epoch in range(1, 6)]
    printed = capfd.readouterr().err
    assert printed.count("cannot be used (connection refused)") == 1
    assert printed.count("is back;") == 1
    assert client.get_run(run.run_id).info.status == "FINISHED"


def test_an_epoch_whose_answer_was_lost_is_not_logged_twice(root, client, store_away):
    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        run.log_epoch(1, {"loss": 1.0})
        store_away.loses_answer = True
        run.log_epoch(2, {"loss": 2.0})
        store_away.loses_answer = False
        run.log_epoch(3, {"loss": 3.0})
    assert points(client, run.run_id, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_a_store_that_cannot_be_reached_does_not_stop_a_training(root, client, store_away, tmp_path, small):
    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        store_away.is_away = True
        run.log_epoch(1, {"loss": 1.0})
        run.log_artifact(tmp_path / "not read")
        assert run.log_model(*small) is None
    store_away.is_away = False
    assert points(client, run.run_id, "loss") == []
