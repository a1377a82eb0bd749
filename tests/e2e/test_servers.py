"""All five models trained at the same time, into one store: MLflow's server on PostgreSQL, and a SQLite file."""

import shutil
import sys
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from at_once import assert_nothing_is_lost, write_at_once
from repository_copy import Copy
from servers import Server
from standin import STANDINS

MODELS = list(STANDINS)
pytestmark = pytest.mark.e2e


@pytest.fixture
def untrained(made: Copy, tmp_path) -> Copy:
    """Return a repository that has come as far as the trainings, and has no runs."""
    trained = ("mlflow.db*", "mlruns", "results", "reports", "model.keras", "history.csv", "run.json")
    shutil.copytree(made.root, tmp_path / "repository", ignore=shutil.ignore_patterns(".git", "cache", *trained))
    copy = Copy(tmp_path / "repository")
    shutil.copytree(made.root / "data" / "cache", copy.root / "data" / "cache")
    return copy


def test_five_trainings_at_once_are_five_complete_runs_on_postgresql(untrained, mlflow_server: Server, tmp_path):
    import mlflow

    uri = mlflow_server.url
    trainings = [
        untrained.start(sys.executable, "-m", "stages.train", model, MLFLOW_TRACKING_URI=uri) for model in MODELS
    ]
    printed = [training.communicate(timeout=600)[0] for training in trainings]
    assert [training.returncode for training in trainings] == [0] * len(MODELS), "\n".join(printed)
    assert not any((untrained.root / store).exists() for store in ("mlflow.db", "mlruns"))

    mlflow_server.stop()
    mlflow_server.start()  # what it was told is in the database and in its folder
    client = mlflow.MlflowClient(uri)
    found = client.search_runs([client.get_experiment_by_name("demo").experiment_id])
    runs = [
        run for run in found if run.data.tags["workspace"] == (untrained.root / "checkpoints" / "workspace").read_text()
    ]
    assert sorted(run.info.run_name for run in runs) == MODELS
    for run in runs:
        model, run_id = run.info.run_name, run.info.run_id
        assert run.info.status == "FINISHED"
        assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
        path = untrained.root / "models" / model / "history.csv"
        history = pd.read_csv(path, index_col="epoch")
        assert history.index.tolist() == [1, 2]
        for name in history.columns:
            logged = {point.step: point.value for point in client.get_metric_history(run_id, name)}
            assert logged == pytest.approx(history[name].to_dict()), (model, name)

        artifacts = partial(mlflow.artifacts.download_artifacts, dst_path=str(tmp_path / model), tracking_uri=uri)
        assert Path(artifacts(f"runs:/{run_id}/history.csv")).read_bytes() == path.read_bytes()
        (logged,) = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run_id}'")
        served = Path(artifacts(logged.artifact_location))
        assert (served / "MLmodel").is_file()
        assert (served / "data" / "model.keras").stat().st_size > 0.9 * path.with_name("model.keras").stat().st_size


def test_five_processes_at_once_create_one_sqlite_file_and_five_complete_runs(tmp_path):
    write_at_once(tmp_path, MODELS)
    assert_nothing_is_lost(tmp_path, MODELS)
