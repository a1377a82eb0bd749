"""Search over parameters of a model: `tiny-imagenet sweep`."""
