"""Undocumented behaviour of MLflow and DVC that the code relies on: one test each, named after the part.

docs/decisions/0029-private-parts-of-keras-dvc-and-mlflow.md says where each part is used, and why.
"""

import importlib.util
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tiny_imagenet.common.files import md5
from tiny_imagenet.repository import dvc
from tiny_imagenet.tracking import additions, store
from tiny_imagenet.tracking.run import start_run


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Any:
    """Return a repository whose store has a run, its model and a registered version, with files in `mlruns`."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with start_run(root, experiment="demo", name="model_1", params={}, tags={}) as run:
            run.log_epoch(1, {"loss": 1.0})
        client = store.client()
        experiment = client.get_run(run.run_id).info.experiment_id
        model = client.create_logged_model(experiment, name="model", source_run_id=run.run_id)
        client.finalize_logged_model(model.model_id, "READY")
        client.create_registered_model("registered")
        client.create_model_version("registered", model.model_uri, run.run_id, model_id=model.model_id)
        yield root


@pytest.mark.parametrize(
    ("table", "column"), [pytest.param(*pair, id=".".join(pair)) for pair in store._ARTIFACT_PATHS]
)
def test_mlflow_keeps_absolute_paths_in(table, column, root):
    with sqlite3.connect(root / "mlflow.db") as connection:
        values = [str(value) for (value,) in connection.execute(f"SELECT {column} FROM {table}")]  # noqa: S608
    assert any(value.startswith(str(root / "mlruns")) for value in values)


def test_mlflow_keeps_absolute_paths_in_no_other_column(root):
    """`store._follow_move` would not correct another column."""
    with sqlite3.connect(root / "mlflow.db") as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        columns = {
            (table, column[1])
            for table in tables
            for column in connection.execute(f"PRAGMA table_info({table})")
            if connection.execute(
                f"SELECT 1 FROM {table} WHERE instr({column[1]}, ?)",  # noqa: S608
                (str(root / "mlruns"),),
            ).fetchone()
        }
    assert columns == {*store._ARTIFACT_PATHS}


def test_mlflow_creates_a_database_on_the_first_call_with_artifacts_in_mlruns(root):
    default = store.client().get_experiment("0")
    assert Path(default.artifact_location).parent == root / "mlruns"


@pytest.mark.parametrize("name", store.CHATTY)
def test_mlflow_logs_as(name):
    assert importlib.util.find_spec(name)


def test_mlflow_keras_saves_a_model_as_data_model_keras(tmp_path, keras):
    import mlflow

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    folder = tmp_path / "logged"
    folder.mkdir()
    mlflow.keras.save_model(model, str(folder), save_exported_model=False, pip_requirements=[])
    assert (folder / additions.MODEL_FILE).is_file()
    np.testing.assert_array_equal(
        keras.saving.load_model(folder / additions.MODEL_FILE).get_weights()[0], model.get_weights()[0]
    )


# --- DVC ---


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    """Return a repository after `dvc repro` of a stage that depends on a folder and writes a folder and a file."""
    root = tmp_path_factory.mktemp("pipeline")
    (root / "code" / "part").mkdir(parents=True)
    (root / "code" / "part" / "a.py").write_text("a")
    (root / "code" / "b.py").write_text("b")
    (root / ".dvc").mkdir()
    (root / ".dvc" / "config").write_text(
        "[core]\n    no_scm = true\n    analytics = false\n    check_update = false\n"
    )
    stage = {"cmd": "cp -r code made && echo c > c.txt", "deps": ["code"], "outs": ["made", "c.txt"]}
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"make": stage}}))
    subprocess.run(dvc.repro_command(), cwd=root, check=True, capture_output=True)
    return root


def the_lock_has_path_and_md5(root: Path) -> None:
    assert dvc.locked_files(root, "make") == {
        "code": dvc.path_md5(root / "code"),
        "made": dvc.path_md5(root / "made"),
        "c.txt": md5(root / "c.txt"),
    }


def the_lock_has_a_schema(root: Path) -> None:
    whole = (root / "dvc.lock").read_text()
    assert not dvc._is_broken_lock(whole.encode())
    assert dvc._is_broken_lock(whole.replace("path: made", "").encode())


def the_cache_has_a_file_for_each_md5(root: Path) -> None:
    assert dvc.cached_file(md5(root / "c.txt")) == dvc.cache_path(md5(root / "c.txt"))
    assert dvc.cached_file(md5(root / "code" / "b.py")) is not None  # as made/b.py


def the_cache_has_the_list_of_a_folder(root: Path) -> None:
    assert dvc.cached_folder(dvc.path_md5(root / "made")) == dvc.folder_files(root / "made")


def status_is_json_by_stage(root: Path) -> None:
    assert dvc.changed_since_lock(root) == []
    before = (root / "code" / "b.py").read_text()
    (root / "code" / "b.py").write_text("changed")
    try:
        assert dvc.changed_since_lock(root) == ["make: changed deps: code: modified"]
    finally:
        (root / "code" / "b.py").write_text(before)


def experiments_run_in_dvc_tmp_exps(root: Path) -> None:
    script = (
        "import json, dvc.repo, dvc.repo.experiments.utils as utils;"
        "print(json.dumps([dvc.repo.Repo().tmp_dir, utils.EXEC_TMP_DIR]))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=root, check=True, capture_output=True, text=True
    ).stdout
    folder, name = json.loads(printed)
    assert (Path(folder) / name).relative_to(root).parts == dvc._EXPERIMENTS


@pytest.mark.parametrize(
    "part",
    [
        the_lock_has_path_and_md5,
        the_lock_has_a_schema,
        the_cache_has_a_file_for_each_md5,
        the_cache_has_the_list_of_a_folder,
        status_is_json_by_stage,
        experiments_run_in_dvc_tmp_exps,
    ],
    ids=lambda part: part.__name__,
)
def test_dvc(part: Callable[[Path], None], pipeline, monkeypatch):
    monkeypatch.chdir(pipeline)
    part(pipeline)
