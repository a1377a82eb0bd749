"""From the official archive to packed arrays."""
