"""What the documents quote, measured: `python -m benchmarks.<name> --help`."""
