"""Read params.yaml into typed, frozen objects. No other file reads it.

An error names the key, the value and what is allowed. A profile's `training` overrides the models' blocks;
`Params.overrides` lists what it changes.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import fingerprint
from tiny_imagenet.common.schema import Count, Name, Section, nearest, read_yaml, unknown, validated
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


def _refuse_duplicates(key: str, values: Sequence[Hashable]) -> None:
    if duplicates := [str(value) for value in dict.fromkeys(values) if values.count(value) > 1]:
        raise ValueError(f"{key}: duplicate {', '.join(duplicates)}; list each once")


class ProfileOverrides(Section):
    """Settings that a profile changes for every model. A key that is left out changes nothing.

    Only `weights` and `batch_normalization_momentum` may be null.
    """

    epochs: Count | None = None
    """Passes over the training images."""
    batch_size: Count | None = None
    """Images per training step."""
    learning_rate: LearningRate | None = None
    """The optimizer's learning rate."""
    augmentation: AugmentationChoice | None = None
    """Augmentation of the training images."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    """Initial weights of models whose block has `weights`. Null: random."""
    batch_normalization_momentum: Momentum | None = None
    """Momentum of the moving averages of all batch normalizations. Null: Keras's default, 0.99."""
    flip_at_test: bool | None = None
    """Whether `evaluate` also predicts the mirror image of each image."""

    @model_validator(mode="after")
    def _null_only_where_it_means_something(self) -> Self:
        for key in self.model_fields_set - {"weights", "batch_normalization_momentum"}:
            if getattr(self, key) is None:
                raise ValueError(f"`{key}` may not be null; remove the line to keep each model's own value")
        return self


class Replicates(Section):
    """Trainings of active models with other seeds: each of `models` with each of `seeds`."""

    models: tuple[Name, ...] = Field(default=(), strict=False)
    """Active models to train with other seeds."""
    seeds: tuple[Seed, ...] = Field(default=(), strict=False)
    """The other seeds, without `seed` itself."""


class Profile(Section):
    """A dataset, and the training settings that fit it."""

    dataset: Dataset
    """Where the images come from, and how many to use."""
    training: ProfileOverrides
    """Settings that override those of every model's block, except for the keys that the block `keeps`."""


class Champion(Section):
    """The model that `compare` registers in MLflow: the active one with the highest `metric`."""

    metric: Literal["val_accuracy", "val_accuracy_paper_protocol", "val_top5_accuracy", "val_macro_f1"]
    """The metric to compare; the highest value wins."""
    profiles: tuple[Name, ...] = Field(strict=False)
    """Profiles in which a champion is registered."""


class Params(Section):
    """All of params.yaml."""

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
    """Searches over parameters, by name. `tiny-imagenet sweep` checks them; `dvc repro` ignores them."""
    lineups: dict[Name, Lineup] = Field(default_factory=dict)
    """Lists of models by name. `active` refers to one by its YAML anchor: `active: *paper`."""
    active: Lineup
    """The models that `dvc repro` trains: a lineup, or a list of keys of `models`."""
    models: dict[Name, ModelParams]
    """The models by name. A block that `active` does not list is checked, but not trained."""

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for key, names in {"profile": (self.profile,), "champion.profiles": self.champion.profiles}.items():
            for name in names:
                if name not in self.profiles:
                    raise ValueError(f"{key}: {unknown('profile', name, self.profiles)}")
        for key, lineup in {"active": self.active, **{f"lineups.{k}": v for k, v in self.lineups.items()}}.items():
            for name in lineup:
                if name not in self.models:
                    raise ValueError(f"{key}: {unknown('model', name, self.models)}")
            _refuse_duplicates(key, lineup)
        for name, block in self.models.items():
            if "epochs" not in self._changed(block) and block.epochs is None:
                raise ValueError(f"models.{name}.epochs: missing; set it here or in profiles.{self.profile}.training")
        return self

    @model_validator(mode="after")
    def _replicates_are_others(self) -> Self:
        for name in self.replicates.models:
            if name not in self.active:
                raise ValueError(
                    f"replicates.models: '{name}' is not active{nearest(name, self.active)}; add it to `active`"
                )
        _refuse_duplicates("replicates.models", self.replicates.models)
        _refuse_duplicates("replicates.seeds", self.replicates.seeds)
        if self.replicates.models and self.seed in self.replicates.seeds:
            raise ValueError(f"replicates.seeds: {self.seed} is `seed`, which every active model uses; remove it")
        return self

    @model_validator(mode="after")
    def _phases_fit_into_the_epochs(self) -> Self:
        for name in self.active:
            recipe = self.recipe(name)
            schedule, tuning, epochs = recipe.learning_rate_schedule, recipe.fine_tuning, recipe.epochs
            if tuning and tuning.head_epochs >= epochs:
                raise ValueError(
                    f"models.{name}.fine_tuning.head_epochs: {tuning.head_epochs} is not below the {epochs} epochs of "
                    "the training"
                )
            if (sized := sum(part.epochs for part in recipe.image_size_schedule or ())) > epochs:
                raise ValueError(
                    f"models.{name}.image_size_schedule: has {sized} epochs, more than the {epochs} "
                    "of the training; remove some, or raise `epochs`"
                )
            scheduled = epochs - tuning.head_epochs if tuning else epochs
            if schedule and schedule.warmup_epochs >= scheduled:
                after = f" after {tuning.head_epochs} of the head" if tuning else ""
                raise ValueError(
                    f"models.{name}.learning_rate_schedule.warmup_epochs: {schedule.warmup_epochs:g} is not below the "
                    f"{scheduled} epochs of the training{after}"
                )
        return self

    @model_validator(mode="after")
    def _active_models_can_train(self) -> Self:
        limits = [self.dataset.expect.train, self.dataset.images_per_class.train]
        images = min((limit for limit in limits if limit is not None), default=None)
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
                    "class leave none to train on; lower it"
                )
            if recipe.trainable == "head" and recipe.weights is None:
                raise ValueError(
                    f"models.{name}.trainable: `head` would freeze a backbone of random weights; set `weights` here or "
                    f"in profiles.{self.profile}.training"
                )
        return self

    @property
    def dataset(self) -> Dataset:
        """The dataset of the chosen profile."""
        return self.profiles[self.profile].dataset

    @property
    def training(self) -> ProfileOverrides:
        """The settings that the chosen profile overrides."""
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
        """Return the training of a model, active or not, or of a replicate. Raise UserError if there is none."""
        model, seed = self._replicates.get(name, (name, self.seed))
        if model not in self.models:
            raise UserError(f"params.yaml: {unknown('model', name, [*self.models, *self._replicates])}")
        recipe = self.recipe(model)
        settings = {"seed": seed, "determinism": self.determinism, "devices": self.devices} | recipe.model_dump()
        return Job(name=name, model=model, seed=seed, recipe=recipe, fingerprint=fingerprint(settings))

    def replicates_of(self, model: str) -> list[Job]:
        """Return the replicates of a model."""
        return [self.job(name) for name, (replicated, _) in self._replicates.items() if replicated == model]

    def _changed(self, block: ModelParams) -> set[str]:
        """Return the keys of a block that the profile's `training` overrides."""
        return self.training.model_fields_set - set(block.keeps)

    def recipe(self, model: str) -> Recipe:
        """Return a model's settings after profile overrides."""
        block = self.models[model]
        values = dict(block)
        values["augmentation"] = self._augmentation_of(block)
        for key in self._changed(block):
            value = getattr(self.training, key)
            if key == "learning_rate":
                values["optimizer"] = block.optimizer.model_copy(update={"learning_rate": value})
            elif key == "augmentation":
                values["augmentation"] = resolve_augmentation(value)
            elif key != "weights" or "weights" in block.model_fields_set:
                values[key] = value
        if values["weights"] is None:  # a block with `fine_tuning` has weights, so the profile removed them
            values["fine_tuning"] = None
        return Recipe(**values)

    def _augmentation_of(self, block: ModelParams) -> Augmentation:
        return self.shared_augmentation if block.augmentation is None else resolve_augmentation(block.augmentation)

    def with_block_alone(self, model: str, block: Mapping[str, Any], *, source: str) -> "Params":
        """Return params in which only `model` is active, with this block. Raise UserError if the block is invalid."""
        values = self.model_dump(mode="json", exclude_unset=True)
        alone = {"models": values["models"] | {model: block}, "active": [model], "replicates": {}}
        return parse_params(values | alone, source=source)

    def overrides(self, model: str) -> dict[str, tuple[Any, Any]]:
        """Return what the profile changed for `model`: key -> (value of the block, value of the profile)."""
        block, recipe = self.models[model], self.recipe(model)
        before, after = (
            {
                "epochs": settings.epochs,
                "batch_size": settings.batch_size,
                "learning_rate": settings.optimizer.learning_rate,
                "augmentation": augmentation,
                "weights": settings.weights,
                "fine_tuning": block.fine_tuning
                and ("two phases" if settings.fine_tuning else "one phase of all layers"),
                "batch_normalization_momentum": KERAS_MOMENTUM
                if settings.batch_normalization_momentum is None
                else settings.batch_normalization_momentum,
                "flip_at_test": settings.flip_at_test,
            }
            for settings, augmentation in ((block, self._augmentation_of(block)), (recipe, recipe.augmentation))
        )
        return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml. Raise UserError as `read_yaml` and `parse_params` do."""
    path = Path(path)
    return parse_params(read_yaml(path), source=str(path))


def parse_params(values: Mapping[str, Any], *, source: str = "params.yaml") -> Params:
    """Check the content of params.yaml. Raise UserError with a line for each invalid value."""
    return validated(Params, values, source=source)
