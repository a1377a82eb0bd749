"""The command `tiny-imagenet`, also as `python -m tiny_imagenet`."""

from tiny_imagenet.common import signals


def main() -> None:
    """Run the command."""
    signals.exit_during_imports()  # the next one takes seconds
    from tiny_imagenet.cli import app

    app.main()


if __name__ == "__main__":
    main()
