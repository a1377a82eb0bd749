"""params.yaml as typed, frozen objects: the only file that reads it.

Unknown keys, wrong types and impossible values are refused with the path of the key, what was given and what is
allowed. What a profile's `training` names wins over a model's own block; `Params.overrides` lists every such case.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from tiny_imagenet.errors import UserError
from tiny_imagenet.files import fingerprint
from tiny_imagenet.recipe import (
    KERAS_MOMENTUM,
    Augmentation,
    AugmentationChoice,
    LearningRate,
    ModelParams,
    Momentum,
    Recipe,
    resolve_augmentation,
)
from tiny_imagenet.section import Count, Name, Section, nearest, read_yaml, validated

SPLITS = ("train", "val")


class Expect(Section):
    """What the archive must hold, as it is: checked before anything is left out. Null: any number."""

    classes: Count | None = None
    train: Count | None = None
    val: Count | None = None


class ImagesPerClass(Section):
    """How many images of each class to use, the first by number. Null: all."""

    train: Count | None = None
    val: Count | None = None


class Dataset(Section):
    """Where a profile's images come from: `urls`, an `archive` on disk, or the embedded `digits`."""

    name: Annotated[str, Field(min_length=1)]
    urls: tuple[str, ...] = Field(default=(), strict=False)
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    bytes: Count | None = None
    archive: str | None = None
    expect: Expect = Expect()
    images_per_class: ImagesPerClass = ImagesPerClass()
    duplicates: Literal["report", "drop_from_train", "fail"] = "report"

    @field_validator("urls")
    @classmethod
    def _known_schemes(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not url.startswith(("https://", "http://", "file://")):
                raise ValueError(f"'{url}' is no http://, https:// or file:// address")
        return urls

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if not (self.urls or self.archive or self.embedded):
            raise ValueError("needs `urls`, or `archive` (the path of a zip), or the name `digits`")
        return self

    @model_validator(mode="after")
    def _takes_no_more_than_there_is(self) -> Self:
        for split in SPLITS:
            held, taken = getattr(self.expect, split), getattr(self.images_per_class, split)
            if held is not None and taken is not None and taken > held:
                raise ValueError(f"images_per_class.{split} is {taken}, but `expect` has {held} of each class")
        return self

    @property
    def expected_bytes(self) -> int:
        """Bytes that the stages before training write: the archive twice, and 64 x 64 x 3 for every image.

        As far as `bytes`, `expect` and `images_per_class` tell.
        """
        images = 0
        for split in SPLITS:
            held, taken = getattr(self.expect, split) or 0, getattr(self.images_per_class, split)
            copies = 2 if split == "train" and self.duplicates == "drop_from_train" else 1
            images += copies * (self.expect.classes or 0) * (held if taken is None else min(held, taken))
        return 2 * (self.bytes or 0) + images * 64 * 64 * 3

    @property
    def source(self) -> str:
        """Where the images come from, in words."""
        return self.archive or ", ".join(self.urls) or "embedded in the project"

    @property
    def embedded(self) -> bool:
        """Whether the images come with the project (scikit-learn's digits) and nothing is fetched."""
        return self.name == "digits" and not self.urls and self.archive is None


class Training(Section):
    """What a profile changes for every model. Only the keys that are written count; null is a value too."""

    epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: LearningRate | None = None
    augmentation: AugmentationChoice | None = None
    weights: Annotated[str, Field(min_length=1)] | None = None
    batch_normalization_momentum: Momentum | None = None

    @model_validator(mode="after")
    def _null_only_where_it_means_something(self) -> Self:
        for key in self.model_fields_set - {"weights", "batch_normalization_momentum"}:
            if getattr(self, key) is None:
                raise ValueError(f"`{key}` may not be null; leave the line out to keep each model's own")
        return self


class Profile(Section):
    """A dataset, and how much training it gets."""

    dataset: Dataset
    training: Training


class Champion(Section):
    """Which model `compare` registers in MLflow: the active one with the highest `metric`, in these profiles alone."""

    metric: Literal["val_accuracy", "val_accuracy_paper_protocol", "val_top5_accuracy", "val_macro_f1"]
    profiles: tuple[Name, ...] = Field(strict=False)


class Params(Section):
    """The whole of params.yaml."""

    profile: str
    profiles: dict[Name, Profile]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    determinism: Literal["exact", "fast"]
    """`exact`: the same seed gives the same bits on the same machine. `fast`: the backend may choose on a GPU."""
    augmentation: AugmentationChoice
    champion: Champion
    active: tuple[Name, ...] = Field(min_length=1, strict=False)
    models: dict[Name, ModelParams]

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
        for name in self.active:
            if name not in self.models:
                raise ValueError(
                    f"active: '{name}' has no block in `models`{nearest(name, self.models)}; "
                    f"known: {', '.join(self.models)}"
                )
        if len(set(self.active)) != len(self.active):
            raise ValueError("active: names a model twice")
        for name in self.models:
            if "epochs" not in self.training.model_fields_set and self.models[name].epochs is None:
                raise ValueError(f"models.{name}.epochs: named neither here nor in profiles.{self.profile}.training")
        return self

    @model_validator(mode="after")
    def _warm_up_ends(self) -> Self:
        for name in self.models:
            recipe = self.recipe(name)
            schedule = recipe.learning_rate_schedule
            if schedule and schedule.warmup_epochs >= recipe.epochs:
                raise ValueError(
                    f"models.{name}.learning_rate_schedule.warmup_epochs: {schedule.warmup_epochs:g} is not below the "
                    f"{recipe.epochs} epochs that are trained"
                )
        return self

    @model_validator(mode="after")
    def _active_models_can_train(self) -> Self:
        held = [self.dataset.expect.train, self.dataset.images_per_class.train]
        images = min((number for number in held if number is not None), default=None)
        for name in self.active:
            recipe = self.recipe(name)
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
    def training(self) -> Training:
        """What the chosen profile changes for every model."""
        return self.profiles[self.profile].training

    @property
    def shared_augmentation(self) -> Augmentation:
        """The augmentation before a profile has its say."""
        return resolve_augmentation(self.augmentation)

    def block(self, model: str) -> ModelParams:
        """Return the block of `model`; raises UserError where there is none."""
        if model not in self.models:
            raise UserError(
                f"no model '{model}' in params.yaml{nearest(model, self.models)}; known: {', '.join(self.models)}"
            )
        return self.models[model]

    def recipe(self, model: str) -> Recipe:
        """Return what really runs for `model`: its block, overridden by the profile's `training`."""
        block = self.block(model)
        values = {key: getattr(block, key) for key in type(block).model_fields}
        values["augmentation"] = self._own_augmentation(block)
        for key in self.training.model_fields_set:
            value = getattr(self.training, key)
            if key == "learning_rate":
                values["optimizer"] = block.optimizer.model_copy(update={"learning_rate": value})
            elif key == "augmentation":
                values["augmentation"] = resolve_augmentation(value)
            elif key != "weights" or "weights" in block.model_fields_set:  # only a block that speaks of weights has any
                values[key] = value
        return Recipe(**values)

    def _own_augmentation(self, block: ModelParams) -> Augmentation:
        return self.shared_augmentation if block.augmentation is None else resolve_augmentation(block.augmentation)

    def fingerprint(self, model: str) -> str:
        """Return what differs where anything in params.yaml differs that decides how `model` is trained."""
        own = {"seed": self.seed, "determinism": self.determinism, "dataset": self.dataset.model_dump()}
        return fingerprint(own | self.recipe(model).model_dump())

    def overrides(self, model: str) -> dict[str, tuple[Any, Any]]:
        """Return what the profile changed for `model`: key -> (the paper's or block's value, the profile's)."""
        block, recipe = self.block(model), self.recipe(model)
        own = {
            "epochs": block.epochs,
            "batch_size": block.batch_size,
            "learning_rate": block.optimizer.learning_rate,
            "augmentation": self._own_augmentation(block),
            "weights": block.weights,
            "batch_normalization_momentum": KERAS_MOMENTUM,
        }
        used = {
            "epochs": recipe.epochs,
            "batch_size": recipe.batch_size,
            "learning_rate": recipe.optimizer.learning_rate,
            "augmentation": recipe.augmentation,
            "weights": recipe.weights,
            "batch_normalization_momentum": KERAS_MOMENTUM
            if recipe.batch_normalization_momentum is None
            else recipe.batch_normalization_momentum,
        }
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
