"""git, asked in a way that no setting of the user can change: what a training's commit is, and what differs from it."""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.repository.records import GitState

_MOST_DIFF = 100_000
_MOST_NEW_FILES = 1000
_ALL_BUT_THE_LOCK = ("--", ".", ":(exclude)dvc.lock")
"""dvc.lock, which every run rewrites, does not make a tree dirty."""
# git's variables that say how to find git, its configuration and the repository. All others are dropped: a hook's name
# another repository or index, and some change what git prints.
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
    """There is no git here, or no repository."""


class _RefusedError(Exception):
    """There is a repository, and git does not answer; the message is git's."""


def git_state(root: Path) -> GitState:
    """Return the commit of a tree, and what it has changed since: at most 100 kB, and the names of new files.

    The difference applies with `git apply`. Without git, or without a repository, the commit is None; if git refuses to
    answer, or HEAD names no commit, `problem` says why.
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
        return _text(root, "rev-parse", "--verify", "HEAD^{commit}").strip()
    except _RefusedError:
        raise _RefusedError("HEAD names no commit: there is none yet, or `git fsck` says what is damaged") from None


def _difference(root: Path) -> str:
    try:
        difference = _text(root, *_DIFF, *_ALL_BUT_THE_LOCK)
    except UnicodeDecodeError:  # a changed file has another encoding: as a binary patch it is plain ASCII
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
    """Return whether git has this commit; raises UserError if it refuses to answer."""
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


def _text(root: Path, *arguments: str) -> str:
    return _git(root, *arguments).decode("utf-8")


def _git(root: Path, *arguments: str) -> bytes:
    """Return what git prints; the same under any configuration, locale or hook."""
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
    if "not a git repository (or any" in message:  # and not "not a git repository: PATH", a worktree whose base is gone
        raise _AbsentError
    raise _RefusedError(" ".join(message.split()) or f"`git {arguments[0]}` failed with exit code {done.returncode}")
