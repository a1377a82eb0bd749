"""The command `tiny-imagenet`, also as `python -m tiny_imagenet`."""

import os
import signal


def main() -> None:
    """Run the command."""
    # Its imports take seconds, in which there is nothing to leave clean.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from tiny_imagenet.cli import app

    app.main()


if __name__ == "__main__":
    main()
