"""Start and end a stage or a command: check the params, print an error as one message, return the exit code."""

import argparse
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import gettempdir
from typing import TYPE_CHECKING

from tiny_imagenet.common import signals
from tiny_imagenet.common.errors import UserError, is_of_the_disk

if TYPE_CHECKING:
    from tiny_imagenet.config.params import Params


def checked_params(path: Path | str = "params.yaml") -> "Params":
    """Return params.yaml after all checks, including the arguments of the architectures."""
    from tiny_imagenet.config.params import load_params
    from tiny_imagenet.models.registry import check_models
    from tiny_imagenet.repository.paths import refuse_own_paths

    params = load_params(path)
    check_models(params)
    refuse_own_paths(params, Path(path).absolute().parent)
    return params


def run_for_model(main: Callable[[str], None]) -> int:
    """Call `main` with the model named on the command line. Return the exit code, as `run` does."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("model", metavar="MODEL", help="a key of `models` in params.yaml, or a replicate: MODEL-SEED")
    model: str = parser.parse_args().model
    return run(lambda: main(model))


def run(main: Callable[[], None]) -> int:
    """Call `main` and return the exit code: 0, or 1 for an error that the user can fix, or 130 for Ctrl-C.

    For 1 and 130, print a message without a traceback.
    """
    signals.raise_on_interrupt()
    try:
        main()
    except UserError as error:
        return _fail(f"error: {error}", 1)
    except OSError as error:
        if not is_of_the_disk(error):
            raise
        path = error.filename2 or error.filename or _disks()
        return _fail(f"error: {path}: {error.strerror}; fix this and rerun", 1)
    except KeyboardInterrupt:
        return _fail("stopped", signals.STOPPED)
    return 0


def _disks() -> str:
    """Return the folders that are written to, with their free space: some errors do not say which disk is full."""
    folders = [Path.cwd()]
    with suppress(OSError):  # raised if no folder for temporary files is writable
        folders.append(Path(gettempdir()))
    free = (f"{folder} ({shutil.disk_usage(folder).free / 1e6:,.1f} MB free)" for folder in dict.fromkeys(folders))
    return " or ".join(free)


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr, flush=True)  # noqa: T201 - for the user
    return code
