"""The repository that the tests of the checks share."""

from pathlib import Path

import pytest
from verified_repository import Repository

from tiny_imagenet.repository import dvc, git
from tiny_imagenet.verification import checks as verification
from tiny_imagenet.verification import evidence


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Repository:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")
    made = Repository()
    monkeypatch.setattr(dvc, "changed_since_lock", lambda _: made.changed)
    monkeypatch.setattr(git, "commit_exists", lambda _, commit: commit in made.commits)
    monkeypatch.setattr(evidence, "find_run", lambda _, run_id: made.runs.get(run_id))
    monkeypatch.setattr(verification, "model_md5", lambda _, run_id: made.models[run_id])
    monkeypatch.setattr(evidence, "metric_history", made.history)
    monkeypatch.setattr(verification, "result_hashes", lambda _, run_id: made.files[run_id])
    return made
