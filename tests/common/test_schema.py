"""YAML files that cannot be read, and nested values under keys with dots."""

from pathlib import Path

import pytest

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.schema import flatten, read_yaml


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"a: 1\nb: [1\n", " line 3: expected ',' or ']'"),
        (b"a: 1\nb: *c\n", " line 2: found undefined alias"),
        (b"a: 1\nb: 2\n\na: 3\n", " line 4: duplicate key 'a': keep one of the two"),
        (b"a: 2001-13-45\n", " cannot be read as YAML: ValueError: month must be in 1..12"),
        (b"a: !!bool x\n", " cannot be read as YAML: KeyError: 'x'"),
        (b"a: \xff\n", " cannot be read: 'utf-8' codec can't decode byte 0xff"),
        (b"- 1\n", " expected keys and values, got list"),
        (b"", " expected keys and values, got NoneType"),
    ],
)
def test_a_yaml_file_that_cannot_be_read_has_its_problem_and_the_line(text, problem, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(text)
    with pytest.raises(UserError) as refused:
        read_yaml(path)
    assert str(refused.value).removeprefix(str(path)).removeprefix(":").startswith(problem)


def test_a_yaml_file_that_is_missing_or_a_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^no none\.yaml in .*; run this in the root of the repository$"):
        read_yaml(Path("none.yaml"))
    with pytest.raises(UserError, match=r"cannot be read: .*Is a directory"):
        read_yaml(tmp_path)


def test_flatten_joins_keys_with_dots():
    values = {"a": 1, "b": {"c": None, "d": {"e": [1, 2]}}, "f": {}}
    assert flatten(values) == {"a": 1, "b.c": None, "b.d.e": [1, 2]}
