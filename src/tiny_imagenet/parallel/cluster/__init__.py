"""Ray, on this machine or a cluster. Only this package imports it."""
