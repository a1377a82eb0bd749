"""The commit and the changes that a training records."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.repository import git as state
from tiny_imagenet.repository.records import GitState


@pytest.fixture
def repository(tmp_path):
    """Return a folder with a dvc.yaml and a folder below it."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    # Without the user's configuration: no signing, no hooks.
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


def test_a_clean_tree_has_its_commit(committed):
    assert state.git_state(committed) == GitState(commit=git(committed, "rev-parse", "HEAD"), dirty=False)


@pytest.mark.parametrize("name", ["code.py", "dvc.yaml", "new.py", "a/b/new.py"])
def test_a_changed_or_new_file_makes_the_tree_dirty(name, committed):
    (committed / name).write_text("2")
    assert state.git_state(committed).dirty is True


def test_removed_and_staged_files_make_the_tree_dirty(committed):
    (committed / "code.py").unlink()
    assert state.git_state(committed).dirty is True
    git(committed, "checkout", "code.py")
    (committed / "code.py").write_text("2")
    git(committed, "add", "code.py")
    assert state.git_state(committed).dirty is True


def test_dvc_lock_and_ignored_files_do_not_make_the_tree_dirty(committed):
    (committed / "dvc.lock").write_text("2")
    (committed / "data").mkdir()
    (committed / "data" / "images.npy").write_text("2")
    assert state.git_state(committed).dirty is False


UNKNOWN = GitState(commit=None, dirty=None)


def test_without_a_repository_the_commit_is_none(repository, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    assert state.git_state(repository) == UNKNOWN


def test_a_repository_without_commits_has_a_problem(repository):
    git(repository, "init", "--quiet")
    assert "HEAD has no commit: there is none yet" in (state.git_state(repository).problem or "")


@pytest.mark.parametrize("content", ["1" * 40, "not a commit"])
def test_a_damaged_branch_is_a_problem(committed, content):
    branch = committed / ".git" / (committed / ".git/HEAD").read_text().split()[1]
    branch.write_text(content + "\n")
    assert "`git fsck` reports the damage" in (state.git_state(committed).problem or "")


@pytest.mark.parametrize("damage", [
    lambda folder: (folder / "HEAD").write_text(""),
    lambda folder: (folder / "HEAD").write_bytes(bytes(20)),
    lambda folder: (folder / "HEAD").unlink(),
    lambda folder: (folder / "objects").rename(folder / "gone"),
    lambda folder: (folder / "refs").rename(folder / "gone"),
])  # fmt: skip
def test_a_damaged_repository_is_not_taken_for_none(committed, damage):
    commit = git(committed, "rev-parse", "HEAD")
    damage(committed / ".git")
    record = state.git_state(committed)
    assert (record.commit, record.dirty) == (None, None)
    assert "is it damaged" in record.problem
    with pytest.raises(UserError, match="is it damaged"):
        state.commit_exists(committed, commit)


def test_a_folder_in_a_damaged_repository_has_its_problem(committed):
    (folder := committed / "project").mkdir()
    (committed / ".git" / "HEAD").write_text("")
    assert "is it damaged" in state.git_state(folder).problem


def test_a_repository_that_git_does_not_look_for_is_none(committed, monkeypatch):
    (folder := committed / "project").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(committed))
    assert state.git_state(folder) == UNKNOWN


def test_without_git_the_commit_is_none(committed, monkeypatch):
    monkeypatch.setenv("PATH", str(committed / "nothing here"))
    assert state.git_state(committed) == UNKNOWN


def test_changes_since_the_commit_are_recorded_with_the_names_of_new_files(committed):
    (committed / "code.py").write_text("2")
    (committed / "dvc.lock").write_text("2")
    (committed / "new.py").write_text("a secret")
    difference = state.git_state(committed).diff
    assert "-1\n" in difference
    assert "+2\n" in difference
    assert "dvc.lock" not in difference
    assert "# new file: new.py\n" in difference
    assert "a secret" not in difference
    (committed / "code.py").write_text("2\n" * 100_000)
    assert "characters of difference: left out" in state.git_state(committed).diff
    assert len(state.git_state(committed).diff) < 1000


def test_a_new_dvc_lock_is_not_a_change(committed):
    git(committed, "rm", "--quiet", "--cached", "dvc.lock")
    git(committed, "commit", "--quiet", "-m", "without")
    assert state.git_state(committed).diff == ""


def test_without_a_repository_there_are_no_changes(repository, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    assert state.git_state(repository).diff == ""


def test_commit_exists_for_commits_only(committed):
    assert state.commit_exists(committed, git(committed, "rev-parse", "HEAD"))
    assert not state.commit_exists(committed, "0" * 40)
    assert not state.commit_exists(committed, git(committed, "rev-parse", "HEAD:code.py"))  # a blob


CONFIGURATIONS = {
    "diff.external": "false",
    "diff.noprefix": "true",
    "diff.mnemonicPrefix": "true",
    "diff.srcPrefix": "x/",
    "diff.context": "0",
    "diff.interHunkContext": "9",
    "diff.algorithm": "patience",
    "diff.renames": "copies",
    "diff.relative": "true",
    "diff.wordRegex": ".",
    "diff.suppressBlankEmpty": "true",
    "diff.colorMoved": "zebra",
    "color.ui": "always",
    "color.diff": "always",
    "core.quotePath": "true",
    "core.pager": "false",
    "core.attributesFile": "attributes",
    "diff.upper.textconv": "tr a-z A-Z <",
    "status.showUntrackedFiles": "no",
    "status.short": "true",
    "status.branch": "true",
    "status.relativePaths": "false",
    "diff.ignoreSubmodules": "all",
}


@pytest.mark.parametrize("key", CONFIGURATIONS)
def test_no_git_setting_of_the_user_changes_the_record(key, committed, tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    (home / "attributes").write_text("*.py diff=upper\n")
    (committed / "code.py").write_text("1\n\nlines of text\n\n2\n")
    (committed / "ä b.py").write_text("new\n")
    plain = state.git_state(committed)
    value = str(home / "attributes") if key == "core.attributesFile" else CONFIGURATIONS[key]
    git(home, "config", "--file", str(home / ".gitconfig"), key, value)
    if key == "diff.upper.textconv":
        (committed / ".git" / "info" / "attributes").write_text("*.py diff=upper\n")
    monkeypatch.setenv("HOME", str(home))
    assert state.git_state(committed) == plain
    assert plain.dirty is True
    assert "# new file: ä b.py\n" in plain.diff


@pytest.mark.parametrize(
    "content", [b"2\n", b"no line end", b"", b"\xe4 latin 1\n", bytes(range(256)), "ä\r\n日本\n".encode()]
)
def test_the_recorded_changes_can_be_applied(content, committed, tmp_path):
    (committed / "code.py").write_bytes(content)
    (committed / ".gitignore").unlink()
    (committed / "new.py").write_text("new\n")
    difference = state.git_state(committed).diff
    git(committed, "stash", "--quiet")
    assert (committed / "code.py").read_bytes() == b"1"
    (tmp_path / "git.diff").write_text(difference, encoding="utf-8", newline="")
    git(committed, "apply", str(tmp_path / "git.diff"))
    assert (committed / "code.py").read_bytes() == content
    assert not (committed / ".gitignore").exists()


@pytest.fixture
def other(tmp_path_factory) -> Path:
    """Return another repository, with a commit of its own."""
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "--quiet")
    git(other, "commit", "--quiet", "--allow-empty", "-m", "of another repository")
    return other


@pytest.mark.parametrize(
    ("name", "value"),
    {
        "GIT_DIR": "{other}/.git", "GIT_WORK_TREE": "{other}", "GIT_COMMON_DIR": "{other}/.git", "GIT_PREFIX": "a/",
        "GIT_INDEX_FILE": "{other}/.git/index", "GIT_OBJECT_DIRECTORY": "{other}/.git/objects",
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": "{other}/.git/objects", "GIT_NAMESPACE": "other",
        "GIT_SHALLOW_FILE": "{other}/shallow", "GIT_GRAFT_FILE": "{other}/grafts", "GIT_REPLACE_REF_BASE": "refs/x/",
        "GIT_IMPLICIT_WORK_TREE": "0", "GIT_QUARANTINE_PATH": "{other}", "GIT_INTERNAL_SUPER_PREFIX": "a/",
        "GIT_EXTERNAL_DIFF": "false", "GIT_DIFF_OPTS": "--unified=0", "GIT_LITERAL_PATHSPECS": "1",
        "GIT_ICASE_PATHSPECS": "1", "GIT_ATTR_SOURCE": "nothing", "GIT_TRACE": "1", "GIT_TRACE2": "1",
        "GIT_TRACE_SETUP": "1", "GIT_PAGER": "false", "GIT_DEFAULT_HASH": "sha256", "LANGUAGE": "de",
        "LC_ALL": "de_DE.UTF-8",
    }.items(),
)  # fmt: skip
def test_no_variable_of_git_or_of_a_hook_changes_the_record(name, value, committed, other, monkeypatch):
    (committed / "code.py").write_text("2")
    plain, commit = state.git_state(committed), git(committed, "rev-parse", "HEAD")
    monkeypatch.setenv(name, value.format(other=other))
    assert state.git_state(committed) == plain
    assert state.commit_exists(committed, commit)


def test_in_a_hook_of_another_repository_the_commit_is_that_of_this_one(committed, other):
    """git sets the variables of a hook."""
    commit, hook = git(committed, "rev-parse", "HEAD"), other / ".git" / "hooks" / "post-commit"
    script = "import sys; from pathlib import Path; from tiny_imagenet.repository.git import git_state as state"
    hook.write_text(
        f"#!/bin/sh\n'{sys.executable}' -c '{script}; print(state(Path(sys.argv[1])))' '{committed}' >found\n"
    )
    hook.chmod(0o755)
    identity = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, "commit", "--quiet", "--allow-empty", "-m", "a"], cwd=other, check=True)
    assert f"commit='{commit}' dirty=False" in (other / "found").read_text()


def test_variables_that_allow_a_repository_are_kept(committed, refusing, monkeypatch):
    """Such as in a container that allows another user's repository by variables."""
    assert "dubious ownership" in state.git_state(committed).problem
    variables = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": str(committed)}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert state.git_state(committed).commit == git(committed, "rev-parse", "HEAD")


def test_a_worktree_is_a_repository(committed, tmp_path_factory):
    tree = tmp_path_factory.mktemp("trees") / "tree"
    git(committed, "worktree", "add", "--quiet", str(tree))
    assert state.git_state(tree) == state.git_state(committed)
    (committed / ".git").rename(committed / "gone")
    assert "not a git repository" in state.git_state(tree).problem


@pytest.fixture
def refusing(committed, tmp_path_factory, monkeypatch) -> None:
    """Make git refuse each repository as one of another user, by a variable of git's own tests."""
    folder = tmp_path_factory.mktemp("refusing")
    program = folder / "git"
    program.write_text(f"#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 exec '{shutil.which('git')}' \"$@\"\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("HOME", str(folder))  # without a configured safe.directory


def test_a_repository_that_git_refuses_has_a_problem(committed, refusing):
    tree = state.git_state(committed)
    assert (tree.commit, tree.dirty, tree.diff) == (None, None, "")
    assert "dubious ownership" in tree.problem
    assert "safe.directory" in tree.problem
    with pytest.raises(UserError, match=r"git refuses to answer: .*dubious ownership"):
        state.commit_exists(committed, "0" * 40)
