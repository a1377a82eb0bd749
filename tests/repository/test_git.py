"""What git says of the tree that a training begins in."""

import subprocess
from pathlib import Path

import pytest

from tiny_imagenet.repository import git as state


@pytest.fixture
def repository(tmp_path):
    """Return a folder with a dvc.yaml and a folder below it."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    # Nothing of the user's own configuration: no signing, no hooks.
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-c", "core.hooksPath=/dev/null", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def committed(repository):
    """Return a git repository with one commit of dvc.yaml, dvc.lock, .gitignore and a file."""
    git(repository, "init", "--quiet")
    for name, content in {"dvc.lock": "1", "code.py": "1", ".gitignore": "/data/\n"}.items():
        (repository / name).write_text(content)
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "first")
    return repository


def test_a_clean_tree_is_its_commit(committed):
    assert state.git_state(committed) == {"commit": git(committed, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("name", ["code.py", "dvc.yaml", "new.py", "a/b/new.py"])
def test_a_changed_or_new_file_makes_the_tree_dirty(name, committed):
    (committed / name).write_text("2")
    assert state.git_state(committed)["dirty"] is True


def test_a_removed_and_a_staged_file_make_the_tree_dirty(committed):
    (committed / "code.py").unlink()
    assert state.git_state(committed)["dirty"] is True
    git(committed, "checkout", "code.py")
    (committed / "code.py").write_text("2")
    git(committed, "add", "code.py")
    assert state.git_state(committed)["dirty"] is True


def test_dvc_lock_and_ignored_files_do_not_make_the_tree_dirty(committed):
    (committed / "dvc.lock").write_text("2")
    (committed / "data").mkdir()
    (committed / "data" / "images.npy").write_text("2")
    assert state.git_state(committed)["dirty"] is False


UNKNOWN = {"commit": None, "dirty": None}


def test_a_tree_without_git_says_so(repository, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    assert state.git_state(repository) == UNKNOWN


def test_a_tree_without_commits_says_so(repository):
    git(repository, "init", "--quiet")
    assert state.git_state(repository) == UNKNOWN


def test_a_machine_without_git_says_so(committed, monkeypatch):
    monkeypatch.setenv("PATH", str(committed / "nothing here"))
    assert state.git_state(committed) == UNKNOWN


def test_the_difference_since_the_commit_is_kept_with_the_names_of_new_files(committed):
    (committed / "code.py").write_text("2")
    (committed / "dvc.lock").write_text("2")
    (committed / "new.py").write_text("a secret")
    difference = state.git_diff(committed)
    assert "-1\n" in difference
    assert "+2\n" in difference
    assert "dvc.lock" not in difference
    assert "# new file: new.py\n" in difference
    assert "a secret" not in difference
    (committed / "code.py").write_text("2\n" * 100_000)
    assert "characters of difference: left out" in state.git_diff(committed)
    assert len(state.git_diff(committed)) < 1000


def test_a_new_dvc_lock_is_no_difference(committed):
    git(committed, "rm", "--quiet", "--cached", "dvc.lock")
    git(committed, "commit", "--quiet", "-m", "without")
    assert state.git_diff(committed) == ""


def test_without_git_there_is_no_difference(repository, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    assert state.git_diff(repository) == ""


def test_a_commit_exists_or_does_not(committed):
    assert state.commit_exists(committed, git(committed, "rev-parse", "HEAD"))
    assert not state.commit_exists(committed, "0" * 40)
    assert not state.commit_exists(committed, git(committed, "rev-parse", "HEAD:code.py"))  # a blob
