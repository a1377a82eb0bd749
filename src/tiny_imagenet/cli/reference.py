"""Write docs/reference: the keys of params.yaml, as a page and as a JSON schema, and the commands.

Keys come from the types: the docstring below a key is its description.
"""

import ast
import inspect
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import typer
from pydantic import TypeAdapter

from tiny_imagenet.common.schema import Section
from tiny_imagenet.config.params import Params, ProfileOverrides
from tiny_imagenet.config.recipe import PRESETS, Augmentation, ModelParams
from tiny_imagenet.models import registry
from tiny_imagenet.parallel.sweep.schema import Range, Sweep
from tiny_imagenet.reporting.formats import markdown_table

_WORDS = {
    "integer": "whole number", "number": "number", "boolean": "`true`, `false`", "string": "text", "null": "`null`",
}  # fmt: skip
_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
_MADE = "<!-- made by `tiny-imagenet readme`: change the code, then run it again -->"
_CHECKED_LATER: dict[tuple[type[Section], str], Any] = {(Params, "sweeps"): dict[str, Sweep]}
"""Keys whose type is not in their section, since a command checks them."""
_UNSET = (ProfileOverrides, Range)
"""Sections in which a missing key differs from null."""


def params_reference() -> str:
    """Return docs/reference/params.md: each key of params.yaml with its type, default and meaning."""
    sections = _sections(Params)
    anchors = {section.__name__: f"[{path}](#{_anchor(path)})" for section, path in sections.items()}
    blocks = [
        "# Reference: params.yaml",
        _MADE,
        "`tiny-imagenet check` checks the file. An unknown key, a wrong type or an invalid value stops the pipeline "
        "before any stage runs; the message has the path of the key. A key that you leave out has its default.",
    ]
    for section, path in sections.items():
        blocks.append(f"## `{path}`" if path else "## The whole file")
        blocks += [_paragraphs(inspect.getdoc(section) or ""), _keys(section, anchors)]
        if section is Augmentation:
            blocks.append(_presets())
    return "\n\n".join([*blocks, *_architectures()]) + "\n"


def params_schema() -> str:
    """Return docs/reference/params.schema.json, with which editors complete and check params.yaml."""
    schema = Params.model_json_schema()
    for (owner, key), annotation in _CHECKED_LATER.items():
        checked = TypeAdapter(annotation).json_schema(ref_template="#/$defs/{model}")
        schema["$defs"] |= checked.pop("$defs")
        _properties(schema, owner)[key] = checked
    for section in _sections(Params):
        for key, meaning in key_docs(section).items():
            described = _properties(schema, section)[key]
            described["description"] = meaning
            if "patternProperties" in described:  # pydantic does not say that other keys are invalid
                described["additionalProperties"] = False
    _properties(schema, ModelParams)["architecture"] |= {"enum": registry.architectures()}
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema, indent=2) + "\n"


def _properties(schema: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    """Return key -> schema of a section."""
    properties: dict[str, Any] = (schema if section is Params else schema["$defs"][section.__name__])["properties"]
    return properties


def _sections(section: type[Section], path: str = "") -> dict[type[Section], str]:
    """Return the section and those below it, each with its shortest path in the file."""
    paths = {section: path}
    for key, field in section.model_fields.items():
        for below, name in _sections_in(_CHECKED_LATER.get((section, key), field.annotation)):
            for inner, its_path in _sections(below, f"{path}.{key}{name}".lstrip(".")).items():
                paths[inner] = min(paths.get(inner, its_path), its_path, key=lambda one: one.count("."))
    return paths


def _sections_in(annotation: Any, name: str = "") -> Iterable[tuple[type[Section], str]]:
    """Yield the sections in a type, each with ".<name>" if it is the value of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation, name
    elif get_origin(annotation) in {Annotated, Union, UnionType, dict, tuple}:
        for part in get_args(annotation):
            yield from _sections_in(part, ".<name>" if get_origin(annotation) is dict else name)


def _keys(section: type[Section], anchors: Mapping[str, str]) -> str:
    schema, meanings = section.model_json_schema()["properties"], key_docs(section)
    for (owner, key), annotation in _CHECKED_LATER.items():
        if owner is section:
            schema[key] = TypeAdapter(annotation).json_schema()
    rows = [
        [f"`{key}`", _type(schema[key], anchors), _default(section, key), meanings.get(key, "")]
        for key in section.model_fields
    ]
    return markdown_table(["key", "value", "default", "meaning"], rows)


def key_docs(section: type[Section]) -> dict[str, str]:
    """Return key -> the docstring below it, in the class or in one that it inherits from."""
    docs: dict[str, str] = {}
    for owner in reversed(section.__mro__):
        if owner is not Section and issubclass(owner, Section):
            [tree] = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
            for node, below in pairwise([*tree.body, ast.Pass()] if isinstance(tree, ast.ClassDef) else []):
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    text = below.value.value if _is_text(below) else ""  # type: ignore[attr-defined] # _is_text looked
                    docs[node.target.id] = " ".join(text.split())
    return docs


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _type(schema: Mapping[str, Any], anchors: Mapping[str, str] | None = None) -> str:
    """Return a JSON schema in words."""
    if "$ref" in schema:
        return (anchors or {})[schema["$ref"].rpartition("/")[2]]
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    for union in ("anyOf", "oneOf"):
        if union in schema:
            return " or ".join(_type(one, anchors) for one in schema[union])
    if schema.get("type") == "array":
        if "prefixItems" in schema:
            return "`[low, high]`"
        return f"list of: {_type(schema['items'], anchors)}"
    if schema.get("type") == "object":
        values = [*schema.get("patternProperties", {}).values(), schema.get("additionalProperties")]
        return f"by name: {_type(values[0], anchors)}" if isinstance(values[0], dict) else "keys and values"
    if "type" not in schema:
        return "any value"
    limits = [f"{word} {schema[key]:,}" for key, word in _BOUNDS.items() if key in schema]
    return f"{_WORDS[schema['type']]} {' and '.join(limits)}".rstrip()


def _default(section: type[Section], key: str) -> str:
    field = section.model_fields[key]
    if field.is_required():
        return "required"
    if section in _UNSET:
        return "not set"
    default = field.get_default(call_default_factory=True)
    return f"`{_yaml(default.model_dump(exclude_unset=True) if isinstance(default, Section) else default)}`"


def _yaml(value: Any) -> str:
    """Return a value as written in params.yaml."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    words: dict[Any, str] = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def _presets() -> str:
    """Return the named augmentations with their parts."""
    rows = [
        [
            f"`{name}`",
            ", ".join(f"`{key}: {_yaml(getattr(preset, key))}`" for key in preset.model_dump(exclude_defaults=True)),
        ]
        for name, preset in PRESETS.items()
    ]
    return markdown_table(["by name", "the same, in parts"], rows)


def _architectures() -> list[str]:
    about = (
        "Values of `architecture`, and the keys of `build` for each. Each architecture is a file of "
        "[src/tiny_imagenet/architectures](../../src/tiny_imagenet/architectures)."
    )
    rows = []
    for name in registry.architectures():
        arguments = registry.build_arguments(name)
        types = registry.build_schema(name).model_json_schema()["properties"]
        built = [
            f"`{key}`: {_type(types[key])}, default `{_yaml(ast.literal_eval(default))}`"
            for key, (_, default) in arguments.items()
            if key in types and key != "preprocessing" and default is not None
        ]
        summary = (ast.get_docstring(ast.parse(registry.architecture_source(name))) or "").split("\n\n")[0]
        rows.append(
            [
                f"`{name}`",
                " ".join(summary.split()),
                "; ".join(built),
                f"`{registry.preprocessing_of(name, None)}`",
                "yes" if "weights" in arguments else "no",
            ]
        )
    headings = ["architecture", "what it is", "`build`", "`preprocessing`", "pretrained weights"]
    return ["## Architectures", about, markdown_table(headings, rows)]


def _paragraphs(docstring: str) -> str:
    """Return a docstring as Markdown: a line per paragraph."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in docstring.split("\n\n"))


def _anchor(heading: str) -> str:
    """Return GitHub's anchor of a heading."""
    return "".join(character for character in heading.lower() if character.isalnum() or character in "-_")


def commands_reference(app: typer.Typer) -> str:
    """Return docs/reference/commands.md: each command of `tiny-imagenet` with its arguments and options."""
    group: Any = typer.main.get_command(app)
    blocks = [
        "# Reference: commands",
        _MADE,
        "`tiny-imagenet COMMAND --help` prints the same. Every command works in any folder of the repository. "
        "The exit code is 0 for success, 1 for an error with a message, 2 for a wrong option, 130 for Ctrl-C.",
    ]
    for name, command in sorted(group.commands.items()):
        shown = [param for param in command.params if not param.hidden]
        blocks += [f"## tiny-imagenet {name}", _paragraphs(command.help)]
        blocks.append(f"    tiny-imagenet {' '.join([name, *_usage(shown)])}")
        if shown:
            rows = [[f"`{_param_name(param)}`", param.help or "", _param_default(param)] for param in shown]
            blocks.append(markdown_table(["argument", "meaning", "default"], rows))
    return "\n\n".join(blocks) + "\n"


def _usage(params: Sequence[Any]) -> Iterable[str]:
    for param in params:
        many = "..." if param.nargs == -1 else ""
        yield f"{_param_name(param)}{many}" if param.required else f"[{_param_name(param)}]{many}"


def _param_name(param: Any) -> str:
    value = param.metavar or param.name.upper()
    if param.param_type_name == "argument":
        return str(value)
    return " ".join([*param.opts, *([] if param.is_flag else [value])])


def _param_default(param: Any) -> str:
    if param.required:
        return "required"
    if isinstance(param.show_default, str):
        return param.show_default
    return "" if param.default in (None, False) else f"`{param.default}`"
