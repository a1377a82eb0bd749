"""Where a result comes from: git's commit, the hashes of a stage's dependencies. The only file that knows DVC."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tiny_imagenet.errors import UserError
from tiny_imagenet.files import md5

_EXPERIMENTS = (".dvc", "tmp", "exps")


def repository_root(start: Path | None = None) -> Path:
    """Return the repository's root, found from the working directory.

    In the temporary copy that `dvc exp run --temp` works in, it is the main repository's, where the MLflow store is.

    Raises:
        UserError: there is no `dvc.yaml` here or above.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            parts = folder.parts
            for place in range(len(parts) - len(_EXPERIMENTS)):
                if parts[place : place + 3] == _EXPERIMENTS:
                    return Path(*parts[:place])
            return folder
    raise UserError(f"no dvc.yaml in {start} or above: run this inside the repository")


def cached_file(digest: str | None) -> Path | None:
    """Return the file in DVC's cache that has this MD5, if there is one and it is sound."""
    if digest is None:
        return None
    path = repository_root() / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    return path if path.is_file() and md5(path) == digest else None


def remove_broken_lock(root: Path) -> bool:
    """Remove a dvc.lock that is cut short, and return whether it was.

    DVC writes it in place: killed at that moment, it leaves a file that it refuses to read from then on. Nothing is
    lost with it, since DVC's run cache still knows what each stage made from what.
    """
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    path = root / "dvc.lock"
    if not path.is_file():
        return False
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, Invalid):
        path.unlink()
        return True
    return False


def git_state(root: Path) -> dict[str, str]:
    """Return `git.commit` and `git.dirty`; dvc.lock, which every run rewrites, does not make a tree dirty."""
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude)dvc.lock")
    except (OSError, subprocess.CalledProcessError):
        return {"git.commit": "none", "git.dirty": "unknown"}
    return {"git.commit": commit.strip(), "git.dirty": str(bool(changes.strip())).lower()}


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def dependency_hashes(stage: str, folder: Path | None = None) -> dict[str, str]:
    """Return path -> MD5 of each dependency that dvc.yaml gives a stage such as "train@model_2".

    Training depends on files alone. One that is missing is left out.
    """
    folder = folder or Path.cwd()
    name, _, item = stage.partition("@")
    definition: dict[str, Any] = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
    dependencies = [path.replace("${item}", item) for path in definition.get("do", definition).get("deps", [])]
    return {path: md5(folder / path) for path in sorted(dependencies) if (folder / path).is_file()}
