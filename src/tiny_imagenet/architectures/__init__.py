"""The values of `architecture:` in params.yaml, one file each."""
