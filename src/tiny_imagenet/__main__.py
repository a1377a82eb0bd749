"""`python -m tiny_imagenet` is the command `tiny-imagenet`."""

from tiny_imagenet.cli import main

main()
