"""Where a result comes from: git's commit, the hashes of a stage's dependencies. The only file that knows DVC."""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from uuid import uuid4

import yaml

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import fingerprint, md5
from tiny_imagenet.common.progress import say

_MOST_DIFF = 100_000
_SECONDS_BETWEEN_LOOKS = 0.1
_SECONDS_TO_WRITE = 1
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
    return path if path.is_file() and md5(path) == digest.removesuffix(".dir") else None


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

    However this process ends, DVC and its stages end, too: `lifeline` sees to it, and holds `lock` until then. Stopped
    by Ctrl-C, it returns when they have ended; DVC may be writing dvc.lock.
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
    code = run_repro(*stages, lock=Path("checkpoints") / "dvc.worker.lock", alone=alone)
    if code:
        raise UserError(f"`dvc repro {' '.join(stages)}` failed with exit code {code}, see above")


def git_state(root: Path) -> dict[str, Any]:
    """Return `commit` and `dirty`, None where git knows nothing.

    dvc.lock, which every run rewrites, does not make a tree dirty.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude)dvc.lock")
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}


def git_diff(root: Path) -> str:
    """Return what a dirty tree has changed since its commit, the names of new files too; at most 100 kB of it."""
    try:
        difference = _git(root, "diff", "HEAD", "--", ".", ":(exclude)dvc.lock")
        new = _git(root, "ls-files", "--others", "--exclude-standard", "--", ".", ":(exclude)dvc.lock")
    except (OSError, subprocess.CalledProcessError):
        return ""
    if len(difference) > _MOST_DIFF:
        difference = f"# {len(difference):,} characters of difference: left out\n"
    return difference + "".join(f"# new file: {name}\n" for name in new.splitlines()[:1000])


def commit_exists(root: Path, commit: str) -> bool:
    """Return whether git has this commit."""
    try:
        _git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True)
    return done.stdout.decode(errors="replace")  # a file may have any bytes


def dependency_hashes(stage: str, folder: Path | None = None) -> dict[str, str]:
    """Return path -> MD5 of each dependency that dvc.yaml gives a stage such as "train@model_2".

    Training depends on files alone. One that is missing is left out.
    """
    folder = folder or Path.cwd()
    name, _, item = stage.partition("@")
    definition: dict[str, Any] = _yaml((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
    model, _, seed = item.partition("-")
    values = {"${item}": item, "${item.model}": model, "${item.seed}": seed}
    dependencies = definition.get("do", definition).get("deps", [])
    for placeholder, value in values.items():
        dependencies = [path.replace(placeholder, value) for path in dependencies]
    return {path: md5(folder / path) for path in sorted(dependencies) if (folder / path).is_file()}


def locked_files(root: Path, stage: str) -> dict[str, str]:
    """Return path -> MD5 of each file that dvc.lock has as a dependency or an output of a stage.

    Raises:
        UserError: dvc.lock is missing or broken, or does not have the stage.
    """
    path = root / "dvc.lock"
    try:
        locked = _yaml(path.read_text(encoding="utf-8"))["stages"][stage]
        return {entry["path"]: entry["md5"] for kind in ("deps", "outs") for entry in locked.get(kind, [])}
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} has no record of {stage} ({error!r}); run `dvc repro`") from None


def noted_images(root: Path) -> dict[str, str]:
    """Return path -> MD5 of what the stage `cache` made, as dvc.lock has it; empty where it has nothing."""
    try:
        return {path: digest for path, digest in locked_files(root, "cache").items() if path.startswith("data/cache/")}
    except UserError:
        return {}


def folder_md5(folder: Path) -> str:
    """Return the hash that dvc.lock would have of a folder."""
    entries = [
        {"md5": md5(path), "relpath": path.relative_to(folder).as_posix()}
        for path in sorted(folder.rglob("*"), key=lambda path: path.relative_to(folder).as_posix())
        if path.is_file()
    ]
    return hashlib.md5(json.dumps(entries, sort_keys=True).encode(), usedforsecurity=False).hexdigest() + ".dir"


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


def environment_hash() -> str:
    """Return what differs where Python or any installed package has another version."""
    installed = {found.metadata["Name"]: found.version for found in distributions()}
    return fingerprint({"python": platform.python_version(), "packages": installed})


def provenance(stage: str) -> dict[str, Any]:
    """Return where the result of a stage, begun now in the working directory, comes from.

    Keys: `stage`; `git`: `commit`, `dirty`, `diff`; `dependencies`: path -> MD5; `hashes`: `data`, `environment`;
    `platform`.
    """
    dependencies = dependency_hashes(stage)
    return {
        "stage": stage,
        "git": git_state(Path.cwd()) | {"diff": git_diff(Path.cwd())},
        "dependencies": dependencies,
        "hashes": {
            "data": fingerprint({path: digest for path, digest in dependencies.items() if path.startswith("data/")}),
            "environment": environment_hash(),
        },
        "platform": f"{platform.platform()} on {platform.node()}",
    }


def workspace() -> str:
    """Return the name of this working directory, by which the runs that were made here are told apart.

    It is drawn once, and stays when the folder is moved or the machine gets another name.
    """
    path = Path("checkpoints/workspace")
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        name = uuid4().hex
        drawn = path.with_name(f"{name}.partial")
        drawn.write_text(name, encoding="utf-8")
        with suppress(FileExistsError):  # another process was first
            path.hardlink_to(drawn)
        drawn.unlink()
    return path.read_text(encoding="utf-8")


def run_tags(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of an MLflow run, from what run.json has of it."""
    git = record["git"]
    return {
        "dvc.stage": record["stage"],
        "git.commit": git["commit"] or "none",
        "git.dirty": "unknown" if git["dirty"] is None else str(git["dirty"]).lower(),
        **{f"{name}_hash": digest for name, digest in record["hashes"].items()},
        "hardware": record["device"],
        "platform": record["platform"],
        **{f"dependency.{path}": digest for path, digest in record["dependencies"].items()},
        **{f"version.{name}": version for name, version in record["versions"].items()},
    }
