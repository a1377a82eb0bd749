"""Predictions, metrics and figures of one trained model."""
