"""Rebuilds the results table of the paper *Tiny-ImageNet Classification*, stage by stage."""
