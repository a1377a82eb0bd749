"""Opening a packed dataset, whole or damaged."""

import numpy as np
import pytest

from tiny_imagenet.common.errors import DatasetError
from tiny_imagenet.input_pipeline.packed import SIDE, open_packed


@pytest.fixture
def packed_at(tmp_path):
    """Return the folder of a packed dataset with 12 training and 6 validation images of 3 classes."""
    for split, num_images in (("train", 12), ("val", 6)):
        np.save(tmp_path / f"{split}_images.npy", np.zeros((num_images, SIDE, SIDE, 3), np.uint8))
        np.save(tmp_path / f"{split}_labels.npy", np.arange(num_images, dtype=np.int32) % 3)
        np.save(tmp_path / f"{split}_ranks.npy", np.arange(num_images, dtype=np.int32))
    names = ["goldfish, Carassius auratus", "NA", "crane"]
    rows = [f'{label},n{label},"{name}"\n' for label, name in enumerate(names)]
    (tmp_path / "classes.csv").write_text("label,wnid,name\n" + "".join(rows))
    return tmp_path


@pytest.mark.parametrize("name", ["train_images.npy", "val_labels.npy", "train_ranks.npy", "classes.csv"])
@pytest.mark.parametrize("damage", ["missing", "empty", "garbage"])
def test_cache_with_a_bad_file_is_refused_with_a_remedy(packed_at, name, damage):
    (packed_at / name).unlink()
    if damage == "empty":
        (packed_at / name).touch()
    elif damage == "garbage":
        (packed_at / name).write_bytes(b"\xff\x00garbage" * 99)
    with pytest.raises(DatasetError, match=f"{packed_at} is not a packed dataset: .*run `dvc repro cache`"):
        open_packed(packed_at)


def test_file_that_starts_like_a_zip_is_refused(packed_at):
    (packed_at / "train_images.npy").write_bytes(b"PK\3\4garbage")  # NumPy reads this as an .npz
    with pytest.raises(DatasetError, match="is not a packed dataset"):
        open_packed(packed_at)


def test_truncated_images_are_refused(packed_at):
    path = packed_at / "train_images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DatasetError, match="is not a packed dataset"):
        open_packed(packed_at)


def test_wrong_number_of_labels_is_refused(packed_at):
    np.save(packed_at / "val_labels.npy", np.zeros(5, np.int32))
    with pytest.raises(DatasetError, match="val: 6 images, 5 labels"):
        open_packed(packed_at)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="run `dvc repro cache`"):
        open_packed(tmp_path / "none")


def test_class_names_are_the_first_of_their_synonyms(packed_at):
    packed = open_packed(packed_at)
    assert packed.class_names == ["goldfish", "NA", "crane"]
    assert packed.num_classes == 3
    assert (len(packed.train), len(packed.val)) == (12, 6)
