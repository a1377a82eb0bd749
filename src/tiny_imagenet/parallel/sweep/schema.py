"""The schema of a sweep in params.yaml: a model, the values to try, the metric, and when to stop a trial early.

Trials are drawn here, from the seed alone, so that all can be checked before the first one starts.
"""

import itertools
import math
import random
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tiny_imagenet.common.schema import Count, Interval, Name, Section

MOST_TRIALS = 10_000
_SIGNIFICANT_DIGITS = 4
_OWN_KEYS = ("epochs", "holdout_per_class", "keeps")
"""Keys that the sweep sets for every trial."""


class Range(Section):
    """How to choose the values of one key: exactly one of these keys, not null."""

    loguniform: Interval | None = None
    """Draw between two positive numbers; each power of ten is equally likely."""
    uniform: Interval | None = None
    """Draw between two numbers."""
    choice: Annotated[tuple[Any, ...], Field(min_length=1, strict=False)] | None = None
    """Draw one of these: null, a number, a word, a list or a mapping, as the key allows."""
    grid: Annotated[tuple[Any, ...], Field(min_length=1, strict=False)] | None = None
    """Try each of these, combined with each value of every other grid."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1 or getattr(self, *self.model_fields_set) is None:
            raise ValueError(f"expects exactly one of {', '.join(type(self).model_fields)}")
        for name, interval in (("loguniform", self.loguniform), ("uniform", self.uniform)):
            if interval is None:
                continue
            low, high = interval
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise ValueError(f"{name} expects [low, high] with low < high, got [{low}, {high}]")
            if name == "loguniform" and low <= 0:
                raise ValueError(f"loguniform expects positive numbers, got [{low}, {high}]")
        return self

    def value(self, drawn: float) -> Any:
        """Return the value for a number drawn uniformly from [0, 1)."""
        if self.choice is not None:
            return self.choice[int(drawn * len(self.choice))]
        if self.loguniform is not None:
            low, high = self.loguniform
            number = math.exp(math.log(low) + drawn * (math.log(high) - math.log(low)))
        elif self.uniform is not None:
            low, high = self.uniform
            number = low + drawn * (high - low)
        else:
            raise ValueError("the values of a grid are not drawn")
        return min(max(float(f"{number:.{_SIGNIFICANT_DIGITS}g}"), low), high)


class StopEarly(Section):
    """Asynchronous successive halving, ASHA (Li et al. 2018, https://arxiv.org/abs/1810.05934)."""

    grace_epochs: Count
    """Least number of epochs of every trial."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """After `grace_epochs`, and each time that a trial's epochs have grown by this factor, one trial in this many
    continues."""


class Sweep(Section):
    """Trials of one model with different values of some keys of its block."""

    model: Name
    """The block of `models` to vary."""
    metric: Literal[
        "holdout_accuracy", "holdout_loss", "val_accuracy", "val_loss"
    ] = "holdout_accuracy"  # fmt: skip
    """The metric of the best epoch by which trials are ranked. `holdout_*` are measured on held-out training images,
    which leaves the validation images for the test."""
    holdout_per_class: Count = 10
    """Training images of each class that no trial trains on."""
    trials: Count = 1
    """Number of trials to draw; with grids, for each combination."""
    epochs: Count
    """Epochs of each trial, at most."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1
    """Seed of the draws. Trainings use the seed of params.yaml."""
    search: Annotated[dict[str, Range], Field(min_length=1)]
    """Keys of the model's block to search, with dots between sections, and their values."""
    stop_early: StopEarly | None = None
    """Stop bad trials early. Null: every trial runs all epochs."""

    @field_validator("search")
    @classmethod
    def _keys_of_the_block(cls, search: dict[str, Range]) -> dict[str, Range]:
        for key in search:
            if not all(key.split(".")):
                raise ValueError(f"'{key}' is not a key of a block; expected a key such as optimizer.learning_rate")
            if key.split(".")[0] in _OWN_KEYS:
                raise ValueError(f"'{key}' cannot be searched: the sweep sets it; leave it out of `search`")
            if key == "flip_at_test":
                raise ValueError(
                    "'flip_at_test' cannot be searched: it changes `evaluate` alone, and no metric of a sweep"
                )
            for other in search:
                if other.startswith(f"{key}."):
                    raise ValueError(f"'{other}' is part of '{key}'; search only one of them")
        return search

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if self.stop_early and self.stop_early.grace_epochs >= self.epochs:
            raise ValueError(
                f"stop_early.grace_epochs: {self.stop_early.grace_epochs} is not below the {self.epochs} epochs of a "
                "trial"
            )
        if self.trials > 1 and all(values.grid is not None for values in self.search.values()):
            raise ValueError(f"trials: {self.trials} would be the same, since nothing is drawn; leave `trials` out")
        if self.num_trials > MOST_TRIALS:
            raise ValueError(f"{self.num_trials:,} trials; expected at most {MOST_TRIALS:,}")
        return self

    @property
    def mode(self) -> Literal["max", "min"]:
        """Whether a higher or a lower metric is better."""
        return "max" if self.metric.endswith("accuracy") else "min"

    @property
    def holds_out(self) -> bool:
        """Whether the metric needs held-out images."""
        return self.metric.startswith("holdout_")

    @property
    def num_trials(self) -> int:
        """The total number of trials."""
        return self.trials * math.prod(len(values.grid) for values in self.search.values() if values.grid)

    def draws(self) -> list[dict[str, Any]]:
        """Return key -> value for each trial. A larger `trials` keeps the first ones."""
        grids = {key: values.grid for key, values in self.search.items() if values.grid is not None}
        drawn = {key: values for key, values in self.search.items() if values.grid is None}
        trials = []
        for number in range(self.trials):
            for index, combination in enumerate(itertools.product(*grids.values())):
                generator = random.Random(f"{self.seed} {number} {index}")  # noqa: S311 - no secret
                values = dict(zip(grids, combination, strict=True))
                values |= {key: range_.value(generator.random()) for key, range_ in drawn.items()}
                trials.append({key: values[key] for key in self.search})
        return trials
