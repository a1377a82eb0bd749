"""Check that each number still follows from its inputs."""
