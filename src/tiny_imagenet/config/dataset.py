"""The `dataset` of a profile in params.yaml: where it comes from, what to expect of it, how much to use."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tiny_imagenet.common.files import fingerprint
from tiny_imagenet.common.schema import Count, Section

SPLITS = ("train", "val")


class Expect(Section):
    """What the archive must contain, before `num_classes` and `images_per_class` select a part of it."""

    classes: Count | None = None
    """Number of classes. Null: any."""
    train: Count | None = None
    """Training images of each class. Null: any number."""
    val: Count | None = None
    """Validation images of each class. Null: any number."""


class ImagesPerClass(Section):
    """How many images of each class to use: the first ones, by the number in the file name."""

    train: Count | None = None
    """Training images of each class. Null: all."""
    val: Count | None = None
    """Validation images of each class. Null: all."""


class Dataset(Section):
    """Where a profile's images come from: `urls`, an `archive` on disk, or the embedded `digits`."""

    name: Annotated[str, Field(min_length=1)]
    """Name in tables and in MLflow. `digits`, without `urls` and `archive`, is the embedded dataset."""
    urls: tuple[str, ...] = Field(default=(), strict=False)
    """Addresses of the zip (http, https or file), tried in this order. Not used if `archive` is set."""
    md5: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    """Expected MD5 of the zip. Null: not checked."""
    bytes: Count | None = None
    """Expected size of the zip, in bytes. Null: not checked."""
    archive: str | None = None
    """Path of a zip on this disk, relative to the repository's root. Null: download from `urls`."""
    expect: Expect = Expect()
    """What the archive must contain."""
    num_classes: Annotated[int, Field(ge=2)] | None = None
    """How many classes to use, evenly spread over their sorted ids. Null: all."""
    images_per_class: ImagesPerClass = ImagesPerClass()
    """How many images of each class to use."""
    duplicates: Literal["report", "drop_from_train", "fail"] = "report"
    """What to do about duplicate images, exact or near. `report`: list them in the data report. `drop_from_train`: also
    leave out training images that duplicate a validation image or an earlier training image. `fail`: stop if a training
    image duplicates a validation image."""

    @field_validator("urls")
    @classmethod
    def _known_schemes(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if not url.startswith(("https://", "http://", "file://")):
                raise ValueError(f"'{url}' is not an address; start it with http://, https:// or file://")
        return urls

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if not (self.urls or self.archive or self.embedded):
            raise ValueError("no source of images; set `urls`, `archive` (the path of a zip), or the name `digits`")
        return self

    @model_validator(mode="after")
    def _takes_no_more_than_there_is(self) -> Self:
        if self.num_classes and self.expect.classes and self.num_classes > self.expect.classes:
            raise ValueError(f"num_classes is {self.num_classes}, but `expect` has {self.expect.classes} classes")
        for split in SPLITS:
            available, used = getattr(self.expect, split), getattr(self.images_per_class, split)
            if available is not None and used is not None and used > available:
                raise ValueError(f"images_per_class.{split} is {used}, but `expect` has {available} of each class")
        return self

    @property
    def expected_bytes(self) -> int:
        """Bytes that the stages before training write: the archive twice, and 64 x 64 x 3 for each image.

        0 for what `bytes`, `expect` and `num_classes` leave open.
        """
        images_per_class = 0
        for split in SPLITS:
            available, used = getattr(self.expect, split) or 0, getattr(self.images_per_class, split)
            copies = 2 if split == "train" and self.duplicates == "drop_from_train" else 1
            images_per_class += copies * (available if used is None else min(available, used))
        num_classes = self.num_classes or self.expect.classes or 0
        return 2 * (self.bytes or 0) + num_classes * images_per_class * 64 * 64 * 3

    @property
    def fingerprint(self) -> str:
        """A hash of all settings of the dataset."""
        return fingerprint(self.model_dump(mode="json"))

    @property
    def source(self) -> str:
        """Where the images come from, for people to read."""
        return self.archive or ", ".join(self.urls) or "embedded in the project"

    @property
    def embedded(self) -> bool:
        """Whether the images are scikit-learn's digits, which need no download."""
        return self.name == "digits" and not self.urls and self.archive is None
