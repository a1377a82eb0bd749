"""Trials of a model over a search space of params.yaml."""
