"""What a profile of params.yaml may say of its dataset: source, contract, and how much of it to use."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from tiny_imagenet.common.files import fingerprint
from tiny_imagenet.common.schema import Count, Section

SPLITS = ("train", "val")


class Expect(Section):
    """What the archive must hold. The whole archive is checked, before `num_classes` and `images_per_class` apply."""

    classes: Count | None = None
    """Number of classes. Null: any."""
    train: Count | None = None
    """Training images of each class. Null: any number."""
    val: Count | None = None
    """Validation images of each class. Null: any number."""


class ImagesPerClass(Section):
    """How many images of each class to use: the first ones, by the number in their name."""

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
    """MD5 that the zip must have. Null: not checked."""
    bytes: Count | None = None
    """Size that the zip must have, in bytes. Null: not checked."""
    archive: str | None = None
    """Path of a zip on this disk, relative to the repository's root. Null: download from `urls`."""
    expect: Expect = Expect()
    """What the archive must hold."""
    num_classes: Annotated[int, Field(ge=2)] | None = None
    """How many classes to use, evenly spread over their sorted ids. Null: all."""
    images_per_class: ImagesPerClass = ImagesPerClass()
    """How many images of each class to use."""
    duplicates: Literal["report", "drop_from_train", "fail"] = "report"
    """What to do about duplicate images, exact or near: list them in the data report; also leave out training images
    that duplicate a validation image or an earlier training image; or stop if a training image duplicates a validation
    image."""

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
        if self.num_classes and self.expect.classes and self.num_classes > self.expect.classes:
            raise ValueError(f"num_classes is {self.num_classes}, but `expect` has {self.expect.classes} classes")
        for split in SPLITS:
            held, taken = getattr(self.expect, split), getattr(self.images_per_class, split)
            if held is not None and taken is not None and taken > held:
                raise ValueError(f"images_per_class.{split} is {taken}, but `expect` has {held} of each class")
        return self

    @property
    def expected_bytes(self) -> int:
        """Bytes that the stages before training write: the archive twice, and 64 x 64 x 3 for every image.

        As far as `bytes`, `expect`, `num_classes` and `images_per_class` tell.
        """
        images = 0
        for split in SPLITS:
            held, taken = getattr(self.expect, split) or 0, getattr(self.images_per_class, split)
            copies = 2 if split == "train" and self.duplicates == "drop_from_train" else 1
            images += (
                copies * (self.num_classes or self.expect.classes or 0) * (held if taken is None else min(held, taken))
            )
        return 2 * (self.bytes or 0) + images * 64 * 64 * 3

    @property
    def fingerprint(self) -> str:
        """What differs where anything here differs."""
        return fingerprint(self.model_dump(mode="json"))

    @property
    def source(self) -> str:
        """Where the images come from, in words."""
        return self.archive or ", ".join(self.urls) or "embedded in the project"

    @property
    def embedded(self) -> bool:
        """Whether the images come with the project (scikit-learn's digits) and nothing is fetched."""
        return self.name == "digits" and not self.urls and self.archive is None
