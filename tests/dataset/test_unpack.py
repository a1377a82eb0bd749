import zipfile

import numpy as np
import pytest
from made_zips import ANY_ARCHIVE, DAMAGE, with_header

from tiny_imagenet.common.errors import DatasetError, UserError
from tiny_imagenet.dataset.layout import reorganize
from tiny_imagenet.dataset.unpack import unpack


@pytest.fixture
def images(tmp_path, make_archive):
    source = make_archive(3, train=4, val=2).write(tmp_path / "dataset.zip")
    reorganize(source, tmp_path / "images", ANY_ARCHIVE)
    return tmp_path / "images"


def test_every_image_becomes_a_file_in_its_class_folder(images, tmp_path):
    assert unpack(images, tmp_path / "plain") == {"train": 12, "val": 6}
    for split in ("train", "val"):
        with zipfile.ZipFile(images / f"{split}.zip") as archive:
            files = {path for path in (tmp_path / "plain" / split).rglob("*") if path.is_file()}
            assert files == {tmp_path / "plain" / split / name for name in archive.namelist()}
            for name in archive.namelist():
                assert (tmp_path / "plain" / split / name).read_bytes() == archive.read(name)


def test_an_existing_folder_is_refused_and_not_changed(images, tmp_path):
    (tmp_path / "plain" / "val").mkdir(parents=True)
    (tmp_path / "plain" / "val" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists; choose an empty folder"):
        unpack(images, tmp_path / "plain")
    assert [path.name for path in (tmp_path / "plain").rglob("*")] == ["val", "mine.txt"]


def test_without_the_zips_the_error_names_the_stage_to_run(tmp_path):
    with pytest.raises(DatasetError, match="dvc repro reorganize"):
        unpack(tmp_path, tmp_path / "plain")


@pytest.mark.parametrize(("field", "value"), DAMAGE)
def test_a_damaged_zip_is_refused_and_leaves_no_folder(images, tmp_path, field, value):
    with zipfile.ZipFile(images / "val.zip") as archive:
        name = archive.namelist()[0]
    with_header(images / "val.zip", name, field, value)
    with pytest.raises(UserError, match=r"cannot unpack .*val\.zip: .*; run `dvc repro -f reorganize`"):
        unpack(images, tmp_path / "plain")
    assert list((tmp_path / "plain").glob("*")) == []


def test_an_interrupted_unpacking_leaves_no_folder_that_looks_complete(images, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(zipfile.ZipFile, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(images, tmp_path / "plain")
    assert list((tmp_path / "plain").glob("*")) == []


def test_keras_reads_the_folders_with_the_same_classes_and_labels(images, tmp_path, keras):
    unpack(images, tmp_path / "plain")
    dataset = keras.utils.image_dataset_from_directory(
        tmp_path / "plain" / "val", image_size=(64, 64), shuffle=False, batch_size=None, verbose=False
    )
    names = [line.split(",")[1] for line in (images / "classes.csv").read_text().splitlines()[1:]]
    assert dataset.class_names == names
    assert [int(label) for _, label in dataset] == [0, 0, 1, 1, 2, 2]
    assert next(iter(dataset))[0].shape == (64, 64, 3)
    assert np.ptp(np.asarray(next(iter(dataset))[0])) > 100
