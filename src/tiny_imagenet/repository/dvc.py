"""DVC: the repository's root, what dvc.lock has, hashes of dependencies, and `dvc repro` as a command."""

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
    path = cache_path(digest)
    return path if path.is_file() and md5(path) == digest.removesuffix(".dir") else None


def cache_path(digest: str) -> Path:
    """Return where DVC's cache has, or would have, the file with this MD5."""
    return _cache_folder(Path.cwd()) / "files" / "md5" / digest[:2] / digest[2:]


@cache
def _cache_folder(folder: Path) -> Path:
    """Return DVC's cache, which may be outside of the repository and shared; DVC is asked once for each folder."""
    default = repository_root(folder) / ".dvc" / "cache"
    if not default.parent.is_dir():
        return default
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "cache", "dir"], cwd=folder, check=False, capture_output=True, text=True
    )
    answer = done.stdout.strip()
    return (folder / answer) if done.returncode == 0 and answer else default


def remove_broken_lock(root: Path) -> bool:
    """Remove a dvc.lock that is cut short, and return whether it was.

    DVC writes it in place: killed at that moment, it leaves a file that it refuses to read from then on. Nothing is
    lost with it, since DVC's run cache still knows what each stage made from what. One that a DVC is just writing
    looks the same, and another a second later.
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
    """Return what a text holds, by the parser in C where PyYAML has it: the other takes 0.2 s for dvc.lock."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(text, Loader=loader)  # noqa: S506 - both are safe ones


def repro_command(*stages: str, alone: bool = False) -> list[str]:
    """Return the command that brings stages up to date; `alone`: without what they depend on.

    DVC locks the repository while it looks and while it notes, not while a stage runs: several such commands work at
    once, and wait for each other where they have to.
    """
    single = ["--single-item"] if alone else []
    return [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *single, *stages]


def repro_environment() -> dict[str, str]:
    """Return the environment in which DVC's stages find this Python."""
    return dict(os.environ) | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}


def run_repro(
    *stages: str,
    lock: Path,
    alone: bool = False,
    root: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Have DVC bring stages up to date, as `repro_command`, and return its exit code.

    However this process ends, the watchdog ends DVC and its stages, too, and holds `lock` until then. Stopped by
    Ctrl-C, it returns when they have ended; DVC may be writing dvc.lock.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "tiny_imagenet.repository.watchdog", str(lock), *repro_command(*stages, alone=alone)],
        cwd=root,
        env=repro_environment() | dict(environment or {}),
        stdin=subprocess.PIPE,
    )
    assert process.stdin is not None  # noqa: S101 - a pipe was asked for
    try:
        while process.poll() is None:  # Ray's interrupt does not wake up a process that waits
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        process.stdin.close()
        process.wait()
    return process.returncode


def repro(*stages: str, alone: bool = False) -> None:
    """Bring stages up to date in the working directory; raises UserError where one fails.

    A dvc.lock that is cut short is removed first.
    """
    if remove_broken_lock(Path.cwd()):
        say("dvc.lock was cut short (DVC was killed as it wrote it): removed; DVC makes it anew from its cache")
    code = run_repro(*stages, lock=CHECKPOINTS / "dvc.worker.lock", alone=alone)
    if code:
        raise UserError(f"`dvc repro {' '.join(stages)}` failed with exit code {code}, see above")


def dependency_hashes(job: Job, root: Path | None = None) -> dict[str, str]:
    """Return path -> MD5 of each dependency that dvc.yaml gives the training of a job, as dvc.lock has them.

    A folder has DVC's hash of the folder, so that data and code are part of what decides a training. A dependency
    that does not exist is left out.
    """
    root = root or Path.cwd()
    stage, _, _ = job.train_stage.partition("@")
    paths: list[str] = _yaml((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["deps"]
    for placeholder, value in {"${key}": job.name, "${item.model}": job.model}.items():
        paths = [path.replace(placeholder, value) for path in paths]
    hashes = {path: path_md5(root / path) for path in sorted(paths)}
    return {path: digest for path, digest in hashes.items() if digest is not None}


def locked_files(root: Path, stage: str, kinds: Sequence[str] = ("deps", "outs")) -> dict[str, str]:
    """Return path -> MD5 of each dependency and output that dvc.lock has of a stage, or of one kind alone.

    Raises:
        UserError: dvc.lock is missing or broken, or does not have the stage.
    """
    path = root / "dvc.lock"
    try:
        locked = _yaml(path.read_text(encoding="utf-8"))["stages"][stage]
        return {entry["path"]: entry["md5"] for kind in kinds for entry in locked.get(kind, [])}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} has no record of {stage} ({error!r}); run `dvc repro`") from None


def locked_images(root: Path) -> str | None:
    """Return the hash that dvc.lock has of the packed images, or None if it has none."""
    try:
        return locked_files(root, "cache").get(CACHE.as_posix())
    except UserError:
        return None


def path_md5(path: Path) -> str | None:
    """Return the MD5 that dvc.lock would have of a file or of a folder, from its bytes; None if it does not exist."""
    if path.is_dir():
        return folder_md5(path)
    return md5(path) if path.is_file() else None


def folder_md5(folder: Path) -> str:
    """Return the hash that dvc.lock would have of a folder, without what .dvcignore names."""
    entries = [{"md5": digest, "relpath": name} for name, digest in folder_files(folder).items()]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


def folder_files(folder: Path) -> dict[str, str]:
    """Return path -> MD5 of each file in a folder and below, sorted, without what .dvcignore names."""
    return {name: digest for name, digest in hashes_below(folder).items() if not _is_ignored(name)}


def _is_ignored(name: str) -> bool:
    """Return whether .dvcignore leaves out this path; tests/repository/test_dvc.py compares the two."""
    return any(fnmatch(part, pattern) for part in name.split("/") for pattern in _IGNORED)


def cached_folder(digest: str) -> dict[str, str]:
    """Return path -> MD5 of each file of a folder that DVC has in its cache under this hash; empty if it has not."""
    listing = cached_file(digest)
    if listing is None:
        return {}
    return {entry["relpath"]: entry["md5"] for entry in json.loads(listing.read_text(encoding="utf-8"))}


def changed_since_lock(root: Path) -> list[str]:
    """Return what `dvc status` finds to differ from dvc.lock, a line for each: stage, kind, path, how.

    Raises:
        UserError: DVC fails.
    """
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "--json"], cwd=root, check=False, capture_output=True, text=True
    )
    try:
        found: dict[str, list[Any]] = json.loads(done.stdout)
    except ValueError:
        raise UserError(f"`dvc status` failed: {done.stderr.strip() or done.stdout.strip()}") from None
    lines = []
    for stage, changes in found.items():
        for change in changes:
            if not isinstance(change, dict):
                lines.append(f"{stage}: {change}")
                continue
            for kind, paths in change.items():
                lines += [f"{stage}: {kind}: {path}: {how}" for path, how in paths.items()]
    return lines
