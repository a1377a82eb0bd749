"""params.yaml as typed, frozen objects: the only file that reads it.

Unknown keys, wrong types and impossible values are refused with the path of the key, what was given and what is
allowed. What a profile's `training` names wins over a model's own block; `Params.overrides` lists every such case.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tiny_imagenet.errors import UserError

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Count = Annotated[int, Field(ge=1)]
LearningRate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
Interval = Annotated[tuple[float, float], Field(strict=False)]
SPLITS = ("train", "val")
KERAS_MOMENTUM = 0.99
"""Keras's default for the moving averages of batch normalization."""
Monitor = Literal["val_loss", "val_accuracy", "loss", "accuracy"]


def nearest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean '...'?)" for the known word nearest to `word`, or "" where none is near."""
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
    def embedded(self) -> bool:
        """Whether the images come with the project (scikit-learn's digits) and nothing is fetched."""
        return self.name == "digits" and not self.urls and self.archive is None


class Augmentation(Section):
    """Random changes of the training images, each drawn uniformly; what is not named stays off.

    Degrees for angles, a fraction of the side for shifts, factors for zoom and brightness.
    """

    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    shear_degrees: Annotated[float, Field(ge=0, lt=90)] = 0.0
    zoom: Interval = (1.0, 1.0)
    shift: Annotated[float, Field(ge=0, le=1)] = 0.0
    horizontal_flip: bool = False
    brightness: Interval = (1.0, 1.0)

    @field_validator("zoom", "brightness")
    @classmethod
    def _positive_and_ordered(cls, interval: Interval) -> Interval:
        low, high = interval
        if not 0 < low <= high <= 10:
            raise ValueError(f"expects [low, high] with 0 < low <= high <= 10, got [{low}, {high}]")
        return interval


NO_AUGMENTATION = Augmentation()
PAPER_AUGMENTATION = Augmentation(
    rotation_degrees=30,
    shear_degrees=0.2,
    zoom=(0.8, 1.2),
    shift=0.1,
    horizontal_flip=True,
    brightness=(0.8, 1.2),
)
# A discriminator picks the member of a union by what was written, so that an error speaks of that member alone.
AugmentationChoice = Annotated[
    Annotated[Literal["paper", "none"], Tag("<preset>")] | Annotated[Augmentation, Tag("<parts>")],
    Discriminator(lambda given: "<parts>" if isinstance(given, Mapping | Augmentation) else "<preset>"),
]
BatchesPerEpoch = Annotated[
    Annotated[Literal["all"], Tag("<all>")] | Annotated[Count, Tag("<number>")],
    Discriminator(lambda given: "<all>" if isinstance(given, str) else "<number>"),
]


def _resolve_augmentation(choice: AugmentationChoice) -> Augmentation:
    if isinstance(choice, Augmentation):
        return choice
    return PAPER_AUGMENTATION if choice == "paper" else NO_AUGMENTATION


class Training(Section):
    """What a profile changes for every model. Only the keys that are written count; null is a value too."""

    epochs: Count | None = None
    batch_size: Count | None = None
    learning_rate: LearningRate | None = None
    augmentation: AugmentationChoice | None = None
    weights: str | None = None
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


class Optimizer(Section):
    """A Keras optimizer by name."""

    name: Literal["adam", "adamw", "sgd", "rmsprop"]
    learning_rate: LearningRate


class EarlyStopping(Section):
    """Stop when `monitor` has not improved for `patience` epochs (`keras.callbacks.EarlyStopping`)."""

    monitor: Monitor = "val_loss"
    patience: Annotated[int, Field(ge=0)]
    restore_best_weights: bool = True


class ReduceLearningRate(Section):
    """Multiply the learning rate by `factor` on a plateau (`keras.callbacks.ReduceLROnPlateau`)."""

    monitor: Monitor = "val_loss"
    factor: Annotated[float, Field(gt=0, lt=1)]
    patience: Annotated[int, Field(ge=0)]


class ModelParams(Section):
    """One model: its architecture and the recipe that trains it."""

    architecture: Name
    build: dict[str, Any] = Field(default_factory=dict)
    preprocessing: Literal["rescale", "caffe"] = "rescale"
    weights: str | None = None
    optimizer: Optimizer
    epochs: Count | None = None
    batch_size: Count = 64
    batches_per_epoch: BatchesPerEpoch = "all"
    early_stopping: EarlyStopping | None = None
    reduce_learning_rate: ReduceLearningRate | None = None
    reported_epoch: Literal["recipe", "last", "best"] = "recipe"

    @model_validator(mode="after")
    def _one_way_to_choose_the_epoch(self) -> Self:
        if self.reported_epoch == "last" and self.early_stopping and self.early_stopping.restore_best_weights:
            raise ValueError(
                "`reported_epoch: last` contradicts `early_stopping.restore_best_weights: true`; change one"
            )
        return self


class Recipe(ModelParams):
    """A model's block after its profile's `training` has had its say: what really runs."""

    epochs: Count
    augmentation: Augmentation
    batch_normalization_momentum: Momentum | None = None


class Params(Section):
    """The whole of params.yaml."""

    profile: str
    profiles: dict[Name, Profile]
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    augmentation: AugmentationChoice
    active: tuple[Name, ...] = Field(min_length=1, strict=False)
    models: dict[Name, ModelParams]

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        if self.profile not in self.profiles:
            raise ValueError(
                f"profile: unknown profile '{self.profile}'{nearest(self.profile, self.profiles)}; "
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
        return _resolve_augmentation(self.augmentation)

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
        values["augmentation"] = self.shared_augmentation
        for key in self.training.model_fields_set:
            value = getattr(self.training, key)
            if key == "learning_rate":
                values["optimizer"] = block.optimizer.model_copy(update={"learning_rate": value})
            elif key == "augmentation":
                values["augmentation"] = _resolve_augmentation(value)
            elif key != "weights" or "weights" in block.model_fields_set:  # only a block that speaks of weights has any
                values[key] = value
        return Recipe(**values)

    def overrides(self, model: str) -> dict[str, tuple[Any, Any]]:
        """Return what the profile changed for `model`: key -> (the paper's or block's value, the profile's)."""
        block, recipe = self.block(model), self.recipe(model)
        own = {
            "epochs": block.epochs,
            "batch_size": block.batch_size,
            "learning_rate": block.optimizer.learning_rate,
            "augmentation": self.shared_augmentation,
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


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which also refuses a key that stands twice in one mapping."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key '{key.value}' stands twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_params(path: Path | str = "params.yaml") -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: the file is missing, is no YAML, or holds what `Params` refuses; every offence has a line.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"no {path} in {Path.cwd()}: run this in the repository's root") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506 - a subclass of SafeLoader
    except yaml.MarkedYAMLError as error:
        where = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise UserError(f"{path}:{where} {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        raise UserError(f"{path} is no readable YAML: {type(error).__name__}: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected keys and values, got {type(values).__name__}")
    return parse_params(values, source=str(path))


def parse_params(values: Mapping[str, Any], *, source: str = "params.yaml") -> Params:
    """Check the mapping that params.yaml holds; raises UserError with a line for every offence."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        try:
            lines = sorted({_describe(dict(offence)) for offence in error.errors()})
        except UnicodeEncodeError:
            lines = ["a key or value holds half of a character (a lone surrogate)"]
    except UnicodeEncodeError:
        lines = ["a key or value holds half of a character (a lone surrogate)"]
    raise UserError("\n".join(f"{source}: {line}" for line in lines))


def _describe(offence: Mapping[str, Any]) -> str:
    """Return one line for one of pydantic's errors: path of the key, what is wrong, what was given."""
    # Pydantic puts the tag of a union's member, and "[key]", into the location; neither is a key of the file.
    path = ".".join(str(part) for part in offence["loc"] if str(part)[:1] not in "<[")
    message = str(offence["msg"]).removeprefix("Value error, ")
    given = offence.get("input")
    if offence["type"] == "unknown_key":
        return f"{path}: {message}" if path else message
    if offence["type"] in {"int_type", "float_type", "int_from_float"} and isinstance(given, str):
        message += " (YAML reads 1e-3 as text: write 0.001)" if "e" in given.lower() else ""
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
