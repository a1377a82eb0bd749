"""Nested values under keys with dots."""

from tiny_imagenet.common.schema import flatten


def test_flatten_joins_keys_with_dots():
    values = {"a": 1, "b": {"c": None, "d": {"e": [1, 2]}}, "f": {}}
    assert flatten(values) == {"a": 1, "b.c": None, "b.d.e": [1, 2]}
