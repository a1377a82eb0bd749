"""The commit of a working tree and the changes since then. No setting of the user changes what git answers."""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.repository.records import GitState

_MOST_DIFF = 100_000
_MOST_NEW_FILES = 1000
_ALL_BUT_THE_LOCK = ("--", ".", ":(exclude)dvc.lock")
"""dvc.lock does not make a tree dirty: each run rewrites it."""
# Variables by which git finds itself, its configuration and the repository. All others are removed: those of a hook
# name another repository or index, and some change the output.
_KEPT_VARIABLES = ("GIT_CONFIG", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM", "GIT_EXEC_PATH")
_SETTINGS = (
    "core.quotePath=false",
    "diff.orderFile=/dev/null",
    "diff.suppressBlankEmpty=false",
    "core.fsmonitor=false",
)
_DIFF = (
    "diff", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--no-relative", "--full-index", "--binary",
    "--patch", "--unified=3", "--inter-hunk-context=0", "--diff-algorithm=myers", "--submodule=short",
    "--ignore-submodules=none", "--ws-error-highlight=none", "--src-prefix=a/", "--dst-prefix=b/", "HEAD",
)  # fmt: skip


class _AbsentError(Exception):
    """git is not installed, or there is no repository."""


class _RefusedError(Exception):
    """There is a repository, but git does not answer. The message is git's."""


def git_state(root: Path) -> GitState:
    """Return the commit of a working tree, its changes for `git apply` (100 kB at most), and the names of new files.

    Without git or a repository the commit is None. If git refuses to answer, or HEAD has no commit, `problem` says so.
    """
    try:
        _git(root, "rev-parse", "--git-dir")
        commit = _commit(root)
        changes = _git(root, "status", "--porcelain=v1", "-z", "--untracked-files=normal", "--no-renames",
                       "--ignore-submodules=none", *_ALL_BUT_THE_LOCK)  # fmt: skip
        return GitState(commit=commit, dirty=bool(changes), diff=_difference(root) if changes else "")
    except _AbsentError:
        return GitState(commit=None, dirty=None)
    except _RefusedError as error:
        return GitState(commit=None, dirty=None, problem=str(error))


def _commit(root: Path) -> str:
    try:
        return _git(root, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    except _RefusedError:
        raise _RefusedError("HEAD has no commit: there is none yet, or `git fsck` reports the damage") from None


def _difference(root: Path) -> str:
    try:
        difference = _git(root, *_DIFF, *_ALL_BUT_THE_LOCK).decode()
    except UnicodeDecodeError:  # a changed file is not UTF-8; a binary patch of it is plain ASCII
        with TemporaryDirectory(prefix="git") as folder:
            attributes = Path(folder) / "attributes"
            attributes.write_text("* binary\n", encoding="utf-8")
            difference = _git(root, "-c", f"core.attributesFile={attributes}", *_DIFF, *_ALL_BUT_THE_LOCK).decode(
                "utf-8", errors="replace"
            )
    if len(difference) > _MOST_DIFF:
        difference = f"# {len(difference):,} characters of difference: left out\n"
    listed = _git(root, "ls-files", "-z", "--others", "--exclude-standard", *_ALL_BUT_THE_LOCK)
    names = [name.decode("utf-8", errors="replace") for name in listed.split(b"\0") if name]
    return difference + "".join(f"# new file: {' '.join(name.splitlines())}\n" for name in names[:_MOST_NEW_FILES])


def commit_exists(root: Path, commit: str) -> bool:
    """Return whether git has this commit; raise UserError if git refuses to answer."""
    try:
        _git(root, "rev-parse", "--git-dir")
    except _AbsentError:
        return False
    except _RefusedError as error:
        raise UserError(f"git refuses to answer: {error}") from None
    try:
        _git(root, "cat-file", "-e", f"{commit}^{{commit}}")
    except _RefusedError:
        return False
    return True


def _git(root: Path, *arguments: str) -> bytes:
    """Return the output of git, independent of configuration, locale and hooks."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_") or name.startswith(_KEPT_VARIABLES)
    }
    environment |= {"LC_ALL": "C", "LANGUAGE": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    settings = [word for setting in _SETTINGS for word in ("-c", setting)]
    command = ["git", "--no-pager", *settings, *arguments]
    try:
        done = subprocess.run(command, cwd=root, check=False, capture_output=True, env=environment)
    except OSError:
        raise _AbsentError from None
    if done.returncode == 0:
        return done.stdout
    message = done.stderr.decode("utf-8", errors="replace").strip()
    if "not a git repository (or any" in message:  # but not "not a git repository: PATH": a worktree without its base
        above = (root.resolve(), *root.resolve().parents)
        nearest = next((folder / ".git" for folder in above if (folder / ".git").exists()), None)
        asked = ["git", f"--git-dir={nearest}", "rev-parse", "--git-dir"]
        if nearest is None or not subprocess.run(asked, check=False, capture_output=True, env=environment).returncode:
            raise _AbsentError  # none, or git does not look there: another disk, or GIT_CEILING_DIRECTORIES
        message = f"git does not recognise .git: is it damaged, such as its file HEAD? {message}"
    raise _RefusedError(" ".join(message.split()) or f"`git {arguments[0]}` failed with exit code {done.returncode}")
