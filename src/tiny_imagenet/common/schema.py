"""Typed, frozen sections of a YAML file, with error messages that name the key and suggest a spelling."""

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
    """Return " (did you mean '...'?)" for the known word nearest to `word`, or "" if none is near."""
    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{matches[0]}'?)" if matches else ""


class Section(BaseModel):
    """A mapping of params.yaml: frozen, strict about types, closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in values:
                if key not in cls.model_fields:
                    raise PydanticCustomError(
                        "unknown_key",
                        "unknown key '{key}'{hint}; known: {known}",
                        {
                            "key": str(key),
                            "hint": nearest(str(key), cls.model_fields),
                            "known": ", ".join(cls.model_fields),
                        },
                    )
        return values


AnySection = TypeVar("AnySection", bound=Section)


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds, as DVC reads it: YAML 1.2, by the same library.

    Another reader would take `010` for 8 and `yes` for true, and train with other values than those that DVC records.

    Raises:
        UserError: the file is missing, is no YAML, has a duplicate key, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"no {path} in {Path.cwd()}: run this in the repository's root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    try:
        values = YAML(typ="safe").load(text)
    except DuplicateKeyError as error:
        key = re.search(r'found duplicate key "(.*?)" with value', error.problem)
        raise UserError(
            f"{path}: line {error.problem_mark.line + 1}: duplicate key '{key[1] if key else ''}'"
        ) from None
    except MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise UserError(f"{path}:{where} {error.problem or error.context}") from None
    except (YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise UserError(f"{path} is no readable YAML: {type(error).__name__}: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, got {type(values).__name__}")
    return values


def yaml_text(values: Mapping[str, Any], *, width: int) -> str:
    """Return values as YAML 1.2, which `read_yaml` reads as the same values. Lists of plain values take one line."""
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = None
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment] # annotated as None
    writer.width = width
    stream = io.StringIO()
    writer.dump(values, stream)
    return stream.getvalue()


def validated(section: type[AnySection], values: Mapping[str, Any], *, source: str, key: str = "") -> AnySection:
    """Return the values as a section.

    Args:
        section: the type.
        values: of its keys.
        source: the file, for the messages.
        key: of the section in the file, with dots; "" for the whole file.

    Raises:
        UserError: a value is refused; the message has a line for each.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        try:
            lines = sorted({_describe(dict(offence), key) for offence in error.errors()})
        except UnicodeEncodeError:
            lines = ["a key or value holds half of a character (a lone surrogate)"]
    except UnicodeEncodeError:
        lines = ["a key or value holds half of a character (a lone surrogate)"]
    raise UserError("\n".join(f"{source}: {line}" for line in lines))


def _describe(offence: Mapping[str, Any], key: str) -> str:
    """Return one line for one of pydantic's errors: path of the key, what is wrong, what was given."""
    # Pydantic puts the tag of a union's member, and "[key]", into the location; neither is a key of the file.
    path = ".".join([key] * bool(key) + [str(part) for part in offence["loc"] if str(part)[:1] not in "<["])
    message = str(offence["msg"]).removeprefix("Value error, ")
    given = offence.get("input")
    if offence["type"] == "unknown_key":
        return f"{path}: {message}" if path else message
    if offence["type"] == "literal_error" and isinstance(given, str):
        message += nearest(given, re.findall(r"'([^']+)'", offence["ctx"]["expected"]))
    shown = "" if offence["type"] in {"value_error", "missing"} else f", got {_short(given)}"
    return f"{path}: {message}{shown}" if path else f"{message}{shown}"


def _short(value: Any, limit: int = 60) -> str:
    try:
        text = repr(value)
    except ValueError:  # Python prints no integer of more than 4,300 digits
        text = "a very large number"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values under keys with dots: `optimizer.name`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
