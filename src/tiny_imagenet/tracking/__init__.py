"""MLflow: one run per training, one experiment per profile. Only this room imports MLflow."""
