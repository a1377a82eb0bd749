"""git, DVC, paths and records of the repository: the only room that knows DVC."""
