"""The content of the JSON files that the pipeline writes, each as a type, and of history.csv.

If a file lacks a key or a column, or has a value of the wrong type, reading raises a `UserError` with a remedy.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, ValidationError

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import read_json, restore_command, write_text
from tiny_imagenet.common.tables import ColumnType, read_csv

if TYPE_CHECKING:
    import pandas as pd

_HISTORY: dict[str, ColumnType] = {
    "epoch": int, "accuracy": float, "val_accuracy": float, "loss": float, "val_loss": float
}  # fmt: skip
_Fraction = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """A JSON file that one stage writes and others read. Unknown keys are ignored."""

    model_config = ConfigDict(strict=True, frozen=True)

    @classmethod
    def read(cls, path: Path, *, remedy: str = "") -> Self:
        """Return the record in a file.

        If the file cannot be read, lacks a key, or has a value of the wrong type, raise a UserError that ends with the
        `remedy`; by default: how to restore the file from DVC's cache.
        """
        remedy = remedy or f"{restore_command(path)}, or `dvc repro` if another version of the code wrote it"
        try:
            return cls.model_validate(read_json(path, remedy=remedy))
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise UserError(f"{path} cannot be read ({key}: {first['msg']}): {remedy}") from None

    def as_dict(self) -> dict[str, Any]:
        """Return the values that are set, in the order of the class, as in the file."""
        return self.model_dump(exclude_unset=True)

    def write(self, path: Path) -> None:
        """Write the values that are set, atomically."""
        write_text(path, json.dumps(self.as_dict(), indent=2) + "\n")


class GitState(BaseModel):
    """The commit that a training started from, and the changes since then. None: no repository."""

    model_config = ConfigDict(strict=True, frozen=True)
    commit: str | None
    dirty: bool | None
    diff: str = ""
    """Changes of a dirty tree, for `git apply`. Of new files it has the names only."""
    problem: str = ""
    """Why git did not answer, if there is a repository."""


class TrainingSetup(Record):
    """Facts of a training that are known before it starts."""

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
    """As in MLflow: the flattened recipe and the facts above."""
    stage: str
    """DVC's stage, such as "train@model_2"."""
    git: GitState
    dependencies: dict[str, str]
    """Path -> MD5 of each dependency of the stage; of a folder, DVC's hash, which ends in ".dir"."""
    hashes: dict[str, str]
    """`data`, `environment`, `params`, `training` (the training's key); `weights` if pretrained."""
    platform: str
    versions: dict[str, str]
    images: dict[str, int]
    """Numbers of `classes`, and of `train` and `val` images."""
    source: str
    started_at: str
    """ISO 8601."""


class RunRecord(TrainingSetup):
    """models/<name>/run.json: a completed training and its MLflow run."""

    run_id: str
    tracking_uri: str
    artifact_uri: str
    model_uri: str | None
    model_md5: str
    epoch_seconds: list[NonNegativeFloat]
    images_per_second: float
    """NaN if no epoch was measured."""
    resumed_from: list[NonNegativeInt]
    """The number of completed epochs at each resume."""
    best_epoch: PositiveInt
    """The epoch, from 1, whose weights the model has."""


class Metrics(Record):
    """results/<name>/metrics.json. Accuracies are fractions; `_low` and `_high` are the ends of 95 % intervals."""

    train_accuracy: _Fraction
    """From the training log: on augmented images, at the epoch whose weights are kept."""
    train_accuracy_low: _Fraction
    train_accuracy_high: _Fraction
    train_accuracy_clean: _Fraction
    train_accuracy_clean_low: _Fraction
    train_accuracy_clean_high: _Fraction
    val_accuracy: _Fraction
    """On validation images without augmentation."""
    val_accuracy_low: _Fraction
    val_accuracy_high: _Fraction
    val_accuracy_paper_protocol: _Fraction
    """On augmented validation images, as measured by the authors."""
    val_accuracy_paper_protocol_low: _Fraction
    val_accuracy_paper_protocol_high: _Fraction
    val_top5_accuracy: _Fraction
    val_top5_accuracy_low: _Fraction
    val_top5_accuracy_high: _Fraction
    val_balanced_accuracy: _Fraction
    val_balanced_accuracy_low: _Fraction
    val_balanced_accuracy_high: _Fraction
    val_loss: float
    """Cross-entropy in nats, without weight penalties."""
    val_macro_f1: _Fraction
    val_calibration_error: _Fraction
    val_accuracy_one_view: _Fraction | None = None
    """Set if the metrics above use two views of each image (`flip_at_test`). This one uses the image alone."""
    val_accuracy_one_view_low: _Fraction | None = None
    val_accuracy_one_view_high: _Fraction | None = None
    num_views: PositiveInt | None = None
    num_images: PositiveInt
    """Number of validation images."""
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
    """With the 200 classes of Tiny ImageNet instead of those of the dataset."""
    batch_normalization_layers: NonNegativeInt
    layers: list[dict[str, Any]]
    """`name`, `type`, `output_shape`, `parameters` of each."""
    model_md5: str
    """Of the evaluated model.keras."""


class DataReport(Record):
    """data/overview/report.json."""

    profile: str
    dataset: str
    """Fingerprint of the profile's `dataset`."""
    classes: PositiveInt
    in_archive: dict[str, NonNegativeInt]
    """Split -> number of labelled images in the archive; `used` has those that are packed."""
    unlabelled: NonNegativeInt
    train_boxes_without_image: NonNegativeInt
    strays: list[str]
    """Files of the archive that are not labelled images."""
    used: dict[str, NonNegativeInt]
    per_class: dict[str, dict[str, NonNegativeInt]]
    """Split -> wnid -> number of packed images."""
    train_channel_means: list[float]
    """Of red, green and blue, 0 to 255; also the standard deviations."""
    train_channel_standard_deviations: list[float]
    duplicates: dict[str, Any]
    """`dataset.duplicates.describe_duplicates`."""


def read_history(path: Path, *, remedy: str = "") -> "pd.DataFrame":
    """Return history.csv: a row per epoch, exact to the last digit. Raise UserError as `read_csv` does."""
    return read_csv(path, _HISTORY, float, remedy=remedy)
