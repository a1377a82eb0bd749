"""From packed arrays to augmented batches."""
