"""Run many trainings at once, on Ray."""
