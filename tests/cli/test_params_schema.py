"""The JSON schema of params.yaml: it marks what params.yaml is refused for."""

import copy
import json
from typing import Any

import jsonschema
import pytest
from made_results import ROOT, VALUES

from tiny_imagenet.cli import reference
from tiny_imagenet.config.params import Params

PATH = "docs/reference/params.schema.json"
SCHEMA = json.loads(reference.params_schema())


def refused(values: Any) -> list[str]:
    """Return what an editor would mark: paths of keys."""
    return [error.json_path for error in jsonschema.Draft202012Validator(SCHEMA).iter_errors(values)]


def changed(path: str, value: Any) -> Any:
    """Return the committed params with one key, given by its path with dots, changed."""
    values = copy.deepcopy(VALUES)
    *sections, last = path.split(".")
    section = values
    for key in sections:
        section = section.setdefault(key, {})
    section[last] = value
    return values


def test_params_yaml_names_the_schema_and_fits_it():
    first = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()[0]
    assert first == f"# yaml-language-server: $schema={PATH}"
    assert (ROOT / PATH).is_file()
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert refused(VALUES) == []


@pytest.mark.parametrize(
    ("path", "value", "marked"),
    [
        ("sed", 1, "$"),
        ("seed", -1, "$.seed"),
        ("determinism", "always", "$.determinism"),
        ("profiles.demo.training.epoch", 3, "$.profiles.demo.training"),
        ("profiles.demo.dataset.md5", "abc", "$.profiles.demo.dataset.md5"),
        ("models.model_1.architecture", "two_convs", "$.models.model_1.architecture"),
        ("models.model_1.optimizer.learning_rate", "fast", "$.models.model_1.optimizer.learning_rate"),
        ("models.model_1.augmentation", {"rotation": 3}, "$.models.model_1.augmentation"),
        ("models.model_1.epochs", 1.5, "$.models.model_1.epochs"),
        ("models.Model 1", {}, "$.models"),
        ("sweeps.rates.trails", 3, "$.sweeps.rates"),
        ("sweeps.rates.search.epochs.gird", [1], "$.sweeps.rates.search.epochs"),
    ],
)
def test_a_mistake_is_marked_at_its_key(path, value, marked):
    assert any(found.startswith(marked) for found in refused(changed(path, value)))


def test_every_key_has_a_meaning_that_editors_show():
    sections = {"params.yaml": SCHEMA, **SCHEMA["$defs"]}
    without = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, about in section["properties"].items()
        if not about.get("description")
    ]
    assert without == []
    assert SCHEMA["properties"].keys() == Params.model_fields.keys()
