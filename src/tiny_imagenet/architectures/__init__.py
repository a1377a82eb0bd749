"""What `architecture:` in params.yaml names, a file each."""
