"""The committed params.yaml, and changes of it."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tiny_imagenet.common.errors import UserError

COMMITTED = Path(__file__).parents[1] / "params.yaml"
VALUES: dict[str, Any] = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
REMOVED = object()
TUNING = {"head_epochs": 3, "learning_rate": 0.00005}


def changed(*path_and_value: Any) -> dict[str, Any]:
    """Return the committed values with one of them replaced: changed("models", "model_1", "epochs", 3)."""
    *path, last, value = path_and_value
    values = copy.deepcopy(VALUES)
    section = values
    for key in path:
        section = section[key]
    if value is REMOVED:
        del section[last]
    else:
        section[last] = value
    return values


def message_of(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)
