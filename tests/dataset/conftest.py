"""Reorganize small archives."""

from pathlib import Path

import pytest

from tiny_imagenet.common.errors import DatasetError
from tiny_imagenet.config.dataset import Expect, ImagesPerClass
from tiny_imagenet.dataset.layout import reorganize


@pytest.fixture
def archive(make_archive):
    return make_archive()


@pytest.fixture
def run(tmp_path):
    """Reorganize a small archive, or the zip at a path, and return the folder. After an error it must be empty."""

    def run(source, *, expect=None, images_per_class=None, num_classes=None, name="images", order=None):
        if not isinstance(source, Path):
            source = source.write(tmp_path / "dataset.zip", order)
        try:
            reorganize(
                source,
                tmp_path / name,
                expect=expect or Expect(),
                images_per_class=images_per_class or ImagesPerClass(),
                num_classes=num_classes,
            )
        except DatasetError:
            assert list((tmp_path / name).glob("*")) == []
            raise
        return tmp_path / name

    return run


@pytest.fixture
def refused(run):
    """Return the error message for a source."""

    def refused(source, **arguments):
        with pytest.raises(DatasetError) as caught:
            run(source, **arguments)
        return str(caught.value)

    return refused
