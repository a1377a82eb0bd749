"""Where a result comes from: the root, git's state, the hashes of a stage's dependencies."""

import hashlib
import subprocess
from pathlib import Path

import pytest
import yaml

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.repository import dvc, provenance, workspace
from tiny_imagenet.repository import git as git_module

ROOT = Path(__file__).parents[2]


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


# --- the root ---


@pytest.fixture
def repository(tmp_path):
    """Return a folder with a dvc.yaml and a folder below it."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    return tmp_path


def test_the_root_is_found_from_the_working_directory_upwards(repository, monkeypatch):
    for folder in (repository, repository / "a" / "b"):
        monkeypatch.chdir(folder)
        assert dvc.repository_root() == repository
    assert dvc.repository_root(repository / "a") == repository


def test_the_root_is_absolute_and_without_links(repository, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(repository)
    assert dvc.repository_root(link / "a") == repository.resolve()


def test_in_the_copy_of_an_experiment_the_root_is_the_main_repositorys(repository):
    copy = repository / ".dvc" / "tmp" / "exps" / "tmp1a2b3c"
    (copy / "src").mkdir(parents=True)
    (copy / "dvc.yaml").write_text("stages: {}\n")
    assert dvc.repository_root(copy) == repository
    assert dvc.repository_root(copy / "src") == repository


def test_outside_of_a_repository_the_message_says_what_is_missing(tmp_path):
    with pytest.raises(UserError, match=r"dvc\.yaml") as caught:
        dvc.repository_root(tmp_path)
    assert str(tmp_path) in str(caught.value)


# --- git ---


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
    assert git_module.git_state(committed) == {"commit": git(committed, "rev-parse", "HEAD"), "dirty": False}


@pytest.mark.parametrize("name", ["code.py", "dvc.yaml", "new.py", "a/b/new.py"])
def test_a_changed_or_new_file_makes_the_tree_dirty(name, committed):
    (committed / name).write_text("2")
    assert git_module.git_state(committed)["dirty"] is True


def test_a_removed_and_a_staged_file_make_the_tree_dirty(committed):
    (committed / "code.py").unlink()
    assert git_module.git_state(committed)["dirty"] is True
    git(committed, "checkout", "code.py")
    (committed / "code.py").write_text("2")
    git(committed, "add", "code.py")
    assert git_module.git_state(committed)["dirty"] is True


def test_dvc_lock_and_ignored_files_do_not_make_the_tree_dirty(committed):
    (committed / "dvc.lock").write_text("2")
    (committed / "data").mkdir()
    (committed / "data" / "images.npy").write_text("2")
    assert git_module.git_state(committed)["dirty"] is False


UNKNOWN = {"commit": None, "dirty": None}


def test_a_tree_without_git_says_so(repository, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    assert git_module.git_state(repository) == UNKNOWN


def test_a_tree_without_commits_says_so(repository):
    git(repository, "init", "--quiet")
    assert git_module.git_state(repository) == UNKNOWN


def test_a_machine_without_git_says_so(committed, monkeypatch):
    monkeypatch.setenv("PATH", str(committed / "nothing here"))
    assert git_module.git_state(committed) == UNKNOWN


def test_the_difference_since_the_commit_is_kept_with_the_names_of_new_files(committed):
    (committed / "code.py").write_text("2")
    (committed / "dvc.lock").write_text("2")
    (committed / "new.py").write_text("a secret")
    difference = git_module.git_diff(committed)
    assert "-1\n" in difference
    assert "+2\n" in difference
    assert "dvc.lock" not in difference
    assert "# new file: new.py\n" in difference
    assert "a secret" not in difference
    (committed / "code.py").write_text("2\n" * 100_000)
    assert "characters of difference: left out" in git_module.git_diff(committed)
    assert len(git_module.git_diff(committed)) < 1000


def test_a_new_dvc_lock_is_no_difference(committed):
    git(committed, "rm", "--quiet", "--cached", "dvc.lock")
    git(committed, "commit", "--quiet", "-m", "without")
    assert git_module.git_diff(committed) == ""


def test_a_workspace_has_one_name_that_moves_with_it(tmp_path, monkeypatch):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    name = workspace.workspace()
    assert workspace.workspace() == name
    (tmp_path / "one").rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert workspace.workspace() == name
    monkeypatch.chdir(tmp_path / "two")
    assert workspace.workspace() != name
    assert [path.name for path in Path("checkpoints").iterdir()] == ["workspace"]


def test_without_git_there_is_no_difference(repository, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(repository.parent))
    assert git_module.git_diff(repository) == ""


def test_a_commit_exists_or_does_not(committed):
    assert git_module.commit_exists(committed, git(committed, "rev-parse", "HEAD"))
    assert not git_module.commit_exists(committed, "0" * 40)
    assert not git_module.commit_exists(committed, git(committed, "rev-parse", "HEAD:code.py"))  # a blob


def test_tags_of_a_run_say_where_it_comes_from():
    record = {
        "stage": "train@model_1",
        "git": {"commit": None, "dirty": None},
        "hashes": {"params": "12", "data": "34"},
        "device": "CPU",
        "platform": "Linux",
        "dependencies": {"a.py": "56"},
        "versions": {"keras": "3"},
    }
    assert provenance.run_tags(record) == {
        "dvc.stage": "train@model_1", "git.commit": "none", "git.dirty": "unknown", "params_hash": "12",
        "data_hash": "34", "hardware": "CPU", "platform": "Linux", "dependency.a.py": "56", "version.keras": "3",
    }  # fmt: skip
    dirty = record | {"git": {"commit": "78", "dirty": True}}
    assert provenance.run_tags(dirty)["git.commit"] == "78"
    assert provenance.run_tags(dirty)["git.dirty"] == "true"


def test_the_environment_has_another_hash_with_another_package(tmp_path, monkeypatch):
    before = provenance.environment_hash()
    assert provenance.environment_hash() == before
    package = tmp_path / "some_package-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: some-package\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert provenance.environment_hash() != before


# --- hashes ---

STAGES = {
    "stages": {
        "cache": {"cmd": "x", "deps": ["data/one.bin", "src"], "outs": ["out"]},
        "train": {"foreach": ["m1", "m2"], "do": {"cmd": "x ${item}", "deps": ["models/${item}/a.py", "data/one.bin"]}},
        "replicate": {
            "matrix": {"model": "${replicates.models}", "seed": "${replicates.seeds}"},
            "cmd": "x ${item.model}-${item.seed}",
            "deps": ["models/${item.model}/a.py", "models/${item.model}-${item.seed}/b.py"],
        },
        "download": {"cmd": "x"},
    }
}


@pytest.fixture
def pipeline(tmp_path):
    """Return a folder with a dvc.yaml of three stages, and what they depend on."""
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(STAGES))
    for name in ("data/one.bin", "src/a.py", "src/b/c.py", "models/m1/a.py", "models/m2/a.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def test_a_files_hash_is_its_md5_which_is_dvcs(pipeline):
    expected = {"data/one.bin": md5(b"data/one.bin"), "models/m1/a.py": md5(b"models/m1/a.py")}
    assert dvc.dependency_hashes("train@m1", pipeline) == expected


def test_each_model_has_its_own_dependencies(pipeline):
    assert set(dvc.dependency_hashes("train@m2", pipeline)) == {"data/one.bin", "models/m2/a.py"}


def test_a_replicate_depends_on_its_models_files_and_on_its_own(pipeline):
    own = pipeline / "models" / "m1-7" / "b.py"
    own.parent.mkdir()
    own.write_bytes(b"own")
    assert dvc.dependency_hashes("replicate@m1-7", pipeline) == {
        "models/m1/a.py": md5(b"models/m1/a.py"),
        "models/m1-7/b.py": md5(b"own"),
    }


def test_the_working_directory_is_the_default(pipeline, monkeypatch):
    monkeypatch.chdir(pipeline)
    assert dvc.dependency_hashes("cache") == dvc.dependency_hashes("cache", pipeline)


def test_a_stage_without_dependencies_has_no_hashes(pipeline):
    assert dvc.dependency_hashes("download", pipeline) == {}


def test_a_missing_dependency_is_left_out(pipeline):
    (pipeline / "data" / "one.bin").unlink()
    assert set(dvc.dependency_hashes("train@m1", pipeline)) == {"models/m1/a.py"}


def test_the_committed_pipelines_stages_have_hashes_of_what_they_depend_on():
    hashes = dvc.dependency_hashes("train@model_2", ROOT)
    assert hashes["stages/train.py"] == md5((ROOT / "stages" / "train.py").read_bytes())
    assert not any("$" in path or "model_1" in path for path in hashes)


def test_a_lock_that_was_cut_short_is_removed_and_a_whole_one_stays(tmp_path):
    whole = (ROOT / "dvc.lock").read_text()
    assert not dvc.remove_broken_lock(tmp_path)  # none there yet
    (tmp_path / "dvc.lock").write_text(whole)
    assert not dvc.remove_broken_lock(tmp_path)
    assert (tmp_path / "dvc.lock").read_text() == whole
    for broken in (whole[: whole.index("    cmd:") + 6], "", "stages:\n  download:\n", whole.replace("cmd", "cm")):
        (tmp_path / "dvc.lock").write_text(broken)
        assert dvc.remove_broken_lock(tmp_path)
        assert not (tmp_path / "dvc.lock").exists()


def test_a_lock_that_is_just_being_written_stays(tmp_path, monkeypatch):
    """DVC empties it and then writes it, in a tenth of a second."""
    path, whole = tmp_path / "dvc.lock", "schema: '2.0'\nstages: {}\n"
    path.write_text(whole[:7])
    monkeypatch.setattr(dvc.time, "sleep", lambda _: path.write_text(whole))
    assert not dvc.remove_broken_lock(tmp_path)
    assert path.read_text() == whole


def test_a_stage_that_fails_is_named_and_dvc_is_stopped_with_who_has_started_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvc, "repro_command", lambda *_, **__: ["sh", "-c", "exit 7"])
    with pytest.raises(UserError, match=r"`dvc repro cache` failed with exit code 7, see above"):
        dvc.repro("cache")

    def interrupt(_: float) -> None:
        if Path("begun").exists():
            raise SystemExit(130)

    stage = "trap 'sleep 0.5; touch written; exit 130' INT; touch begun; while :; do sleep 0.1; done"
    monkeypatch.setattr(dvc, "repro_command", lambda *_, **__: ["sh", "-c", stage])
    monkeypatch.setattr(dvc.time, "sleep", interrupt)
    with pytest.raises(SystemExit):
        dvc.repro("cache")
    assert Path("written").exists()


def test_the_images_of_now_are_what_dvc_has_noted_of_the_cache(tmp_path):
    assert dvc.noted_images(tmp_path) == {}
    entries = {"deps": [("data/images/val.zip", "1"), ("stages/cache.py", "2")], "outs": [("data/cache/val.npy", "3")]}
    locked = {kind: [{"path": path, "md5": md5} for path, md5 in found] for kind, found in entries.items()}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"cache": locked}}))
    assert dvc.noted_images(tmp_path) == {"data/cache/val.npy": "3"}
