"""What README claims, measured: `python -m benchmarks.<name> --help`."""
