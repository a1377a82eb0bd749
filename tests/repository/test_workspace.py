"""The checkpoint of a complete training goes when what the training made is safe, and not before."""

import pytest

from tiny_imagenet.common.files import md5
from tiny_imagenet.repository import workspace


@pytest.fixture
def made(tmp_path):
    """Return a checkpoint's folder, and the run.json that its training has made."""
    record = tmp_path / "run.json"
    record.write_text("{}")
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    workspace.note(folder, record)
    return folder, record


def test_it_stays_until_dvc_has_noted_the_files(made):
    folder, record = made
    workspace.drop(folder, None)
    workspace.drop(folder, "0" * 32)
    assert folder.exists()
    workspace.drop(folder, md5(record))
    assert not folder.exists()


def test_where_a_training_begins_a_record_that_is_there_is_one_that_dvc_has_kept(made):
    folder, record = made
    workspace.drop(folder, None, record.with_name("another.json"))
    assert folder.exists()
    workspace.drop(folder, None, record)
    assert not folder.exists()


def test_a_training_that_is_not_complete_keeps_its_checkpoint(tmp_path):
    record = tmp_path / "run.json"
    record.write_text("{}")
    workspace.drop(tmp_path, md5(record), record)
    assert record.exists()


def test_stopped_as_it_removes_the_checkpoint_it_leaves_no_run_without_one(made, monkeypatch):
    folder, record = made
    (folder / "key.run").write_text("run")
    monkeypatch.setattr(workspace.shutil, "rmtree", lambda _: None)
    workspace.drop(folder, md5(record))
    assert [path.name for path in folder.iterdir()] == ["finished"]
