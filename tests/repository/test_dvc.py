"""DVC: the root of the repository, hashes of dependencies, dvc.lock, the cache, and `dvc repro`."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from made_results import VALUES

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import parse_params
from tiny_imagenet.repository import dvc, provenance

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


def test_the_root_is_found_in_the_working_directory_or_above(repository, monkeypatch):
    for folder in (repository, repository / "a" / "b"):
        monkeypatch.chdir(folder)
        assert dvc.repository_root() == repository
    assert dvc.repository_root(repository / "a") == repository


def test_the_root_is_absolute_and_without_links(repository, tmp_path_factory):
    link = tmp_path_factory.mktemp("links") / "link"
    link.symlink_to(repository)
    assert dvc.repository_root(link / "a") == repository.resolve()


def test_in_the_copy_of_an_experiment_the_root_is_that_of_the_main_repository(repository):
    copy = repository / ".dvc" / "tmp" / "exps" / "tmp1a2b3c"
    (copy / "src").mkdir(parents=True)
    (copy / "dvc.yaml").write_text("stages: {}\n")
    assert dvc.repository_root(copy) == repository
    assert dvc.repository_root(copy / "src") == repository


def test_outside_of_a_repository_the_error_names_dvc_yaml(tmp_path):
    with pytest.raises(UserError, match=r"dvc\.yaml") as caught:
        dvc.repository_root(tmp_path)
    assert str(tmp_path) in str(caught.value)


# --- hashes ---

# Like dvc.yaml: a stage for each model, and one that differs in its matrix only.
STAGES = """
stages:
  cache: {cmd: x, deps: [data/one.bin], outs: [data/cache]}
  train: &train
    matrix: {model: "${active}"}
    cmd: x ${key}
    deps: [data/cache, "models/${item.model}/a.py", "models/${key}/b.py", src]
  replicate:
    <<: *train
    matrix: {model: "${replicates.models}", seed: "${replicates.seeds}"}
"""
PARAMS = parse_params(VALUES | {"replicates": {"models": ["model_2"], "seeds": [7]}})
MODEL, REPLICATE = PARAMS.job("model_2"), PARAMS.job("model_2-7")


@pytest.fixture
def pipeline(tmp_path):
    """Return a folder with a dvc.yaml and the dependencies of its stages."""
    (tmp_path / "dvc.yaml").write_text(STAGES)
    names = ("data/cache/one.npy", "src/a.py", "src/b/c.py", "models/model_2/a.py", "models/model_2-7/b.py")
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path


def test_missing_dependencies_are_omitted(pipeline):
    assert dvc.dependency_hashes(MODEL, pipeline) == {
        "data/cache": dvc.path_md5(pipeline / "data" / "cache"),
        "models/model_2/a.py": md5(b"models/model_2/a.py"),
        "src": dvc.path_md5(pipeline / "src"),
    }


def test_a_replicate_depends_on_the_files_of_its_model_and_on_its_own(pipeline):
    own = {"models/model_2-7/b.py": md5(b"models/model_2-7/b.py")}
    assert dvc.dependency_hashes(REPLICATE, pipeline) == dvc.dependency_hashes(MODEL, pipeline) | own


def test_dependencies_are_in_the_working_directory_by_default(pipeline, monkeypatch):
    monkeypatch.chdir(pipeline)
    assert dvc.dependency_hashes(MODEL) == dvc.dependency_hashes(MODEL, pipeline)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("a.py", "src"), ("b/c.py", "src"), ("new.py", "src"), ("one.npy", "data/cache")],
)
def test_an_edit_in_a_folder_changes_the_hash_of_that_folder_only(name, folder, pipeline):
    before = dvc.dependency_hashes(MODEL, pipeline)
    (pipeline / folder / name).write_text("edited")
    after = dvc.dependency_hashes(MODEL, pipeline)
    assert {path for path in before if after[path] != before[path]} == {folder}


def test_bytecode_and_partial_files_do_not_change_the_hash_of_a_folder(pipeline):
    before = dvc.path_md5(pipeline / "src")
    for name in ("__pycache__/a.cpython-311.pyc", "b/__pycache__/c.pyc", "a.npy.partial", ".a.tmp"):
        path = pipeline / "src" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert dvc.path_md5(pipeline / "src") == before


def test_the_hash_of_a_folder_equals_dvcs(tmp_path):
    """The order of these names as text differs from their order as paths; some are excluded by .dvcignore."""
    for name in ("a/b.py", "a.py", "a-b/c.py", "ä ö.py", "a/__pycache__/b.pyc", "x.partial"):
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    shutil.copy(ROOT / ".dvcignore", tmp_path)
    for command in (["init", "--no-scm", "--quiet"], ["add", "--quiet", "src"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=tmp_path, check=True)
    (out,) = yaml.safe_load((tmp_path / "src.dvc").read_text())["outs"]
    assert out["md5"] == dvc.path_md5(tmp_path / "src")


def test_the_ignored_patterns_are_those_of_dvcignore():
    lines = (ROOT / ".dvcignore").read_text().splitlines()
    assert sorted(line for line in lines if not line.startswith("#")) == sorted(dvc._IGNORED)


@pytest.mark.parametrize("room", ["backend", "config", "input_pipeline", "models", "training"])
def test_an_edit_in_any_room_of_a_training_changes_its_key(room, tmp_path):
    """Otherwise a checkpoint of the code before the edit would be resumed."""
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src")
    shutil.copytree(ROOT / "stages", tmp_path / "stages")

    def key() -> str:
        return provenance.training_key(MODEL, dvc.dependency_hashes(MODEL, tmp_path), {})

    before = key()
    edited = sorted((tmp_path / "src" / "tiny_imagenet" / room).glob("*.py"))[-1]
    edited.write_text(edited.read_text() + "# edited\n")
    assert key() != before


def test_a_truncated_dvc_lock_is_removed_and_a_complete_one_is_kept(tmp_path):
    whole = (ROOT / "dvc.lock").read_text()
    assert not dvc.remove_broken_lock(tmp_path)  # there is none
    (tmp_path / "dvc.lock").write_text(whole)
    assert not dvc.remove_broken_lock(tmp_path)
    assert (tmp_path / "dvc.lock").read_text() == whole
    for broken in (whole[: whole.index("    cmd:") + 6], "", "stages:\n  download:\n", whole.replace("cmd", "cm")):
        (tmp_path / "dvc.lock").write_text(broken)
        assert dvc.remove_broken_lock(tmp_path)
        assert not (tmp_path / "dvc.lock").exists()


def test_a_dvc_lock_that_is_being_written_is_kept(tmp_path, monkeypatch):
    """DVC truncates the file and then writes it, within 0.1 s."""
    path, whole = tmp_path / "dvc.lock", "schema: '2.0'\nstages: {}\n"
    path.write_text(whole[:7])
    monkeypatch.setattr(dvc.time, "sleep", lambda _: path.write_text(whole))
    assert not dvc.remove_broken_lock(tmp_path)
    assert path.read_text() == whole


def test_a_failed_stage_is_named_and_dvc_is_stopped_with_its_parent(tmp_path, monkeypatch):
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


def test_the_hash_of_the_packed_images_is_read_from_dvc_lock(tmp_path):
    assert dvc.locked_images(tmp_path) is None
    entries = {"deps": [("data/images", "1.dir"), ("stages/cache.py", "2")], "outs": [("data/cache", "3.dir")]}
    locked = {kind: [{"path": path, "md5": md5} for path, md5 in pairs] for kind, pairs in entries.items()}
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"cache": locked}}))
    assert dvc.locked_images(tmp_path) == "3.dir"


@pytest.mark.parametrize("level", ["--local", "--project"])
def test_a_file_is_found_in_the_configured_cache(level, tmp_path, monkeypatch):
    root, shared = tmp_path / "root", tmp_path / "shared cache"
    root.mkdir()
    (root / "dvc.yaml").write_text("stages: {}\n")
    monkeypatch.chdir(root)
    content = b"archive"
    for command in (["init", "--no-scm", "--quiet"], ["cache", "dir", level, str(shared)]):
        subprocess.run([sys.executable, "-m", "dvc", *command], check=True)
    kept = shared / "files" / "md5" / md5(content)[:2] / md5(content)[2:]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(content)
    assert dvc.cached_file(md5(content)) == kept
    assert dvc.cached_file(md5(b"another")) is None


def test_without_a_configuration_the_cache_is_the_default_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")
    assert dvc.cache_path("ab" + "0" * 30) == tmp_path / ".dvc" / "cache" / "files" / "md5" / "ab" / ("0" * 30)


def test_differences_from_the_lock_have_a_line_each(tmp_path):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n"
        "  one: {cmd: cp a b, deps: [a], outs: [b]}\n"
        "  two: {cmd: cp b c, deps: [b], outs: [c]}\n"
        "  always: {cmd: 'true', always_changed: true}\n"
    )
    (tmp_path / "a").write_text("1")
    subprocess.run(dvc.repro_command(), cwd=tmp_path, check=True, capture_output=True)
    assert dvc.changed_since_lock(tmp_path) == ["always: always changed"]
    (tmp_path / "a").write_text("2")
    (tmp_path / "c").unlink()
    assert sorted(dvc.changed_since_lock(tmp_path)) == [
        "always: always changed",
        "one: changed deps: a: modified",
        "two: changed outs: c: deleted",
    ]
