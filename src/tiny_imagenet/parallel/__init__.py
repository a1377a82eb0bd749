"""Many trainings at once, on Ray."""
