"""The JSON files that the pipeline writes, each as a type, and history.csv: what they hold is defined here alone.

A file that lacks a key or a column, or has a value of the wrong type, is a `UserError` that says how to restore it.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import read_json, write_text
from tiny_imagenet.common.tables import ColumnType, read_csv

if TYPE_CHECKING:
    import pandas as pd

_HISTORY: dict[str, ColumnType] = {
    "epoch": int, "accuracy": float, "val_accuracy": float, "loss": float, "val_loss": float
}  # fmt: skip
_Fraction = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """A JSON file that one stage writes and others read. Keys that are not listed are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    @classmethod
    def read(cls, path: Path, *, remedy: str = "") -> Self:
        """Return the record that a file holds.

        Args:
            path: of the file.
            remedy: what the message advises; by default to restore the file from DVC's cache.

        Raises:
            UserError: the file cannot be read, lacks a key, or has a value of the wrong type.
        """
        remedy = (
            remedy or f"`rm -f {path}` and `dvc checkout {path}` restore it, or `dvc repro` if another version wrote it"
        )
        try:
            return cls.model_validate(read_json(path, remedy=remedy))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise UserError(f"{path} cannot be read ({key}: {first['msg']}): {remedy}") from None

    def as_dict(self) -> dict[str, Any]:
        """Return the values that are set, in the order of the class: what the file holds."""
        return self.model_dump(exclude_unset=True)

    def write(self, path: Path) -> None:
        """Write the record."""
        write_text(path, json.dumps(self.as_dict(), indent=2) + "\n")


class GitState(BaseModel):
    """The commit that a training began at, and what the tree had changed since; None without a repository."""

    model_config = ConfigDict(strict=True, frozen=True)
    commit: str | None
    dirty: bool | None
    diff: str = ""
    """What a dirty tree had changed, for `git apply`; new files by name alone."""
    problem: str = ""
    """Why git did not answer, if there is a repository."""


class TrainingSetup(Record):
    """What is known of a training before it starts, and decides its result."""

    experiment: str
    profile: str
    dataset: str
    seed: NonNegativeInt
    determinism: str
    weights: str | None
    device: str
    devices: PositiveInt
    threads: str
    backend: str
    precision: str
    preprocessing: str
    params: dict[str, Any]
    """As MLflow has them: the recipe, flattened, and the facts above."""
    stage: str
    """Of DVC, such as "train@model_2"."""
    git: GitState
    dependencies: dict[str, str]
    """Path -> MD5 of each dependency of the stage; a folder's is DVC's, ending in ".dir"."""
    hashes: dict[str, str]
    """`data`, `environment`, `params`, `training` (all that decides the bits); `weights` if pretrained."""
    platform: str
    versions: dict[str, str]
    images: dict[str, int]
    """`classes`, `train`, `val`."""
    source: str
    started_at: str
    """ISO 8601."""


class RunRecord(TrainingSetup):
    """models/<name>/run.json: a complete training, and the MLflow run that tracked it."""

    run_id: str
    tracking_uri: str
    artifact_uri: str
    model_uri: str | None
    model_md5: str
    epoch_seconds: list[NonNegativeFloat]
    images_per_second: float
    """NaN if no epoch was timed."""
    resumed_from: list[NonNegativeInt]
    """After how many epochs the training was resumed, each time that it had been stopped."""
    best_epoch: PositiveInt
    """The epoch, from 1, whose weights the model has."""


class Metrics(Record):
    """results/<name>/metrics.json. Accuracies are fractions; `_low` and `_high` are ends of 95 % intervals."""

    train_accuracy: _Fraction
    """In the training log, on augmented images, at the epoch whose weights are kept."""
    train_accuracy_low: _Fraction
    train_accuracy_high: _Fraction
    train_accuracy_clean: _Fraction
    train_accuracy_clean_low: _Fraction
    train_accuracy_clean_high: _Fraction
    val_accuracy: _Fraction
    """On the validation images as they are."""
    val_accuracy_low: _Fraction
    val_accuracy_high: _Fraction
    val_accuracy_paper_protocol: _Fraction
    """On augmented validation images, as the authors measured it."""
    val_accuracy_paper_protocol_low: _Fraction
    val_accuracy_paper_protocol_high: _Fraction
    val_top5_accuracy: _Fraction
    val_top5_accuracy_low: _Fraction
    val_top5_accuracy_high: _Fraction
    val_balanced_accuracy: _Fraction
    val_balanced_accuracy_low: _Fraction
    val_balanced_accuracy_high: _Fraction
    val_loss: float
    """Cross-entropy in nats, without penalties of weights."""
    val_macro_f1: _Fraction
    val_calibration_error: _Fraction
    val_accuracy_one_view: _Fraction | None = None
    """Set if the metrics above are of two views of each image (`flip_at_test`): this one is of the image alone."""
    val_accuracy_one_view_low: _Fraction | None = None
    val_accuracy_one_view_high: _Fraction | None = None
    num_views: PositiveInt | None = None
    num_images: PositiveInt
    """Validation images."""
    num_train_images: PositiveInt
    epochs: PositiveInt
    best_epoch: PositiveInt
    """The epoch, from 1, whose weights the model has."""

    @property
    def val_accuracy_as_served(self) -> float:
        """The validation accuracy of the saved model, which sees one view of each image."""
        return self.val_accuracy if self.val_accuracy_one_view is None else self.val_accuracy_one_view


class Architecture(Record):
    """results/<name>/architecture.json."""

    parameters: PositiveInt
    parameters_200_classes: PositiveInt
    """With Tiny ImageNet's 200 classes instead of the dataset's."""
    batch_normalization_layers: NonNegativeInt
    layers: list[dict[str, Any]]
    """`name`, `type`, `output_shape`, `parameters` of each."""
    model_md5: str
    """Of the model.keras that was evaluated."""


class DataReport(Record):
    """data/overview/report.json."""

    profile: str
    dataset: str
    """Fingerprint of the profile's `dataset`."""
    classes: PositiveInt
    in_archive: dict[str, NonNegativeInt]
    """Split -> labelled images in the archive; likewise `used`, of those that are packed."""
    unlabelled: NonNegativeInt
    train_boxes_without_image: NonNegativeInt
    strays: list[str]
    """Files of the archive that are no labelled images."""
    used: dict[str, NonNegativeInt]
    per_class: dict[str, dict[str, NonNegativeInt]]
    """Split -> wnid -> packed images."""
    train_channel_means: list[float]
    """Of red, green and blue, 0 to 255; likewise the standard deviations."""
    train_channel_standard_deviations: list[float]
    duplicates: dict[str, Any]
    """`dataset.duplicates.describe_duplicates`."""


def read_history(path: Path, *, remedy: str = "") -> "pd.DataFrame":
    """Return history.csv, a row per epoch, exact to the last digit.

    Raises:
        UserError: the file cannot be read, lacks a column, or has a cell that is no number.
    """
    return read_csv(path, _HISTORY, float, remedy=remedy)
