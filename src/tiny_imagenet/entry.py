"""How every stage and command begins and ends: checked params in; a user's mistake out as one message."""

import argparse
import errno
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import Params, load_params
from tiny_imagenet.models.registry import check_models

# What the disk may answer: full, forbidden, or something else where a file or folder should be.
_DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.EISDIR,
}  # fmt: skip


def checked_params(path: Path | str = "params.yaml") -> Params:
    """Return params.yaml, checked in full, the architectures' arguments too."""
    params = load_params(path)
    check_models(params)
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
    """Call `main` and return the exit code: 0, 1 for a user's mistake, 130 for Ctrl-C; no traceback for either."""
    if callable(signal.getsignal(signal.SIGINT)):  # ignored, it stays so
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)  # noqa: T201 - what a user is meant to read
        return 1
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        where = error.filename2 or error.filename or "the disk"
        print(f"error: {where}: {error.strerror}; mend that, and start again", file=sys.stderr)  # noqa: T201 - as above
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr, flush=True)  # noqa: T201 - what a user is meant to read
        return 130
    return 0
