"""Typed, frozen sections of a YAML file. Error messages name the key and suggest a spelling."""

import difflib
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tiny_imagenet.common.errors import UserError

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Count = Annotated[int, Field(ge=1)]
Interval = Annotated[tuple[float, float], Field(strict=False)]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean '...'?)" with the known word most similar to `word`, or "" if none is similar."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{matches[0]}'?)" if matches else ""


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """Return the end of a message: the unknown word, a similar one, and all that are known."""
    known = list(known)
    return f"unknown {kind} '{word}'{nearest(word, known)}; known: {', '.join(known)}"


class Section(BaseModel):
    """A mapping of params.yaml: frozen, without type conversion, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    message = unknown("key", str(key), cls.model_fields)
                    raise PydanticCustomError("unknown_key", "{message}", {"message": message})
        return values


AnySection = TypeVar("AnySection", bound=Section)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file. Use DVC's own reader (ruamel.yaml, YAML 1.2).

    Another reader takes `010` for 8 and `yes` for true, so a training would differ from what DVC records. Raise
    UserError if the file is missing, is not YAML, has a duplicate key, or is not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"no {path} in {Path.cwd()}; run this in the root of the repository") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    try:
        values = YAML(typ="safe").load(text)
    except DuplicateKeyError as error:
        key = re.search(r'found duplicate key "(.*?)" with value', error.problem)
        raise UserError(
            f"{path}: line {error.problem_mark.line + 1}: duplicate key '{key[1] if key else ''}': keep one of the two"
        ) from None
    except MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise UserError(f"{path}:{line} {error.problem or error.context}") from None
    except (YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as YAML: {type(error).__name__}: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, got {type(values).__name__}")
    return values


def yaml_text(values: Mapping[str, Any], *, width: int) -> str:
    """Return values as YAML 1.2, which `read_yaml` reads as the same values. Lists of plain values take one line."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style, writer.width = None, width
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment] # ruamel declares the default alone
    stream = io.StringIO()
    writer.dump(values, stream)
    return stream.getvalue()


def validated(section: type[AnySection], values: Mapping[str, Any], *, source: str, key: str = "") -> AnySection:
    """Return the values as a section; raise UserError with a line for each invalid value.

    For the messages: `source` is the file, `key` that of the section in it, with dots.
    """
    try:
        try:
            return section.model_validate(values)
        except ValidationError as error:
            lines = sorted({_describe(dict(detail), key) for detail in error.errors()})
    except UnicodeEncodeError:
        lines = ["a key or value has half of a character (a lone surrogate); remove it"]
    raise UserError("\n".join(f"{source}: {line}" for line in lines))


def _describe(error: Mapping[str, Any], key: str) -> str:
    """Return one line for one of pydantic's errors: path of the key, what is wrong, what was given."""
    # Pydantic's location includes the tag of a union's member, and "[key]"; neither is a key of the file.
    path = ".".join([key] * bool(key) + [str(part) for part in error["loc"] if str(part)[:1] not in "<["])
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "literal_error" and isinstance(error["input"], str):
        message += nearest(error["input"], re.findall(r"'([^']+)'", error["ctx"]["expected"]))
    if error["type"] not in {"value_error", "missing", "unknown_key"}:
        message += f", got {_short(error['input'])}"
    return f"{path}: {message}" if path else message


def _short(value: Any, limit: int = 60) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python does not print integers of more than 4,300 digits
        text = "a very large number"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values with dotted keys: `optimizer.name`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
