"""The packed cache, against PIL's decoder and NumPy's statistics."""

import io
import json
import zipfile

import cv2
import numpy as np
import pandas as pd
import pytest
from made_zips import ANY_ARCHIVE, DAMAGE, with_header
from PIL import Image, ImageOps

from tiny_imagenet.common.errors import DatasetError
from tiny_imagenet.dataset.jpeg import decode
from tiny_imagenet.dataset.layout import reorganize
from tiny_imagenet.dataset.packing import drop_from_train, image_paths, pack, samples_per_class, summarize
from tiny_imagenet.input_pipeline.packed import PackedDataset, Split, open_packed


@pytest.fixture
def archive(make_archive):
    return make_archive()


@pytest.fixture
def reorganized(tmp_path):
    """Write a small archive as class folders, and return where they are."""

    def reorganized(archive):
        source = archive.write(tmp_path / "dataset.zip")
        reorganize(source, tmp_path / "images", ANY_ARCHIVE)
        return tmp_path / "images"

    return reorganized


@pytest.fixture
def packed_at(archive, reorganized, tmp_path):
    """Return the folder of a whole cache."""
    pack(reorganized(archive), tmp_path / "cache")
    return tmp_path / "cache"


def decode_with_pil(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))


def largest_difference(first: np.ndarray, second: np.ndarray) -> int:
    return int(np.abs(first.astype(int) - second.astype(int)).max())


def saved(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


class TestDecode:
    @pytest.mark.parametrize("quality", [30, 75, 95])
    @pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
    def test_equals_pil(self, make_pictures, quality, subsampling):
        for pixels in make_pictures(10, seed=quality):
            jpeg = saved(pixels, quality=quality, subsampling=subsampling)
            assert largest_difference(decode(jpeg), decode_with_pil(jpeg)) <= 3

    def test_progressive_equals_pil(self, make_pictures):
        jpeg = saved(make_pictures(1)[0], progressive=True)
        assert largest_difference(decode(jpeg), decode_with_pil(jpeg)) <= 3

    def test_red_is_first(self):
        pixels = decode(saved(np.full((64, 64, 3), (250, 10, 10), np.uint8)))
        assert pixels.mean(axis=(0, 1)) == pytest.approx([250, 10, 10], abs=3)

    def test_grayscale_becomes_rgb(self, make_pictures):
        # As some images of Tiny ImageNet are.
        jpeg = saved(make_pictures(1)[0, ..., 0])
        assert Image.open(io.BytesIO(jpeg)).mode == "L"
        pixels = decode(jpeg)
        assert pixels.shape == (64, 64, 3)
        assert pixels.dtype == np.uint8
        assert (pixels == pixels[..., :1]).all()
        assert largest_difference(pixels, decode_with_pil(jpeg)) <= 1

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientation_of_a_camera_is_followed_as_pil_does(self, make_pictures, orientation):
        exif = Image.Exif()
        exif[0x0112] = orientation
        jpeg = saved(make_pictures(1)[0], exif=exif)
        oracle = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(jpeg))))
        assert largest_difference(decode(jpeg), oracle) <= 3

    def test_cmyk_becomes_rgb_with_pils_colours(self, make_pictures):
        buffer = io.BytesIO()
        Image.fromarray(make_pictures(1)[0]).convert("CMYK").save(buffer, "JPEG")
        np.testing.assert_array_equal(decode(buffer.getvalue()), decode_with_pil(buffer.getvalue()))

    @pytest.mark.parametrize("shape", [(64, 63), (32, 32), (63, 64), (1, 1), (128, 64)])
    def test_wrong_size_is_reported_as_width_by_height(self, shape):
        with pytest.raises(ValueError, match=f"^is {shape[1]} x {shape[0]}, expected 64 x 64$"):
            decode(saved(np.zeros((*shape, 3), np.uint8)))

    def test_cut_anywhere_is_refused(self, make_pictures):
        jpeg = saved(make_pictures(1)[0])
        for end in range(0, len(jpeg) - 1, 17):
            with pytest.raises(ValueError, match="not a complete JPEG"):
                decode(jpeg[:end])

    def test_cut_and_closed_with_an_end_marker_is_refused(self, make_pictures):
        jpeg = saved(make_pictures(1)[0])
        for end in range(len(jpeg) // 2, len(jpeg) - 100, 17):
            with pytest.raises(ValueError, match="not a complete JPEG"):
                decode(jpeg[:end] + b"\xff\xd9")

    def test_a_picture_of_another_format_is_refused(self, make_pictures):
        _, png = cv2.imencode(".png", make_pictures(1)[0])
        with pytest.raises(ValueError, match="not a complete JPEG"):
            decode(png.tobytes() + b"\xff\xd9")

    @pytest.mark.parametrize("content", [b"", b"\xff\xd9", b"garbage" * 100 + b"\xff\xd9", bytes(1000) + b"\xff\xd9"])
    def test_garbage_is_refused(self, content):
        with pytest.raises(ValueError, match=r"not a complete JPEG"):
            decode(content)

    def test_flipped_bytes_give_pixels_or_a_value_error(self, make_pictures):
        jpeg = saved(make_pictures(1)[0])
        rng = np.random.default_rng(0)
        for place, change in zip(rng.integers(0, len(jpeg), 300), rng.integers(1, 256, 300), strict=True):
            damaged = bytearray(jpeg)
            damaged[place] ^= change
            try:
                pixels = decode(bytes(damaged))
            except ValueError:
                continue
            assert pixels.shape == (64, 64, 3)


class TestPack:
    def test_images_equal_pils_decode_of_the_members_in_their_order(self, archive, reorganized, tmp_path):
        images = reorganized(archive)
        packed = pack(images, tmp_path / "cache")
        for split in ("train", "val"):
            with zipfile.ZipFile(images / f"{split}.zip") as file:
                expected = np.stack([decode_with_pil(file.read(name)) for name in file.namelist()])
            assert largest_difference(getattr(packed, split).images, expected) <= 3
        # And they are the pictures that the archive was made of, within what JPEG loses.
        first = archive.pixels[f"train/{archive.wnids[0]}/images/{archive.wnids[0]}_0.JPEG"]
        assert np.abs(packed.train.images[0].astype(int) - first).mean() < 4

    def test_labels_are_those_of_the_manifest(self, archive, reorganized, tmp_path):
        images = reorganized(archive)
        packed = pack(images, tmp_path / "cache")
        manifest = pd.read_csv(images / "manifest.csv")
        for split in ("train", "val"):
            labels = getattr(packed, split).labels
            assert labels.dtype == np.int32
            assert labels.tolist() == manifest[manifest["split"] == split]["label"].tolist()

    def test_pixels_stay_on_disk_and_cannot_be_written(self, packed_at):
        packed = open_packed(packed_at)
        for split in (packed.train, packed.val):
            assert isinstance(split.images, np.memmap)
            with pytest.raises(ValueError, match="read-only"):
                split.images[0] = 0

    def test_cache_has_the_documented_files_and_the_same_bytes_again(self, packed_at, tmp_path):
        before = {path.name: path.read_bytes() for path in packed_at.iterdir()}
        assert before.keys() == {
            f"{split}_{what}.npy" for split in ("train", "val") for what in ("images", "labels", "ranks")
        } | {"classes.csv"}
        pack(tmp_path / "images", packed_at)
        assert {path.name: path.read_bytes() for path in packed_at.iterdir()} == before

    def test_more_images_than_a_chunk_keep_their_order(self, make_jpeg, tmp_path):
        # Each picture has one gray level, which identifies it.
        (tmp_path / "classes.csv").write_text("label,wnid,name\n0,a,first\n1,b,second\n")
        jpegs = [make_jpeg(np.full((64, 64), level, np.uint8)) for level in range(256)]
        rng = np.random.default_rng(0)
        levels = rng.integers(0, 256, 1_100)
        for split in ("train", "val"):
            with zipfile.ZipFile(tmp_path / f"{split}.zip", "w") as file:
                for index, level in enumerate(levels):
                    file.writestr(f"{'ab'[index % 2]}/{index}.JPEG", jpegs[level])
        packed = pack(tmp_path, tmp_path / "cache")
        assert packed.train.images[:, 32, 32, 0] == pytest.approx(levels, abs=1)
        assert packed.train.labels.tolist() == [0, 1] * 550

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_broken_images_are_all_counted_and_named(self, make_archive, reorganized, make_jpeg, tmp_path, split):
        archive = make_archive(3, train=4, val=3)
        first = archive.wnids[0]
        folder, files = {
            "train": (f"train/{first}/images", [f"{first}_{index}.JPEG" for index in (0, 1, 3)]),
            "val": ("val/images", [f"val_{index}.JPEG" for index in (0, 3, 6)]),
        }[split]
        wrong_size, truncated, garbage = (f"{folder}/{file}" for file in files)
        archive.members[wrong_size] = make_jpeg(np.zeros((32, 48, 3), np.uint8))
        archive.members[truncated] = archive.members[truncated][:-200]
        archive.members[garbage] = b"not a picture\xff\xd9"
        names = [f"{split}/{first}/{file}" for file in files]
        with pytest.raises(DatasetError) as caught:
            pack(reorganized(archive), tmp_path / "cache")
        message = str(caught.value)
        assert f"3 images of {tmp_path / 'images' / split}.zip cannot be used" in message
        assert f"{names[0]}: is 48 x 32, expected 64 x 64" in message
        assert f"{names[1]}: is not a complete JPEG" in message
        assert f"{names[2]}: is not a complete JPEG" in message
        assert not (tmp_path / "cache" / f"{split}_images.npy").exists()
        assert list((tmp_path / "cache").glob("*.partial")) == []
        with pytest.raises(DatasetError, match="is not a packed dataset"):
            open_packed(tmp_path / "cache")

    @pytest.mark.parametrize(("field", "value"), DAMAGE)
    def test_of_a_damaged_zip_are_named(self, archive, reorganized, tmp_path, field, value):
        images = reorganized(archive)
        name = zipfile.ZipFile(images / "val.zip").namelist()[0]
        with_header(images / "val.zip", name, field, value)
        with pytest.raises(DatasetError, match=rf"1 images of .*val\.zip cannot be used.*\n +val/{name}: "):
            pack(images, tmp_path / "cache")

    def test_message_shows_ten_and_the_total(self, make_archive, reorganized, tmp_path):
        archive = make_archive(2, train=6, val=1)
        for name in archive.members:
            if name.startswith("train/") and name.endswith(".JPEG"):
                archive.members[name] = b"x"
        with pytest.raises(DatasetError) as caught:
            pack(reorganized(archive), tmp_path / "cache")
        lines = str(caught.value).splitlines()
        assert lines[0].startswith("12 images of")
        assert [line.split(":")[0].strip() for line in lines[1:11]] == sorted(
            f"train/{wnid}/{wnid}_{index}.JPEG" for wnid in archive.wnids for index in range(6)
        )[:10]

    def test_message_shows_each_kind_of_problem(self, make_archive, reorganized, make_jpeg, tmp_path):
        archive = make_archive(2, train=12, val=1)
        names = [name for name in archive.members if name.startswith("train/") and name.endswith(".JPEG")]
        for name in names[:20]:
            archive.members[name] = b"x"
        archive.members[names[-1]] = make_jpeg(np.zeros((32, 48, 3), np.uint8))
        with pytest.raises(DatasetError) as caught:
            pack(reorganized(archive), tmp_path / "cache")
        lines = str(caught.value).splitlines()
        assert lines[0].startswith("21 images of")
        assert sum("is not a complete JPEG" in line for line in lines) == 5
        assert "  ... and 15 more" in lines
        assert sum("is 48 x 32, expected 64 x 64" in line for line in lines) == 1

    def test_class_called_null_keeps_its_name(self, archive, reorganized, tmp_path):
        archive.set_lines("words.txt", [f"{wnid}\tNA" for wnid in archive.wnids])
        assert pack(reorganized(archive), tmp_path / "cache").class_names == ["NA"] * 3

    @pytest.mark.parametrize(
        "names",
        [
            ("01", "02", "03"),
            ("007", "1.10", "1.1"),
            ("1e5", "inf", "nan"),
            ("True", "False", "null"),
            ("2024-01-02", "12:30", "1_000"),
            ("NA", "N/A", "None"),
            ('"', "#", "5 %"),
            ("ñ", "n\u0303", "\u5e8f"),
        ],
    )
    def test_classes_keep_their_names_from_words_txt_to_the_cache_and_the_model(
        self, archive, reorganized, tmp_path, names
    ):
        archive.set_lines("words.txt", map("\t".join, zip(archive.wnids, names, strict=True)))
        packed = pack(reorganized(archive), tmp_path / "cache")
        assert packed.classes["name"].tolist() == list(names)
        assert packed.class_lists == {"wnids": archive.wnids, "class_names": list(names)}

    @pytest.mark.parametrize("wnids", [("1", "02", "1.0"), ("inf", "nan", "1e5"), ("NA", "null", "True")])
    def test_classes_keep_their_ids(self, archive, reorganized, tmp_path, wnids):
        def renamed(text: str) -> str:
            for old, new in zip(archive.wnids, wnids, strict=True):
                text = text.replace(old, new)
            return text

        archive.members = {
            renamed(name): renamed(content.decode()).encode() if name.endswith(".txt") else content
            for name, content in archive.members.items()
        }
        packed = pack(reorganized(archive), tmp_path / "cache")
        assert packed.classes["wnid"].tolist() == sorted(wnids)
        assert packed.class_lists["wnids"] == sorted(wnids)
        folders = [path.split("/")[0] for path in image_paths(tmp_path / "images")["train"]]
        assert packed.classes["wnid"][packed.train.labels].tolist() == folders
        assert summarize(packed, tmp_path / "images")["per_class"]["val"] == dict.fromkeys(sorted(wnids), 2)

    def test_class_with_an_empty_name_is_named_by_its_id(self, archive, reorganized, tmp_path):
        archive.set_lines("words.txt", [f"{archive.wnids[0]}\t ", f"{archive.wnids[1]}\t, second"])
        assert pack(reorganized(archive), tmp_path / "cache").class_names == archive.wnids


def in_memory(images: np.ndarray, labels: list[int], names: list[str]) -> PackedDataset:
    split = Split(images, np.array(labels, np.int32))
    classes = pd.DataFrame(
        {"label": range(len(names)), "wnid": [f"n{place}" for place in range(len(names))], "name": names}
    )
    return PackedDataset(split, split, classes)


class TestSummarize:
    def test_channel_statistics_equal_numpys(self, make_pictures, tmp_path):
        images = make_pictures(700)  # more than a chunk of 512
        images[:, :, :, 0] //= 2
        (tmp_path / "layout.json").write_text("{}")
        report = summarize(in_memory(images, [0] * 700, ["only"]), tmp_path)
        assert report["train_channel_means"] == images.mean(axis=(0, 1, 2)).round(4).tolist()
        assert report["train_channel_standard_deviations"] == images.std(axis=(0, 1, 2)).round(4).tolist()

    def test_classes_are_counted_even_if_one_is_empty(self, make_pictures, tmp_path):
        (tmp_path / "layout.json").write_text("{}")
        report = summarize(in_memory(make_pictures(3), [0, 2, 2], ["a", "b", "c", "d"]), tmp_path)
        counts = {"n0": 1, "n1": 0, "n2": 2, "n3": 0}
        assert report["per_class"] == {"train": counts, "val": counts}

    def test_report_includes_layout_json_and_is_json(self, archive, reorganized, tmp_path):
        archive.members["Thumbs.db"] = b"stray"
        images = reorganized(archive)
        report = json.loads(json.dumps(summarize(pack(images, tmp_path / "cache"), images)))
        assert report["strays"] == ["tiny-imagenet-200/Thumbs.db"]
        assert report["used"] == {"train": 12, "val": 6}
        assert report["per_class"]["val"] == dict.fromkeys(archive.wnids, 2)


class TestSamplesPerClass:
    def test_are_the_papers_four_classes_if_they_exist(self, make_pictures):
        images = make_pictures(6)
        names = ["candle, taper", "a", "b", "c", "lion, king of beasts", "koala"]
        samples = samples_per_class(in_memory(images, [0, 1, 2, 3, 4, 5], names))
        assert list(samples) == ["lion", "koala", "candle"]
        assert (samples["lion"] == images[4:5]).all()

    def test_are_otherwise_the_first_four_classes_and_their_first_images(self, make_pictures):
        images = make_pictures(12)
        samples = samples_per_class(in_memory(images, [0, 1, 2, 3, 4, 5] * 2, list("abcdef")), num_images=1)
        assert list(samples) == list("abcd")
        assert (samples["c"] == images[2:3]).all()


class TestRanks:
    def test_are_by_the_numbers_in_the_names_of_the_files(self, make_archive, reorganized, tmp_path):
        packed = pack(reorganized(make_archive(2, train=12, val=11)), tmp_path / "cache")
        by_name = sorted(range(12), key=str)
        assert packed.train.ranks.tolist() == by_name + [12 + number for number in by_name]
        # The archive's validation images take turns among the classes: val_0, val_2, ... are of the first.
        numbers = sorted(range(0, 22, 2), key=str)
        assert packed.val.ranks[:11].tolist() == [number // 2 for number in numbers]


class TestDropFromTrain:
    def test_more_images_than_two_chunks_keep_pixels_labels_and_order_of_numbers(self, make_pictures, tmp_path):
        images = make_pictures(40)[np.arange(1_300) % 40].copy()
        images[:, 0, 0, :2] = np.stack([np.arange(1_300) // 256, np.arange(1_300) % 256], -1)  # each tells its index
        labels = (np.arange(1_300) % 3).astype(np.int32)
        ranks = np.random.default_rng(0).permutation(1_300).astype(np.int32)
        for split in ("train", "val"):
            for name, array in (("images", images), ("labels", labels), ("ranks", ranks)):
                np.save(tmp_path / f"{split}_{name}.npy", array)
        (tmp_path / "classes.csv").write_text("label,wnid,name\n0,a,first\n1,b,second\n2,c,third\n")
        dropped = np.array([0, 511, 512, 513, 700, 1_299])
        packed = drop_from_train(tmp_path, dropped)
        expected = np.delete(np.arange(1_300), dropped)
        assert (packed.train.images == images[expected]).all()
        assert (packed.train.labels == labels[expected]).all()
        assert (np.argsort(packed.train.ranks) == np.argsort(ranks[expected])).all()
        assert (packed.val.images == images).all()


@pytest.mark.parametrize("name", ["classes.csv", "train.zip", "val.zip"])
def test_a_missing_file_is_named_with_the_stage_that_writes_it(archive, reorganized, tmp_path, name):
    images = reorganized(archive)
    (images / name).unlink()
    with pytest.raises(DatasetError, match=f"{name} does not exist; run `dvc repro reorganize`"):
        pack(images, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()
