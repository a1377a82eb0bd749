"""Ray, here or on a cluster. The only package that imports it."""

from tiny_imagenet.parallel.cluster.machines import Allotment, Cluster, Node, connected, require
from tiny_imagenet.parallel.cluster.trials import Observer, Report, run_trials, scheduler

__all__ = ["Allotment", "Cluster", "Node", "Observer", "Report", "connected", "require", "run_trials", "scheduler"]
