"""The command `tiny-imagenet`."""
