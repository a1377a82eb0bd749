"""The repository: git, DVC, paths and records. Only this room calls DVC."""
