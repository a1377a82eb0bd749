"""Fit one model by its recipe: optimizer, phases, callbacks, checkpoint. Knows nothing of MLflow."""
