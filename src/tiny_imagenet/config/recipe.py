"""A model's block in params.yaml: architecture, optimizer, augmentation, schedules, early stopping.

The docstrings name the parts of Keras that do the work.
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
"""The settings of a model that a profile's `training` can override."""
Monitor = Literal["val_loss", "val_accuracy", "loss", "accuracy"]
KERAS_MOMENTUM = 0.99
"""Keras's default for the moving averages of batch normalization."""


class Augmentation(Section):
    """Random changes of the training images, drawn uniformly for each image and epoch. By default all are off."""

    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Rotate by up to this angle in both directions, in degrees."""
    shear_degrees: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """Shear by up to this angle in both directions, in degrees."""
    zoom: Interval = (1.0, 1.0)
    """Lowest and highest factor, drawn for each axis."""
    shift: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Shift by up to this fraction of the side, along both axes."""
    horizontal_flip: bool = False
    """Mirror half of the images, left to right."""
    brightness: Interval = (1.0, 1.0)
    """Lowest and highest factor of the pixel values."""
    crop_padding: Annotated[int, Field(ge=0, le=32)] = 0
    """Repeat the edges by this many pixels, then crop to the old size at a random position."""
    trivial_augment: bool = False
    """Apply one of 14 changes, of random strength (Müller & Hutter 2021, https://arxiv.org/abs/2103.10158)."""
    erasing: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability of filling a rectangle with noise (Zhong et al. 2020, https://arxiv.org/abs/1708.04896)."""
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Blend each image with another. The value is alpha of the Beta distribution of the share (Zhang et al. 2018,
    https://arxiv.org/abs/1710.09412). 0: off."""
    cutmix: Annotated[float, Field(ge=0, le=10)] = 0.0
    """Paste a rectangle of another image. The value is alpha of the Beta distribution of its share (Yun et al. 2019,
    https://arxiv.org/abs/1905.04899). 0: off. With `mixup` too, each image gets one of the two, at even odds."""

    @field_validator("zoom", "brightness")
    @classmethod
    def _positive_and_ordered(cls, interval: Interval) -> Interval:
        low, high = interval
        if not 0 < low <= high <= 10:
            raise ValueError(f"expects [low, high] with 0 < low <= high <= 10, got [{low}, {high}]")
        return interval

    @property
    def mixes(self) -> bool:
        """Whether images are mixed. Their labels are then shares of classes."""
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
# A discriminator picks the member of a union, so an error message is about that member alone.
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
    """Return the augmentation of a preset, or the one given."""
    return choice if isinstance(choice, Augmentation) else PRESETS[choice]


class Optimizer(Section):
    """A Keras optimizer and its settings."""

    name: Literal["adam", "adamw", "sgd", "rmsprop"]
    """The Keras optimizer."""
    learning_rate: LearningRate
    """Step size. With a schedule, its highest value; with `fine_tuning`, the value of the head's phase."""
    momentum: Momentum | None = None
    """Momentum, for `sgd` only. Null: 0."""
    nesterov: bool = False
    """Nesterov momentum, for `sgd` only. Needs a `momentum` above 0."""
    weight_decay: Annotated[float, Field(ge=0, le=1)] | None = None
    """Decoupled weight decay of kernels, not of biases and batch normalization. Null: Keras's default (adamw: 0.004,
    others: none)."""
    clip_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Largest norm of all gradients together (Keras's `global_clipnorm`). Null: no limit."""
    ema_momentum: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Momentum per step of a moving average of the weights (`keras.callbacks.SwapEMAWeights`). The average is validated
    and saved. Null: no average."""

    @model_validator(mode="after")
    def _momentum_of_sgd(self) -> Self:
        if self.name != "sgd" and (self.momentum is not None or self.nesterov):
            raise ValueError(f"`momentum` and `nesterov` belong to sgd, not to {self.name}; remove them")
        if self.nesterov and not self.momentum:
            raise ValueError("`nesterov: true` needs a `momentum` above 0; set one")
        return self


class LearningRateSchedule(Section):
    """Learning rate per step: from 0 up to the optimizer's, then down (`keras.optimizers.schedules.CosineDecay`)."""

    decay: Literal["cosine", "none"] = "cosine"
    """How the learning rate falls after the warm-up. `none`: warm-up only."""
    warmup_epochs: Annotated[float, Field(ge=0, le=1000)] = 0.0
    """Epochs in which the learning rate rises from 0; fractions are allowed. Fewer than all epochs."""
    final_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Learning rate at the end of cosine decay, as a fraction of the highest."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if self.decay == "none" and (self.final_fraction or not self.warmup_epochs):
            raise ValueError(
                "`decay: none` is for a warm-up only; set `warmup_epochs` above 0, and remove `final_fraction`"
            )
        return self


class EarlyStopping(Section):
    """Stop when `monitor` has not improved for `patience` epochs (`keras.callbacks.EarlyStopping`)."""

    monitor: Monitor = "val_loss"
    """The metric to watch. With `holdout_per_class`, `val_` means the held-out images."""
    patience: Annotated[int, Field(ge=0)]
    """Epochs without improvement after which training stops."""
    restore_best_weights: bool = True
    """Keep the weights of the best epoch instead of the last, even if the training was not stopped."""


class ReduceLearningRate(Section):
    """Multiply the learning rate by `factor` on a plateau (`keras.callbacks.ReduceLROnPlateau`)."""

    monitor: Monitor = "val_loss"
    """The metric to watch. With `holdout_per_class`, `val_` means the held-out images."""
    factor: Annotated[float, Field(gt=0, lt=1)]
    """Multiply the learning rate by this."""
    patience: Annotated[int, Field(ge=0)]
    """Epochs without improvement after which the learning rate is reduced."""


class FineTuning(Section):
    """Train in two phases: first the head, with the pretrained backbone frozen; then the backbone too, slowly.

    Epochs are numbered across both phases. The first phase uses the optimizer's learning rate, without a schedule. The
    second starts with a new optimizer; `learning_rate_schedule` covers its steps and peaks at `learning_rate`.
    `early_stopping`, `reduce_learning_rate` and `reported_epoch: best` watch the second phase only. So the first phase
    is never shortened, and the saved weights are always from the second.
    """

    head_epochs: Count
    """Epochs of the first phase. Fewer than all `epochs`."""
    learning_rate: LearningRate
    """Learning rate of the second phase. A profile's `learning_rate` does not change it."""
    backbone_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the backbone's layers, counted from the last, that the second phase trains."""
    batch_normalization: Literal["frozen", "trained"] = "frozen"
    """Batch normalization of the backbone in the second phase. `frozen`: averages and parameters do not change. In the
    first phase it is always frozen."""


class ImageSize(Section):
    """Consecutive epochs whose training images are made smaller."""

    epochs: Count
    """How many epochs."""
    size: Annotated[int, Field(ge=16, le=64)]
    """Height and width of the images in pixels. 64: the dataset's own."""


class ModelParams(Section):
    """One model: its architecture and the recipe that trains it."""

    architecture: Name
    """A file of src/tiny_imagenet/architectures, without `.py`."""
    build: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the architecture, see the table of architectures."""
    preprocessing: Literal["rescale", "caffe", "tf", "none"] | None = None
    """The model's first layers, from pixels of 0 to 255. `rescale`: divide by 255. `caffe`: BGR minus ImageNet's means.
    `tf`: scale to -1 to 1. `none`: keep 0 to 255. Null: the architecture's default."""
    weights: Annotated[str, Field(min_length=1)] | None = None
    """Initial weights of the backbone: `imagenet`, or the path of a weights file. Null: random."""
    trainable: Literal["all", "head"] = "all"
    """Which layers to train. `head`: freeze the pretrained backbone."""
    fine_tuning: FineTuning | None = None
    """Train the head first, then the backbone too. Null, or with `weights: null`: train all layers in one phase."""
    precision: Literal["float32", "mixed_float16", "mixed_bfloat16"] = "float32"
    """Keras policy of the layers. `mixed_float16` scales the loss automatically."""
    optimizer: Optimizer
    """The optimizer and its settings."""
    learning_rate_schedule: LearningRateSchedule | None = None
    """Warm-up and decay of the learning rate, step by step. Null: constant."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability that is spread evenly over all classes in the labels."""
    augmentation: AugmentationChoice | None = None
    """Augmentation of this model. Null: the `augmentation` that all models share."""
    image_size_schedule: Annotated[tuple[ImageSize, ...], Field(strict=False)] | None = None
    """Sizes of the training images, from the first epoch on; later epochs and all validation use the full size. Smaller
    images train faster. Augmented images are resized by `cv2.INTER_AREA`. Null: always the full size."""
    epochs: Count | None = None
    """Passes over the training images. Null: the profile's `training` must set it."""
    batch_size: Count = 64
    """Images per training step."""
    batches_per_epoch: CountOrAll = "all"
    """Stop each epoch after this many batches."""
    batch_normalization_momentum: Momentum | None = None
    """Momentum of the moving averages of all batch normalizations. Null: Keras's default, 0.99."""
    reestimate_batch_normalization: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Before each validation, replace the moving averages of batch normalization by the statistics of so many training
    images, at full size and without augmentation. So they fit averaged weights and the size of the validation images.
    Null: keep the moving averages."""
    flip_at_test: bool = False
    """Let `evaluate` average the probabilities of an image and its mirror image. The saved model does not."""
    keeps: tuple[ProfileKey, ...] = Field(default=(), strict=False)
    """Keys that the profile's `training` does not override for this model."""
    holdout_per_class: Annotated[int, Field(ge=0)] = 0
    """Training images of each class to hold out: the last ones by number. Early stopping and schedules watch them
    instead of the validation images, which then stay an independent test."""
    early_stopping: EarlyStopping | None = None
    """Stop when a metric no longer improves. Null: never."""
    reduce_learning_rate: ReduceLearningRate | None = None
    """Reduce the learning rate when a metric no longer improves. Null: never."""
    reported_epoch: Literal["recipe", "last", "best"] = "recipe"
    """The epoch whose weights are saved. `recipe`: the one that early stopping restores, else the last. `last`: the
    last. `best`: the one with the best accuracy on the held-out images, or on the validation images if none are held
    out."""
    paper_protocol_every_epoch: bool = False
    """Also measure the paper-protocol accuracy after each epoch: one more column of history.csv."""

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if self.reported_epoch == "last" and self.early_stopping and self.early_stopping.restore_best_weights:
            raise ValueError(
                "`reported_epoch: last` contradicts `early_stopping.restore_best_weights: true`; change one"
            )
        if self.learning_rate_schedule and self.reduce_learning_rate:
            raise ValueError("`learning_rate_schedule` and `reduce_learning_rate` both set the learning rate; keep one")
        if self.fine_tuning and self.weights is None:
            raise ValueError(
                "`fine_tuning` needs `weights`, or it would freeze a backbone of random weights; set `weights`, or "
                "remove `fine_tuning`"
            )
        if self.fine_tuning and self.trainable == "head":
            raise ValueError("`trainable: head` never trains the backbone, `fine_tuning` does; keep one")
        return self

    def monitored(self, monitor: str) -> str:
        """Return the column of history.csv to watch for `monitor`: that of the held-out images if there are any."""
        return monitor.replace("val_", "holdout_") if self.holdout_per_class else monitor


class Recipe(ModelParams):
    """Model settings after profile overrides."""

    epochs: Count
    augmentation: Augmentation

    @property
    def image_sizes(self) -> list[int]:
        """Size of the training images in each of the first epochs; in later ones it is the dataset's."""
        return [part.size for part in self.image_size_schedule or () for _ in range(part.epochs)]

    @property
    def soft_labels(self) -> bool:
        """Whether a label is a share for each class instead of the number of one class."""
        return self.label_smoothing > 0 or self.augmentation.mixes
