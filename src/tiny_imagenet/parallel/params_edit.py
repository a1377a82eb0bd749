"""Edit params.yaml: add or replace lines, and keep all others with their comments.

A YAML library would reformat the whole file. The new file is checked before it replaces the old one.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import replaced
from tiny_imagenet.common.schema import read_yaml, yaml_text
from tiny_imagenet.config.params import load_params, parse_params
from tiny_imagenet.repository.paths import CHECKPOINTS


def block_text(name: str, block: Mapping[str, Any], about: str) -> str:
    """Return a block of `models` as text, indented by two spaces; `about` becomes its comment."""
    first, *others = yaml_text({name: dict(block)}, width=100).splitlines()
    return "".join(f"  {line}\n" for line in (f"{first:<32}# {about}", *others))


def add_block(path: Path, name: str, block: Mapping[str, Any], about: str) -> None:
    """Append a block to `models`.

    Raise UserError if a block has this name, or if the layout of params.yaml does not allow adding lines.
    """
    with _lock(path):
        refuse_known_block(path, name)
        lines = _lines(path)
        models = _value_of(lines, "models")
        last = _last_line(lines, models)
        expected = read_yaml(path)
        expected["models"] |= {name: dict(block)}
        added = _with_ends_of(lines, block_text(name, block, about))
        _write(path, [*lines[: last + 1], added, *lines[last + 1 :]], expected)


def _lock(path: Path) -> FileLock:
    """Return the lock of the file: of two edits at once, one would be lost."""
    lock = path.parent / CHECKPOINTS / "params.lock"
    lock.parent.mkdir(exist_ok=True)
    return FileLock(lock)


def refuse_known_block(path: Path, name: str) -> None:
    """Raise UserError if `models` has a block of this name, or the name is not valid."""
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UserError(
            f"'{name}' is not a valid block name: use lower-case letters, digits and _, and start with a letter"
        )
    if name in load_params(path).models:
        raise UserError(f"{path}: models.{name} exists already; choose another name")


def set_replicates(path: Path, models: Sequence[str], seeds: Sequence[int]) -> None:
    """Replace or add `replicates`; raise UserError if the layout of params.yaml does not allow it."""
    with _lock(path):
        expected = read_yaml(path)
        lines = _lines(path)
        body = f"  models: [{', '.join(models)}]\n  seeds: [{', '.join(map(str, seeds))}]\n"
        if "replicates" in expected:
            value = _value_of(lines, "replicates")
            first, last = value.start_mark.line, _last_line(lines, value)
            is_plain = not getattr(value, "flow_style", True) and lines[first].lstrip() == lines[first][2:]
            if not is_plain or any("#" in line for line in lines[first : last + 1]):  # no comment is lost
                raise UserError(
                    f"{path}: `replicates` is not written as two plain lines; replace it yourself by:\n{body}"
                )
            changed = [*lines[:first], _with_ends_of(lines, body), *lines[last + 1 :]]
        else:
            changed = [*lines, _with_ends_of(lines, f"\nreplicates:\n{body}")]
        expected["replicates"] = {"models": list(models), "seeds": list(seeds)}
        _write(path, changed, expected)


def _lines(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        lines = stream.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += _with_ends_of(lines, "\n")
    return lines


def _with_ends_of(lines: Sequence[str], text: str) -> str:
    """Return text with the line ends of the file."""
    return text.replace("\n", "\r\n") if lines and lines[0].endswith("\r\n") else text


def _value_of(lines: Sequence[str], key: str) -> yaml.Node:
    document = yaml.compose("".join(lines), Loader=yaml.SafeLoader)
    if not isinstance(document, yaml.MappingNode):
        raise UserError("params.yaml is not a mapping of keys to values; restore it with git")
    value: yaml.Node = next(value for name, value in document.value if name.value == key)
    return value


def _last_line(lines: Sequence[str], value: yaml.Node) -> int:
    """Return the number of the last line of a value, without comments and empty lines after it."""
    last: int = value.end_mark.line - (value.end_mark.column == 0)
    while not lines[last].strip() or lines[last].lstrip().startswith("#"):
        last -= 1
    return last


def _write(path: Path, lines: Sequence[str], expected: Mapping[str, Any]) -> None:
    with replaced(path.resolve()) as partial:  # a link stays one
        partial.write_text("".join(lines), encoding="utf-8", newline="")
        shutil.copymode(path, partial)
        try:
            is_expected = read_yaml(partial) == expected
        except UserError:
            is_expected = False
        if not is_expected:
            raise UserError(f"{path}: cannot add lines to its layout (flow style, anchors or tabs?); edit it yourself")
        parse_params(expected, source=str(path))
