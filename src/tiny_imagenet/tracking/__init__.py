"""MLflow: one run for each training, in one experiment for each profile. The only package that imports it."""
