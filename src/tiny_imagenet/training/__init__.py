"""Train one model by its recipe: optimizer, phases, callbacks, checkpoint. Does not import MLflow."""
