"""Reorganize small archives."""

from pathlib import Path

import pytest

from tiny_imagenet.common.errors import DatasetError
from tiny_imagenet.config.dataset import Dataset
from tiny_imagenet.dataset.layout import reorganize


@pytest.fixture
def archive(make_archive):
    return make_archive()


@pytest.fixture
def run(tmp_path):
    """Reorganize a small archive, or the zip at a path, and return the folder. After an error it must be empty."""

    def run(source, *, name="images", order=None, **settings):
        if not isinstance(source, Path):
            source = source.write(tmp_path / "dataset.zip", order)
        try:
            reorganize(source, tmp_path / name, Dataset(name="small", archive="dataset.zip", **settings))
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
