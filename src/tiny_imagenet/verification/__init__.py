"""Check that each number follows from its inputs."""
