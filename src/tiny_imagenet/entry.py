"""The start and the end of every stage and command: checked params, errors as one message, exit codes."""

import argparse
import errno
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir

from tiny_imagenet.common import signals
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import Params, load_params
from tiny_imagenet.models.registry import check_models
from tiny_imagenet.repository.paths import refuse_own_paths

# Errors of the disk that the user can fix: full, not permitted, or another kind of file at the path.
_DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR,
}  # fmt: skip


def checked_params(path: Path | str = "params.yaml") -> Params:
    """Return params.yaml, checked in full, with the arguments of the architectures."""
    params = load_params(path)
    check_models(params)
    refuse_own_paths(params, Path(path).absolute().parent)
    return params


def run_for_model(main: Callable[[str], None]) -> int:
    """Call `main` with the model that the command line names, and return the exit code as `run` does."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument(
        "model", metavar="MODEL", help="a block of `models` in params.yaml, or a replicate, <model>-<seed>"
    )
    model: str = parser.parse_args().model
    return run(lambda: main(model))


def run(main: Callable[[], None]) -> int:
    """Call `main` and return the exit code: 0, 1 for an error that the user can fix, 130 for Ctrl-C.

    The last two print a message and no traceback.
    """
    signals.raise_on_interrupt()
    try:
        main()
    except UserError as error:
        return _fail(f"error: {error}", 1)
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        path = error.filename2 or error.filename or _disks()
        return _fail(f"error: {path}: {error.strerror}; fix this and rerun", 1)
    except KeyboardInterrupt:
        return _fail("stopped", signals.STOPPED)
    return 0


def _disks() -> str:
    """Return the folders that are written to, with the free space of each: some errors do not say which is full."""
    folders = [Path.cwd()]
    with suppress(OSError):  # no folder for temporary files can be written to
        folders.append(Path(gettempdir()))
    free = (f"{folder} ({shutil.disk_usage(folder).free / 1e6:,.1f} MB free)" for folder in dict.fromkeys(folders))
    return " or ".join(free)


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - for the user
    return code
