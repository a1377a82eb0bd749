"""The id of a working directory, and the removal of the checkpoint of a completed training."""

from pathlib import Path

import pytest
import yaml
from made_results import VALUES

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import md5
from tiny_imagenet.config.params import parse_params
from tiny_imagenet.repository import workspace

JOB = parse_params(VALUES).job("model_2")


def test_the_id_of_a_workspace_does_not_change_when_it_is_moved(tmp_path, monkeypatch):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    name = workspace.workspace_id()
    assert workspace.workspace_id() == name
    (tmp_path / "one").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert workspace.workspace_id() == name
    monkeypatch.chdir(tmp_path / "two")
    assert workspace.workspace_id() != name
    assert [path.name for path in Path("checkpoints").iterdir()] == ["workspace"]


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """Return the checkpoint folder and the run.json of a completed training, in the working directory."""
    monkeypatch.chdir(tmp_path)
    record, folder = Path("models/model_2/run.json"), Path("checkpoints/model_2")
    for parent in (record.parent, folder):
        parent.mkdir(parents=True)
    record.write_text("{}")
    workspace.note_finished("model_2")
    return folder, record


def write_lock(digest: str) -> None:
    outs = [{"path": "models/model_2/run.json", "md5": digest}]
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"train@model_2": {"outs": outs}}}))


def test_the_checkpoint_is_kept_until_dvc_has_recorded_the_outputs(finished):
    folder, record = finished
    workspace.drop_finished_checkpoint(JOB)
    write_lock("0" * 32)
    workspace.drop_finished_checkpoint(JOB)
    assert folder.exists()
    write_lock(md5(record))
    workspace.drop_finished_checkpoint(JOB)
    assert not folder.exists()


def test_a_run_json_that_exists_when_the_stage_starts_proves_that_it_is_recorded(finished):
    folder, record = finished
    record.rename("elsewhere.json")
    workspace.drop_finished_checkpoint(JOB, starting=True)
    assert folder.exists()
    Path("elsewhere.json").rename(record)
    workspace.drop_finished_checkpoint(JOB)
    assert folder.exists()
    workspace.drop_finished_checkpoint(JOB, starting=True)
    assert not folder.exists()


def test_an_incomplete_training_keeps_its_checkpoint(finished):
    folder, record = finished
    (folder / "finished").unlink()
    write_lock(md5(record))
    workspace.drop_finished_checkpoint(JOB, starting=True)
    assert folder.exists()


def test_a_removal_that_is_interrupted_leaves_no_run_without_a_checkpoint(finished, monkeypatch):
    folder, _ = finished
    (folder / "key.run").write_text("run")
    monkeypatch.setattr(workspace.shutil, "rmtree", lambda _: None)
    workspace.drop_finished_checkpoint(JOB, starting=True)
    assert [path.name for path in folder.iterdir()] == ["finished"]


@pytest.mark.parametrize(("copy", "is_refused"), [(None, False), ("one", False), ("another", True)])
def test_a_training_needs_the_source_of_its_architecture_as_the_stage_has_copied_it(
    copy, is_refused, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if copy is not None:
        (folder := tmp_path / "models" / "model_2").mkdir(parents=True)
        (folder / "architecture.py").write_text(copy)
    if is_refused:
        with pytest.raises(UserError, match=r"differs from the source of three_conv.*rerun `dvc repro`"):
            workspace.require_architecture(JOB, "one")
    else:
        workspace.require_architecture(JOB, "one")
