"""The results table beside the paper's, with figures, audit and documents."""
