"""Published data: the paper's tables, the authors' training logs, and the recipes of the paper's models."""

import json
from collections.abc import Collection
from importlib import resources
from typing import Any

import pandas as pd

from tiny_imagenet.common.tables import ColumnType, parse_csv
from tiny_imagenet.config.dataset import Expect, ImagesPerClass
from tiny_imagenet.config.params import Params

PUBLISHED = "_as_published"
"""Suffix of blocks that follow the authors' run instead of the text. Their rows have the paper's metrics too."""
_PAPER: dict[str, ColumnType] = {
    "model": str, "description": str, "parameters": int, "train_accuracy": float, "val_accuracy": float
}  # fmt: skip
_LOGS: dict[str, ColumnType] = {"model": str, "epoch": int}
_TINY_IMAGENET = Expect(classes=200, train=500, val=50)


def _reference(name: str) -> str:
    return resources.files("tiny_imagenet.reporting").joinpath("reference", name).read_text(encoding="utf-8")


def paper_table() -> pd.DataFrame:
    """Return the paper's two tables (figures 9 and 10), by model."""
    return parse_csv(_reference("paper.csv"), _PAPER).set_index("model")


def authors_logs() -> pd.DataFrame:
    """Return the authors' published training logs: a row per model and epoch."""
    return parse_csv(_reference("authors_logs.csv"), _LOGS, float)


def recipes() -> dict[str, dict[str, Any]]:
    """Return the recipes of the paper's models, and of their blocks `_as_published` if they differ."""
    blocks: dict[str, dict[str, Any]] = json.loads(_reference("recipes.json"))
    return blocks


def base_of(model: str) -> str:
    """Return the paper's model that a block belongs to: "model_2" for "model_2_as_published"."""
    return model.removesuffix(PUBLISHED)


def is_of_paper(model: str) -> bool:
    """Return whether a block is one of the paper's models, or one as published."""
    return base_of(model) in paper_table().index


def changes_of_recipe(params: Params, model: str, unconcerned: Collection[str] = ()) -> list[str]:
    """Return the keys of a recipe, shared settings and profile included, that differ from the paper's.

    The keys `unconcerned` are left out: they make no difference for this model (`ResultsTable.unconcerned`).
    """
    recipe = params.recipe(model).model_dump(mode="json")
    published = recipes().get(model) or recipes()[base_of(model)]
    # The first adds a metric. The second only says where a value comes from.
    ignored = {"paper_protocol_every_epoch", "keeps", *unconcerned}
    return [key for key in recipe if recipe[key] != published.get(key) and key not in ignored]


def comparable(params: Params) -> bool:
    """Return whether the profile's dataset is the paper's: all of Tiny ImageNet."""
    dataset = params.dataset
    return (
        dataset.name == "tiny-imagenet-200"
        and dataset.expect == _TINY_IMAGENET
        and dataset.images_per_class == ImagesPerClass()
        and dataset.num_classes is None
        and dataset.duplicates != "drop_from_train"
    )
