"""DVC: the root of the repository, dvc.lock, hashes of dependencies, the cache, and `dvc repro`."""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import hashes_below, md5
from tiny_imagenet.common.progress import say
from tiny_imagenet.config.jobs import Job
from tiny_imagenet.repository.paths import CACHE, CHECKPOINTS

_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_WRITE = 1
_EXPERIMENTS = (".dvc", "tmp", "exps")
_IGNORED = ("*.partial", "*.partial.keras", "__pycache__", ".*.tmp")
"""The patterns of .dvcignore."""


def repository_root(start: Path | None = None) -> Path:
    """Return the root of the repository that has `start`, by default the working directory.

    In the temporary copy of `dvc exp run --temp`, return the root of the main repository: the MLflow store is there.
    Raise UserError if neither `start` nor a folder above it has a `dvc.yaml`.
    """
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        if (folder / "dvc.yaml").is_file():
            parts = folder.parts
            for index in range(len(parts) - len(_EXPERIMENTS)):
                if parts[index : index + 3] == _EXPERIMENTS:
                    return Path(*parts[:index])
            return folder
    raise UserError(f"no dvc.yaml in {start} or above: run this inside the repository")


def _dvc(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of DVC in a folder, and return its exit code and output."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)


def cached_file(digest: str | None) -> Path | None:
    """Return the file in DVC's cache with this MD5, or None if it is missing or damaged."""
    if digest is None:
        return None
    path = cache_path(digest)
    return path if path.is_file() and md5(path) == digest.removesuffix(".dir") else None


def cache_path(digest: str) -> Path:
    """Return the path in DVC's cache of the file with this MD5, which need not exist."""
    return _cache_folder(Path.cwd()) / "files" / "md5" / digest[:2] / digest[2:]


@cache
def _cache_folder(folder: Path) -> Path:
    """Return the folder of DVC's cache, which may be shared and outside of the repository. Asks DVC once per folder."""
    default = repository_root(folder) / ".dvc" / "cache"
    if not default.parent.is_dir():
        return default
    done = _dvc("cache", "dir", folder=folder)
    answer = done.stdout.strip()
    return (folder / answer) if done.returncode == 0 and answer else default


def remove_broken_lock(root: Path) -> bool:
    """Remove dvc.lock if it is truncated, and return whether it was.

    DVC overwrites dvc.lock in place. If it is killed while it writes, it cannot read the file afterwards. Nothing is
    lost: DVC's run cache knows the outputs of each stage. A file that DVC is writing now looks truncated too, but
    changes within a second.
    """
    path = root / "dvc.lock"
    if not path.is_file():
        return False
    content = path.read_bytes()
    if not _is_broken_lock(content):
        return False
    time.sleep(_SECONDS_TO_WRITE)
    if path.read_bytes() != content:
        return False
    path.unlink()
    return True


def _is_broken_lock(content: bytes) -> bool:
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(_yaml(content.decode("utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError, Invalid):
        return True
    return False


def _yaml(text: str) -> Any:
    """Return the content of a YAML text. Use the parser in C if PyYAML has it: the other takes 0.2 s for dvc.lock."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(text, Loader=loader)  # noqa: S506 - both are safe


def repro_command(*stages: str, alone: bool = False) -> list[str]:
    """Return the command that brings stages up to date; if `alone`, without the stages that they depend on.

    Several such commands may run at once. DVC locks the repository while it reads and writes its files, but not while
    a stage runs.
    """
    single = ["--single-item"] if alone else []
    return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *single, *stages]


def run_repro(
    *stages: str,
    lock: Path,
    alone: bool,
    root: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run `repro_command` and return its exit code.

    If this process exits for any reason, the watchdog stops DVC and its stages, and holds `lock` until they have
    stopped. On Ctrl-C, wait for them: DVC may be writing dvc.lock.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # the stages run this Python
    process = subprocess.Popen(
        [sys.executable, "-m", "tiny_imagenet.repository.watchdog", str(lock), *repro_command(*stages, alone=alone)],
        cwd=root,
        env=os.environ | {"PATH": path} | dict(environment or {}),
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None  # noqa: S101 - stdin is a pipe
    try:
        while process.poll() is None:  # Ray's interrupt does not end a wait
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        process.stdin.close()
        process.wait()
    return process.returncode


def repro(*stages: str, alone: bool = False) -> None:
    """Remove a truncated dvc.lock, then bring stages up to date; raise UserError if one fails."""
    if remove_broken_lock(Path.cwd()):
        say("dvc.lock was truncated, because DVC was killed while it wrote it: removed; DVC restores it from its cache")
    code = run_repro(*stages, lock=CHECKPOINTS / "dvc.worker.lock", alone=alone)
    if code:
        raise UserError(f"`dvc repro {' '.join(stages)}` failed with exit code {code}, see above")


def dependency_hashes(job: Job, root: Path | None = None) -> dict[str, str]:
    """Return path -> MD5 of each dependency of a job's training in dvc.yaml, as in dvc.lock.

    A folder has DVC's hash of the folder, so that data and code are part of a training's key. A missing dependency is
    omitted.
    """
    root = root or Path.cwd()
    stage, _, _ = job.train_stage.partition("@")
    paths: list[str] = _yaml((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["deps"]
    for placeholder, value in {"${key}": job.name, "${item.model}": job.model}.items():
        paths = [path.replace(placeholder, value) for path in paths]
    hashes = {path: path_md5(root / path) for path in sorted(paths)}
    return {path: digest for path, digest in hashes.items() if digest is not None}


def locked_files(root: Path, stage: str, kinds: Sequence[str] = ("deps", "outs")) -> dict[str, str]:
    """Return path -> MD5 of the dependencies and outputs of a stage in dvc.lock; of one kind if `kinds` says so.

    Raise UserError if dvc.lock is missing or damaged, or does not have the stage.
    """
    path = root / "dvc.lock"
    try:
        locked = _yaml(path.read_text(encoding="utf-8"))["stages"][stage]
        return {entry["path"]: entry["md5"] for kind in kinds for entry in locked.get(kind, [])}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} has no record of {stage} ({error!r}); run `dvc repro`") from None


def locked_images(root: Path) -> str | None:
    """Return the hash of the packed images in dvc.lock, or None if it has none."""
    try:
        return locked_files(root, "cache").get(CACHE.as_posix())
    except UserError:
        return None


def path_md5(path: Path) -> str | None:
    """Return the MD5 that dvc.lock would have for a file or folder as it is now; None if it does not exist."""
    if path.is_dir():
        entries = [{"md5": digest, "relpath": name} for name, digest in folder_files(path).items()]
        return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"
    return md5(path) if path.is_file() else None


def folder_files(folder: Path) -> dict[str, str]:
    """Return path -> MD5 of each file below a folder, sorted, without those that .dvcignore excludes."""

    def is_ignored(name: str) -> bool:
        return any(fnmatch(part, pattern) for part in name.split("/") for pattern in _IGNORED)

    return {name: digest for name, digest in hashes_below(folder).items() if not is_ignored(name)}


def cached_folder(digest: str) -> dict[str, str]:
    """Return path -> MD5 of each file of the folder with this hash, from DVC's cache; empty if it is not there."""
    listing = cached_file(digest)
    if listing is None:
        return {}
    return {entry["relpath"]: entry["md5"] for entry in json.loads(listing.read_text(encoding="utf-8"))}


def changed_since_lock(root: Path) -> list[str]:
    """Return a line for each difference from dvc.lock that `dvc status` reports: stage, kind, path, difference.

    Raise UserError if DVC fails.
    """
    done = _dvc("status", "--json", folder=root)
    try:
        status: dict[str, list[Any]] = json.loads(done.stdout)
    except ValueError:
        raise UserError(f"`dvc status` failed: {done.stderr.strip() or done.stdout.strip()}") from None
    lines = []
    for stage, changes in status.items():
        for change in changes:
            if not isinstance(change, dict):
                lines.append(f"{stage}: {change}")
                continue
            for kind, paths in change.items():
                lines += [f"{stage}: {kind}: {path}: {difference}" for path, difference in paths.items()]
    return lines
