"""From the official archive to batches of augmented images."""
