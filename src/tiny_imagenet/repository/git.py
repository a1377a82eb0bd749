"""TODO."""

import subprocess
from pathlib import Path
from typing import Any

_MOST_DIFF = 100_000


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
