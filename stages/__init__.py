"""The doors of the pipeline: one module per DVC stage, run as `python -m stages.<name>` in the repository's root."""
