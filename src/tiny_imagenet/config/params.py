"""params.yaml as typed, frozen objects: the only file that reads it.

Unknown keys, wrong types and impossible values are refused with the path of the key, what was given and what is
allowed. What a profile's `training` names wins over a model's own block; `Params.overrides` lists every such case.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import fingerprint
from tiny_imagenet.common.schema import Count, Name, Section, nearest, read_yaml, validated
from tiny_imagenet.config.dataset import Dataset
from tiny_imagenet.config.jobs import Job
from tiny_imagenet.config.recipe import (
    KERAS_MOMENTUM,
    Augmentation,
    AugmentationChoice,
    CountOrAll,
    LearningRate,
    ModelParams,
    Momentum,
    Recipe,
    resolve_augmentation,
)

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Lineup = Annotated[tuple[Name, ...], Field(min_length=1, strict=False)]


class ProfileOverrides(Section):
    """Settings that a profile changes for every model. A key that is left out changes nothing.

    Null is a value of `weights` and of `batch_normalization_momentum`; it is refused elsewhere.
    """

    epochs: Count | None = None
    """Passes over the training images."""
    batch_size: Count | None = None
    """Images of each training step."""
    learning_rate: LearningRate | None = None
    """The optimizer's learning rate."""
    augmentation: AugmentationChoice | None = None
    """Augmentation of the training images."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    """Initial weights of models whose block has `weights`. Null: random."""
    batch_normalization_momentum: Momentum | None = None
    """Momentum of the moving averages of all batch normalizations. Null: Keras's default, 0.99."""
    flip_at_test: bool | None = None
    """Whether `evaluate` also takes the mirror image of each image."""

    @model_validator(mode="after")
    def _null_only_where_it_means_something(self) -> Self:
        for key in self.model_fields_set - {"weights", "batch_normalization_momentum"}:
            if getattr(self, key) is None:
                raise ValueError(f"`{key}` may not be null; leave the line out to keep each model's own")
        return self


class Replicates(Section):
    """Trainings of active models with other seeds: each of `models` with each of `seeds`."""

    models: tuple[Name, ...] = Field(default=(), strict=False)
    """Active models to train with other seeds."""
    seeds: tuple[Seed, ...] = Field(default=(), strict=False)
    """The seeds. They may not repeat `seed`."""


class Profile(Section):
    """A dataset, and the training settings that belong to it."""

    dataset: Dataset
    """Where the images come from, and how many to use."""
    training: ProfileOverrides
    """Settings that win over those of every model's block, except for the keys that the block `keeps`."""


class Champion(Section):
    """Which model `compare` registers in MLflow: the active one with the highest `metric`."""

    metric: Literal["val_accuracy", "val_accuracy_paper_protocol", "val_top5_accuracy", "val_macro_f1"]
    """The metric that decides; the highest wins."""
    profiles: tuple[Name, ...] = Field(strict=False)
    """Profiles in which a champion is registered."""


class Params(Section):
    """The whole of params.yaml."""

    profile: str
    """The profile that `dvc repro` uses: a key of `profiles`."""
    profiles: dict[Name, Profile]
    """Datasets with their training settings, by name."""
    seed: Seed
    """Seed of weights, dropout, the order of the images and their augmentation."""
    determinism: Literal["exact", "fast"]
    """`exact`: the same seed gives the same bits on the same machine. `fast`: a GPU may use faster kernels whose last
    bits vary."""
    devices: CountOrAll = 1
    """How many devices (GPUs) of this machine share each batch of a training."""
    augmentation: AugmentationChoice
    """Augmentation that all models share."""
    champion: Champion
    """Which model is registered in MLflow as `tiny-imagenet@champion`."""
    replicates: Replicates = Replicates()
    """Trainings of the same models with other seeds."""
    sweeps: dict[Name, Any] = Field(default_factory=dict)
    """Searches over parameters, by name. `tiny-imagenet sweep` checks them; a mistake in them stops no stage."""
    lineups: dict[Name, Lineup] = Field(default_factory=dict)
    """Lists of models by name. `active` takes one by its YAML anchor: `active: *paper`."""
    active: Lineup
    """The models that `dvc repro` trains: a lineup, or a list of keys of `models`."""
    models: dict[Name, ModelParams]
    """The models by name. A block that `active` does not list is checked and not trained."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if self.profile not in self.profiles:
            raise ValueError(
                f"profile: unknown profile '{self.profile}'{nearest(self.profile, self.profiles)}; "
                f"known: {', '.join(self.profiles)}"
            )
        for name in self.champion.profiles:
            if name not in self.profiles:
                raise ValueError(
                    f"champion.profiles: unknown profile '{name}'{nearest(name, self.profiles)}; "
                    f"known: {', '.join(self.profiles)}"
                )
        for where, lineup in {
            "active": self.active,
            **{f"lineups.{key}": it for key, it in self.lineups.items()},
        }.items():
            for name in lineup:
                if name not in self.models:
                    raise ValueError(
                        f"{where}: '{name}' has no block in `models`{nearest(name, self.models)}; "
                        f"known: {', '.join(self.models)}"
                    )
            if len(set(lineup)) != len(lineup):
                raise ValueError(f"{where}: names a model twice")
        for name in self.models:
            if "epochs" not in self._changed(self.models[name]) and self.models[name].epochs is None:
                raise ValueError(f"models.{name}.epochs: named neither here nor in profiles.{self.profile}.training")
        return self

    @model_validator(mode="after")
    def _replicates_are_others(self) -> Self:
        for name in self.replicates.models:
            if name not in self.active:
                raise ValueError(f"replicates.models: '{name}' is not active{nearest(name, self.active)}")
        for what in ("models", "seeds"):
            values = getattr(self.replicates, what)
            if len(set(values)) != len(values):
                raise ValueError(f"replicates.{what}: names one twice")
        if self.replicates.models and self.seed in self.replicates.seeds:
            raise ValueError(
                f"replicates.seeds: {self.seed} is `seed`, with which every active model is trained already"
            )
        return self

    @model_validator(mode="after")
    def _phases_fit_into_the_epochs(self) -> Self:
        for name in self.active:
            recipe = self.recipe(name)
            schedule, tuning, epochs = recipe.learning_rate_schedule, recipe.fine_tuning, recipe.epochs
            if tuning and tuning.head_epochs >= epochs:
                raise ValueError(
                    f"models.{name}.fine_tuning.head_epochs: {tuning.head_epochs} is not below the {epochs} epochs "
                    "that are trained"
                )
            scheduled = epochs - tuning.head_epochs if tuning else epochs
            if schedule and schedule.warmup_epochs >= scheduled:
                after = f" after {tuning.head_epochs} of the head" if tuning else ""
                raise ValueError(
                    f"models.{name}.learning_rate_schedule.warmup_epochs: {schedule.warmup_epochs:g} is not below the "
                    f"{scheduled} epochs that are trained{after}"
                )
        return self

    @model_validator(mode="after")
    def _active_models_can_train(self) -> Self:
        held = [self.dataset.expect.train, self.dataset.images_per_class.train]
        images = min((number for number in held if number is not None), default=None)
        for name in self.active:
            recipe = self.recipe(name)
            if self.devices != "all" and recipe.batch_size % self.devices:
                raise ValueError(
                    f"models.{name}.batch_size: batches of {recipe.batch_size} images cannot be shared equally by "
                    f"{self.devices} `devices`; choose a multiple of {self.devices}"
                )
            if images is not None and recipe.holdout_per_class >= images:
                raise ValueError(
                    f"models.{name}.holdout_per_class: {recipe.holdout_per_class} of {images} training images of each "
                    "class leave none to train on"
                )
            if recipe.trainable == "head" and recipe.weights is None:
                raise ValueError(
                    f"models.{name}.trainable: `head` would leave a backbone of random weights as it is; give it "
                    f"`weights`, here or in profiles.{self.profile}.training"
                )
        return self

    @property
    def dataset(self) -> Dataset:
        """The dataset of the chosen profile."""
        return self.profiles[self.profile].dataset

    @property
    def training(self) -> ProfileOverrides:
        """Settings that the chosen profile changes for every model."""
        return self.profiles[self.profile].training

    @property
    def shared_augmentation(self) -> Augmentation:
        """The augmentation that all models share, before profile overrides."""
        return resolve_augmentation(self.augmentation)

    @property
    def jobs(self) -> list[Job]:
        """The trainings of `dvc repro`: the active models, then the replicates."""
        return [self.job(name) for name in [*self.active, *self._replicates]]

    @property
    def _replicates(self) -> dict[str, tuple[str, int]]:
        """Name of a replicate -> model, seed. DVC's matrix makes the same names."""
        return {f"{model}-{seed}": (model, seed) for model in self.replicates.models for seed in self.replicates.seeds}

    def job(self, name: str) -> Job:
        """Return the training of a model, active or not, or of a replicate; raises UserError if there is none."""
        model, seed = self._replicates.get(name, (name, self.seed))
        if model not in self.models:
            known = [*self.models, *self._replicates]
            raise UserError(f"no model '{name}' in params.yaml{nearest(name, known)}; known: {', '.join(known)}")
        recipe = self.recipe(model)
        deciding = {"seed": seed, "determinism": self.determinism, "devices": self.devices} | recipe.model_dump()
        return Job(name=name, model=model, seed=seed, recipe=recipe, fingerprint=fingerprint(deciding))

    def replicates_of(self, model: str) -> list[Job]:
        """Return the replicates of a model."""
        return [self.job(name) for name, (replicated, _) in self._replicates.items() if replicated == model]

    def _changed(self, block: ModelParams) -> set[str]:
        """Return the keys of the profile's `training` that this block lets it change."""
        return self.training.model_fields_set - set(block.keeps)

    def recipe(self, model: str) -> Recipe:
        """Return a model's settings after profile overrides."""
        block = self.models[model]
        values = {key: getattr(block, key) for key in type(block).model_fields}
        values["augmentation"] = self._own_augmentation(block)
        for key in self._changed(block):
            value = getattr(self.training, key)
            if key == "learning_rate":
                values["optimizer"] = block.optimizer.model_copy(update={"learning_rate": value})
            elif key == "augmentation":
                values["augmentation"] = resolve_augmentation(value)
            elif key != "weights" or "weights" in block.model_fields_set:  # only a block that speaks of weights has any
                values[key] = value
        if values["weights"] is None:  # the profile took them away: a block with `fine_tuning` has some
            values["fine_tuning"] = None
        return Recipe(**values)

    def _own_augmentation(self, block: ModelParams) -> Augmentation:
        return self.shared_augmentation if block.augmentation is None else resolve_augmentation(block.augmentation)

    def with_block_alone(self, model: str, block: Mapping[str, Any], *, source: str) -> "Params":
        """Return params with another block for a model, which alone is active; raises UserError where it is refused."""
        values = self.model_dump(mode="json", exclude_unset=True)
        alone = {"models": values["models"] | {model: block}, "active": [model], "replicates": {}}
        return parse_params(values | alone, source=source)

    def overrides(self, model: str) -> dict[str, tuple[Any, Any]]:
        """Return what the profile changed for `model`: key -> (the paper's or block's value, the profile's)."""
        block, recipe = self.models[model], self.recipe(model)
        own, used = (
            {
                "epochs": of.epochs,
                "batch_size": of.batch_size,
                "learning_rate": of.optimizer.learning_rate,
                "augmentation": augmentation,
                "weights": of.weights,
                "fine_tuning": block.fine_tuning and ("two phases" if of.fine_tuning else "one phase of all layers"),
                "batch_normalization_momentum": KERAS_MOMENTUM
                if of.batch_normalization_momentum is None
                else of.batch_normalization_momentum,
                "flip_at_test": of.flip_at_test,
            }
            for of, augmentation in ((block, self._own_augmentation(block)), (recipe, recipe.augmentation))
        )
        return {key: (own[key], used[key]) for key in own if own[key] != used[key]}


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: the file is missing, is no YAML, or holds what `Params` refuses; every offence has a line.
    """
    path = Path(path)
    return parse_params(read_yaml(path), source=str(path))


def parse_params(values: Mapping[str, Any], *, source: str = "params.yaml") -> Params:
    """Check the mapping that params.yaml holds; raises UserError with a line for every offence."""
    return validated(Params, values, source=source)
