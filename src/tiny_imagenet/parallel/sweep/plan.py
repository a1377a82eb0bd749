"""Draw the trials of a sweep and check them before any starts. Needs neither Ray nor Keras."""

import copy
from dataclasses import dataclass
from typing import Any, get_args

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.schema import nearest, validated
from tiny_imagenet.config.params import Params
from tiny_imagenet.config.recipe import ProfileKey, Recipe
from tiny_imagenet.models.registry import check_models
from tiny_imagenet.parallel.sweep.schema import Sweep


@dataclass(frozen=True)
class Trial:
    """One training of a sweep."""

    number: int
    """1 or more."""
    values: dict[str, Any]
    """Dotted key of the block -> drawn value."""
    block: dict[str, Any]
    """The model's block with these values, as in params.yaml."""
    recipe: Recipe
    """Settings of the training: the block with the sweep's epochs and held-out images, after profile overrides."""


@dataclass(frozen=True)
class Plan:
    """A sweep of params.yaml and its trials."""

    name: str
    sweep: Sweep
    trials: list[Trial]


def plan(params: Params, name: str) -> Plan:
    """Return a sweep of params.yaml with its trials.

    Raise UserError if there is no such sweep, or if a trial's block is not valid, as in `models`.
    """
    if name not in params.sweeps:
        known = ", ".join(params.sweeps) or "none: see docs/how-to/many-trainings.md"
        raise UserError(f"no sweep '{name}' in params.yaml{nearest(name, params.sweeps)}; known: {known}")
    sweep = validated(Sweep, params.sweeps[name], source="params.yaml", key=f"sweeps.{name}")
    if sweep.model not in params.models:
        raise UserError(
            f"params.yaml: sweeps.{name}.model: '{sweep.model}' has no block in `models`"
            f"{nearest(sweep.model, params.models)}"
        )
    trials = [_trial(params, name, sweep, number, values) for number, values in enumerate(sweep.draws(), start=1)]
    return Plan(name, sweep, trials)


def _trial(params: Params, name: str, sweep: Sweep, number: int, values: dict[str, Any]) -> Trial:
    block = params.models[sweep.model].model_dump(mode="json", exclude_unset=True)
    source = f"params.yaml: sweeps.{name}.search, trial {number}"
    if any(key.startswith("augmentation.") for key in values):  # the other parts keep the profile's values
        block["augmentation"] = params.recipe(sweep.model).augmentation.model_dump(mode="json", exclude_defaults=True)
    for key, value in values.items():
        _put(block, key, value, source)
    if keeps := sorted({*block.get("keeps", []), *(_kept(key) for key in values)} & {*get_args(ProfileKey)}):
        block["keeps"] = keeps
    trained = block | {"epochs": sweep.epochs, "keeps": sorted({*keeps, "epochs"})}
    if sweep.holds_out:
        trained["holdout_per_class"] = sweep.holdout_per_class
    with_trial = params.with_block_alone(sweep.model, trained, source=source)
    try:
        check_models(with_trial)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    recipe = with_trial.recipe(sweep.model)
    if recipe.fine_tuning is None and any(key.split(".")[0] == "fine_tuning" for key in values):
        raise UserError(f"{source}: fine_tuning needs pretrained weights, and the profile sets none; search other keys")
    return Trial(number, values, block, recipe)


def _kept(key: str) -> str:
    """Return the name in `keeps` of a searched key, which keeps the profile from overriding it."""
    return "learning_rate" if key in ("optimizer", "optimizer.learning_rate") else key.split(".")[0]


def _put(block: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Set a dotted key; add a section that is missing or null."""
    *sections, last = key.split(".")
    section = block
    for depth, part in enumerate(sections, start=1):
        if section.get(part) is None:
            section[part] = {}
        if not isinstance(section[part], dict):
            raise UserError(f"{source}: {'.'.join(sections[:depth])} is {section[part]!r}, and has no key '{last}'")
        section = section[part]
    section[last] = copy.deepcopy(value)
