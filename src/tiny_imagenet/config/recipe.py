"""What a model's block of params.yaml may say: architecture, optimizer, augmentation, schedules and stops.

Keras does the work wherever it has a part for it; the docstrings name the part.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from tiny_imagenet.common.schema import Count, Interval, Name, Section

LearningRate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
ProfileKey = Literal[
    "epochs", "batch_size", "learning_rate", "augmentation", "weights", "batch_normalization_momentum", "flip_at_test"
]  # fmt: skip
"""What a profile's `training` can change in a model's recipe."""
Monitor = Literal["val_loss", "val_accuracy", "loss", "accuracy"]
KERAS_MOMENTUM = 0.99
"""Keras's default for the moving averages of batch normalization."""


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
    crop_padding: Annotated[int, Field(ge=0, le=32)] = 0
    """Pixels by which the edges are repeated before a crop of the old size: a shift by whole pixels."""
    trivial_augment: bool = False
    """One of 14 changes, of random strength (Müller & Hutter 2021, https://arxiv.org/abs/2103.10158)."""
    erasing: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that a rectangle is filled with noise (Zhong et al. 2020, https://arxiv.org/abs/1708.04896)."""
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Alpha of the Beta distribution of the share (Zhang et al. 2018, https://arxiv.org/abs/1710.09412). 0: off."""
    cutmix: Annotated[float, Field(ge=0, le=10)] = 0.0
    """The same for a rectangle of another image (Yun et al. 2019, https://arxiv.org/abs/1905.04899). With both, either
    befalls half of the images."""

    @field_validator("zoom", "brightness")
    @classmethod
    def _positive_and_ordered(cls, interval: Interval) -> Interval:
        low, high = interval
        if not 0 < low <= high <= 10:
            raise ValueError(f"expects [low, high] with 0 < low <= high <= 10, got [{low}, {high}]")
        return interval

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with others, so that their labels are shares of classes."""
        return self.mixup > 0 or self.cutmix > 0


NO_AUGMENTATION = Augmentation()
PAPER_AUGMENTATION = Augmentation(
    rotation_degrees=30,
    shear_degrees=0.2,
    zoom=(0.8, 1.2),
    shift=0.1,
    horizontal_flip=True,
    brightness=(0.8, 1.2),
)
CROP_FLIP = Augmentation(crop_padding=8, horizontal_flip=True)
PRESETS = {
    "none": NO_AUGMENTATION,
    "paper": PAPER_AUGMENTATION,
    "crop_flip": CROP_FLIP,
    "modern": CROP_FLIP.model_copy(update={"trivial_augment": True, "erasing": 0.1, "mixup": 0.2, "cutmix": 1.0}),
}
# A discriminator picks the member of a union by what was written, so that an error speaks of that member alone.
AugmentationChoice = Annotated[
    Annotated[Literal["none", "paper", "crop_flip", "modern"], Tag("<preset>")]
    | Annotated[Augmentation, Tag("<parts>")],
    Discriminator(lambda given: "<parts>" if isinstance(given, Mapping | Augmentation) else "<preset>"),
]
CountOrAll = Annotated[
    Annotated[Literal["all"], Tag("<all>")] | Annotated[Count, Tag("<number>")],
    Discriminator(lambda given: "<all>" if isinstance(given, str) else "<number>"),
]


def resolve_augmentation(choice: AugmentationChoice) -> Augmentation:
    """Return the parts that a preset stands for, or the parts as given."""
    return choice if isinstance(choice, Augmentation) else PRESETS[choice]


class Optimizer(Section):
    """A Keras optimizer by name, with what Keras lets every optimizer do."""

    name: Literal["adam", "adamw", "sgd", "rmsprop"]
    learning_rate: LearningRate
    momentum: Momentum | None = None
    """Of sgd alone."""
    nesterov: bool = False
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = None
    """Decoupled, of kernels: biases and batch normalization are left alone. Null: Keras's default (adamw: 0.004)."""
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Largest norm of all gradients together (Keras: `global_clipnorm`)."""
    ema_momentum: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validate and keep the moving average of the weights (`keras.callbacks.SwapEMAWeights`)."""

    @model_validator(mode="after")
    def _momentum_of_sgd(self) -> Self:
        if self.name != "sgd" and (self.momentum is not None or self.nesterov):
            raise ValueError(f"`momentum` and `nesterov` belong to sgd, not to {self.name}; remove them")
        if self.nesterov and not self.momentum:
            raise ValueError("`nesterov: true` needs a `momentum` above 0")
        return self


class LearningRateSchedule(Section):
    """Step by step from 0 up to the optimizer's learning rate, then down (`keras.optimizers.schedules.CosineDecay`)."""

    decay: Literal["cosine", "none"] = "cosine"
    warmup_epochs: Annotated[float, Field(ge=0, le=1000)] = 0.0
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Of the learning rate, what cosine decay ends with."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.decay == "none" and (self.final_fraction or not self.warmup_epochs):
            raise ValueError("`decay: none` is for a warm-up alone: it takes `warmup_epochs`, and no `final_fraction`")
        return self


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


class FineTuning(Section):
    """Two phases: the head alone, with the pretrained backbone frozen; then the backbone too, slowly.

    Epochs are counted through. The first phase has the optimizer's learning rate, without a schedule; the second begins
    with a fresh optimizer, and `learning_rate_schedule` runs over its steps, up to and down from `learning_rate`. What
    watches a figure (`early_stopping`, `reduce_learning_rate`, `reported_epoch: best`) begins with the second phase, so
    the first always has all its epochs, and the weights that are kept are always of the second.
    """

    head_epochs: Count
    """Of the first phase; fewer than all `epochs`."""
    learning_rate: LearningRate
    """Of the second phase; a profile's `learning_rate` does not change it."""
    backbone_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """How much of the backbone the second phase trains: this share of its layers, from the last."""
    batch_normalization: Literal["frozen", "trained"] = "frozen"
    """In the backbone, in the second phase; in the first it is always frozen: averages and parameters stay."""


class ModelParams(Section):
    """One model: its architecture and the recipe that trains it."""

    architecture: Name
    build: dict[str, Any] = Field(default_factory=dict)
    preprocessing: Literal["rescale", "caffe", "tf", "none"] | None = None
    """Null: the architecture's own: 1/255, or what its weights expect."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    trainable: Literal["all", "head"] = "all"
    """`head`: the pretrained backbone stays as it is."""
    fine_tuning: FineTuning | None = None
    """Set aside where a profile sets `weights` to null: all layers are trained in one phase then."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """A Keras policy; mixed ones scale the loss by themselves where they have to."""
    optimizer: Optimizer
    learning_rate_schedule: LearningRateSchedule | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    augmentation: AugmentationChoice | None = None
    """Null: the one that all models share."""
    epochs: Count | None = None
    batch_size: Count = 64
    batches_per_epoch: CountOrAll = "all"
    batch_normalization_momentum: Momentum | None = None
    """Of the moving averages of every batch normalization. Null: Keras's default, 0.99."""
    flip_at_test: bool = False
    """`evaluate` takes the mean of the probabilities of an image and of its mirror image. The saved model does not."""
    keeps: tuple[ProfileKey, ...] = Field(default=(), strict=False)
    """What the profile's `training` does not change for this model."""
    holdout_per_class: Annotated[int, Field(ge=0)] = 0
    """Training images of each class, the last by number, that no step sees: stops and schedules watch them instead
    of the validation images, which stay a test."""
    early_stopping: EarlyStopping | None = None
    reduce_learning_rate: ReduceLearningRate | None = None
    reported_epoch: Literal["recipe", "last", "best"] = "recipe"
    """Which weights are kept: what early stopping restores or else the last; the last; those of the best accuracy."""
    paper_protocol_every_epoch: bool = False
    """Measure the paper-protocol validation after every epoch too, not only at the end."""

    @model_validator(mode="after")
    def _one_way_to_choose_the_epoch(self) -> Self:
        if self.reported_epoch == "last" and self.early_stopping and self.early_stopping.restore_best_weights:
            raise ValueError(
                "`reported_epoch: last` contradicts `early_stopping.restore_best_weights: true`; change one"
            )
        return self

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if self.learning_rate_schedule and self.reduce_learning_rate:
            raise ValueError("`learning_rate_schedule` and `reduce_learning_rate` both set the learning rate; keep one")
        return self

    @model_validator(mode="after")
    def _something_to_tune(self) -> Self:
        if self.fine_tuning and self.weights is None:
            raise ValueError(
                "`fine_tuning` needs `weights`: a backbone of random weights would be frozen; give it some, or remove "
                "`fine_tuning`"
            )
        if self.fine_tuning and self.trainable == "head":
            raise ValueError("`trainable: head` never trains the backbone, `fine_tuning` does; keep one")
        return self

    def monitored(self, monitor: str) -> str:
        """Return the column of history.csv that is watched for `monitor`: the held-out images' where there are any."""
        return monitor.replace("val_", "holdout_") if self.holdout_per_class else monitor


class Recipe(ModelParams):
    """Model settings after profile overrides."""

    epochs: Count
    augmentation: Augmentation

    @property
    def soft_labels(self) -> bool:
        """Whether the loss needs a share for each class instead of the number of one class."""
        return self.label_smoothing > 0 or self.augmentation.mixes
