"""Additions to params.yaml: lines are put in or replaced, and all others stay as they are, comments too.

A YAML library would lay the whole file out anew. The outcome is checked before it is renamed into place.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import replaced
from tiny_imagenet.common.schema import read_yaml
from tiny_imagenet.config.params import load_params, parse_params


def block_text(name: str, block: Mapping[str, Any], about: str) -> str:
    """Return a block of `models` as params.yaml has it, two spaces deep; `about` becomes its comment."""
    text = yaml.safe_dump({name: dict(block)}, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)
    first, *others = text.splitlines()
    return "".join(f"  {line}\n" for line in (f"{first:<32}# {about}", *others))


def add_block(path: Path, name: str, block: Mapping[str, Any], about: str) -> None:
    """Append a block to `models`.

    Raises:
        UserError: there is one of this name, or params.yaml is written in a way in which no line can be added.
    """
    with _alone(path):
        refuse_known_block(path, name)
        lines = _lines(path)
        models = _value_of(lines, "models")
        last = _last_line(lines, models)
        wanted = read_yaml(path)
        wanted["models"] |= {name: dict(block)}
        added = _with_ends_of(lines, block_text(name, block, about))
        _write(path, [*lines[: last + 1], added, *lines[last + 1 :]], wanted)


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Have no other command edit the file meanwhile: the second would drop what the first has added."""
    lock = path.parent / "checkpoints" / "params.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(lock):
        yield


def refuse_known_block(path: Path, name: str) -> None:
    """Raise UserError where `models` has a block of this name, or could not have one."""
    if not name.isascii() or not name.replace("_", "a").isalnum() or name != name.lower() or not name[:1].isalpha():
        raise UserError(f"'{name}' is no name of a block: small letters, digits and _, a letter first")
    if name in load_params(path).models:
        raise UserError(f"{path}: models.{name} is there already; choose another name")


def set_replicates(path: Path, models: Sequence[str], seeds: Sequence[int]) -> None:
    """Replace `replicates`, or add it; raises UserError where params.yaml is not written in a way that allows it."""
    with _alone(path):
        wanted = read_yaml(path)
        lines = _lines(path)
        body = f"  models: [{', '.join(models)}]\n  seeds: [{', '.join(map(str, seeds))}]\n"
        if "replicates" in wanted:
            value = _value_of(lines, "replicates")
            first, last = value.start_mark.line, _last_line(lines, value)
            written_so = not getattr(value, "flow_style", True) and lines[first].lstrip() == lines[first][2:]
            if not written_so or any("#" in line for line in lines[first : last + 1]):  # no comment is lost
                raise UserError(f"{path}: `replicates` is not written as two lines; write it so yourself:\n{body}")
            changed = [*lines[:first], _with_ends_of(lines, body), *lines[last + 1 :]]
        else:
            changed = [*lines, _with_ends_of(lines, f"\nreplicates:\n{body}")]
        wanted["replicates"] = {"models": list(models), "seeds": list(seeds)}
        _write(path, changed, wanted)


def _lines(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        lines = stream.read().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += _with_ends_of(lines, "\n")
    return lines


def _with_ends_of(lines: Sequence[str], text: str) -> str:
    """Return text with the line ends that the file has."""
    return text.replace("\n", "\r\n") if lines and lines[0].endswith("\r\n") else text


def _value_of(lines: Sequence[str], key: str) -> yaml.Node:
    document = yaml.compose("".join(lines), Loader=yaml.SafeLoader)
    if not isinstance(document, yaml.MappingNode):
        raise UserError("params.yaml holds no keys and values")
    value: yaml.Node = next(value for name, value in document.value if name.value == key)
    return value


def _last_line(lines: Sequence[str], value: yaml.Node) -> int:
    """Return the number of the last line of a value; comments and empty lines after it belong to what follows."""
    last: int = value.end_mark.line - (value.end_mark.column == 0)
    while not lines[last].strip() or lines[last].lstrip().startswith("#"):
        last -= 1
    return last


def _write(path: Path, lines: Sequence[str], wanted: Mapping[str, Any]) -> None:
    with replaced(path.resolve()) as partial:  # a link stays one
        partial.write_text("".join(lines), encoding="utf-8", newline="")
        shutil.copymode(path, partial)
        try:
            as_wanted = read_yaml(partial) == wanted
        except UserError:
            as_wanted = False
        if not as_wanted:
            raise UserError(f"{path} is written in a way in which nothing can be added to it; edit it yourself")
        parse_params(wanted, source=str(path))
