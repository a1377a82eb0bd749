"""The measurements that the documents quote: `python -m benchmarks.<name> --help`."""
