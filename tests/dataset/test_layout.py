"""The checks of the archive, each against a small archive in the official layout with one fault."""

import hashlib
import json
import random
import zipfile
from collections import defaultdict
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_zips import ANNOTATIONS, EXPECT, contents

from tiny_imagenet.common.tables import read_csv
from tiny_imagenet.config.dataset import Expect, ImagesPerClass
from tiny_imagenet.dataset.layout import Problems, natural_key, parse_boxes


def manifest_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "manifest.csv")


class TestClassFolders:
    def test_validation_images_move_into_the_folder_of_their_class(self, archive, run):
        annotated = [line.split("\t") for line in archive.lines(ANNOTATIONS)]
        expected = {f"{wnid}/{name}": archive.members[f"val/images/{name}"] for name, wnid, *_ in annotated}
        assert contents(run(archive) / "val.zip") == expected
        assert len(expected) == 6

    def test_training_images_keep_their_class_and_bytes(self, archive, run):
        expected = {
            name.removeprefix("train/").replace("/images/", "/"): content
            for name, content in archive.members.items()
            if name.startswith("train/") and name.endswith(".JPEG")
        }
        assert contents(run(archive) / "train.zip") == expected
        assert len(expected) == 12

    def test_labels_are_the_indices_of_the_sorted_ids(self, archive, run):
        assert archive.lines("wnids.txt") != sorted(archive.wnids)
        classes = pd.read_csv(run(archive) / "classes.csv")
        assert classes["label"].tolist() == [0, 1, 2]
        assert classes["wnid"].tolist() == sorted(archive.wnids)

    def test_class_is_named_by_words_txt_or_else_by_its_id(self, archive, run):
        archive.set_lines("words.txt", archive.lines("words.txt")[:-1])
        names = pd.read_csv(run(archive) / "classes.csv")["name"].tolist()
        first, second, last = archive.wnids
        assert names == [f"name of {first}, its synonym", f"name of {second}, its synonym", last]

    @pytest.mark.parametrize("character", ["\u2028", "\x0c", "\x85", "\x1c"])
    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    def test_only_ends_of_lines_end_a_name(self, archive, run, character, end):
        name = f"a{character}b"
        archive.members["words.txt"] = end.join(f"{wnid}\t{name}" for wnid in archive.wnids).encode()
        assert read_csv(run(archive) / "classes.csv", {})["name"].tolist() == [name] * 3

    def test_words_txt_may_be_missing(self, archive, run):
        del archive.members["words.txt"]
        assert pd.read_csv(run(archive) / "classes.csv")["name"].tolist() == archive.wnids

    def test_root_folder_may_have_any_name_or_none(self, archive, run):
        expected = contents(run(archive, name="a") / "val.zip")
        for root in ("", "mine/deep/"):
            archive.root = root
            assert contents(run(archive, name=f"b{len(root)}") / "val.zip") == expected

    def test_windows_line_ends_change_nothing(self, archive, run):
        expected = (run(archive, name="a") / "manifest.csv").read_bytes()
        for name in archive.members:
            if name.endswith(".txt"):
                archive.members[name] = archive.members[name].replace(b"\n", b"\r\n")
        assert (run(archive, name="b") / "manifest.csv").read_bytes() == expected


class TestBytes:
    def test_are_the_same_for_every_order_of_the_members(self, archive, run):
        expected = {path.name: path.read_bytes() for path in run(archive, name="first").iterdir()}
        assert expected.keys() == {"train.zip", "val.zip", "classes.csv", "manifest.csv", "layout.json"}
        for seed in range(3):
            order = list(archive.members)
            random.Random(seed).shuffle(order)  # noqa: S311 - repeatable, not secret
            folder = run(archive, name=f"again_{seed}", order=order)
            assert {path.name: path.read_bytes() for path in folder.iterdir()} == expected

    def test_members_are_stored_sorted_and_dated_1980(self, archive, run):
        folder = run(archive)
        for split in ("train", "val"):
            with zipfile.ZipFile(folder / f"{split}.zip") as file:
                infos = file.infolist()
            assert [info.filename for info in infos] == sorted(info.filename for info in infos)
            assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
            assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}


class TestManifest:
    def test_has_a_row_for_every_image_in_the_order_of_the_zips(self, archive, run):
        folder = run(archive)
        manifest = manifest_of(folder)
        assert ",".join(manifest.columns) == "split,path,wnid,label,xmin,ymin,xmax,ymax,sha1"
        for split in ("train", "val"):
            rows = manifest[manifest["split"] == split]
            stored = contents(folder / f"{split}.zip")
            assert rows["path"].tolist() == list(stored)
            assert rows["sha1"].tolist() == [hashlib.sha1(jpeg).hexdigest() for jpeg in stored.values()]  # noqa: S324
            assert rows["wnid"].tolist() == [path.split("/")[0] for path in stored]
            assert rows["label"].tolist() == [archive.wnids.index(wnid) for wnid in rows["wnid"]]

    def test_has_the_box_of_every_image(self, archive, run):
        boxes = {}
        for wnid in archive.wnids:
            for line in archive.lines(f"train/{wnid}/{wnid}_boxes.txt"):
                name, *corners = line.split("\t")
                boxes[f"{wnid}/{name}"] = [int(corner) for corner in corners]
        for line in archive.lines(ANNOTATIONS):
            name, wnid, *corners = line.split("\t")
            boxes[f"{wnid}/{name}"] = [int(corner) for corner in corners]
        manifest = manifest_of(run(archive)).set_index("path")
        assert {path: row.tolist() for path, row in manifest.loc[:, "xmin":"ymax"].iterrows()} == boxes

    def test_leaves_the_box_empty_where_none_is_annotated(self, archive, run):
        name = archive.wnids[0]
        del archive.members[f"train/{name}/{name}_boxes.txt"]
        archive.set_lines(ANNOTATIONS, ["\t".join(line.split("\t")[:2]) for line in archive.lines(ANNOTATIONS)])
        folder = run(archive)
        manifest = manifest_of(folder)
        empty = manifest["xmin"].isna()
        assert empty.equals((manifest["split"] == "val") | (manifest["wnid"] == name))
        assert f"train,{name}/{name}_0.JPEG,{name},0,,,,," in (folder / "manifest.csv").read_text()


class TestCounts:
    def test_that_are_as_expected_pass(self, archive, run):
        summary = json.loads((run(archive, expect=EXPECT) / "layout.json").read_text())
        assert summary == {
            "classes": 3,
            "in_archive": {"train": 12, "val": 6},
            "unlabelled": 1,
            "train_boxes_without_image": 0,
            "strays": [],
            "used": {"train": 12, "val": 6},
        }

    def test_class_that_is_missing_is_refused(self, archive, refused):
        wnid = archive.wnids[1]
        archive.set_lines("wnids.txt", [other for other in archive.wnids if other != wnid])
        archive.members = {name: content for name, content in archive.members.items() if wnid not in name}
        kept = [line for line in archive.lines(ANNOTATIONS) if wnid not in line]
        archive.set_lines(ANNOTATIONS, kept)
        for index in range(1, 6, 3):
            del archive.members[f"val/images/val_{index}.JPEG"]
        message = refused(archive, expect=EXPECT)
        assert "1 problem:\n  wnids.txt: expected 3 classes, found 2" in message

    def test_one_training_image_too_few_is_named_by_its_class(self, archive, refused):
        wnid = archive.wnids[2]
        del archive.members[f"train/{wnid}/images/{wnid}_3.JPEG"]
        message = refused(archive, expect=EXPECT)
        assert f"1 problem:\n  train: expected 4 of class {wnid}, found 3" in message

    def test_one_training_image_too_many_is_named_by_its_class(self, archive, refused):
        wnid = archive.wnids[2]
        archive.members[f"train/{wnid}/images/{wnid}_4.JPEG"] = b"jpeg"
        assert f"train: expected 4 of class {wnid}, found 5" in refused(archive, expect=EXPECT)

    def test_validation_of_9950_instead_of_10000_is_refused(self, make_archive, refused):
        # The authors' runs found 9,950: one image of every class was lost, with its line.
        archive = make_archive(20, train=1, val=5)
        archive.set_lines(ANNOTATIONS, archive.lines(ANNOTATIONS)[:-20])
        for index in range(80, 100):
            del archive.members[f"val/images/val_{index}.JPEG"]
        message = refused(archive, expect=Expect(classes=20, train=1, val=5))
        assert "20 problems" in message
        assert f"val: expected 5 of class {archive.wnids[0]}, found 4" in message

    def test_class_without_any_image_is_always_refused(self, archive, refused):
        archive.set_lines("wnids.txt", [*archive.wnids, "n99999999"])
        message = refused(archive)
        assert "train: expected at least one of class n99999999, found 0" in message
        assert "val: expected at least one of class n99999999, found 0" in message

    def test_are_checked_on_the_whole_archive_not_on_the_part_used(self, archive, run, refused):
        few = ImagesPerClass(train=1, val=1)
        run(archive, expect=EXPECT, images_per_class=few, name="few")
        assert "expected 1 of class" in refused(archive, expect=Expect(train=1), images_per_class=few)


class TestValidationAnnotations:
    def test_annotated_but_missing_image_is_named(self, archive, refused):
        del archive.members["val/images/val_3.JPEG"]
        assert "val/images/val_3.JPEG: annotated but missing" in refused(archive)

    def test_image_without_annotation_is_named(self, archive, refused):
        archive.set_lines(ANNOTATIONS, archive.lines(ANNOTATIONS)[1:])
        assert "val/images/val_0.JPEG: not annotated" in refused(archive)

    def test_image_annotated_twice_is_named_with_its_line(self, archive, refused):
        lines = archive.lines(ANNOTATIONS)
        archive.set_lines(ANNOTATIONS, [*lines, f"val_0.JPEG\t{archive.wnids[1]}\t1\t2\t3\t4"])
        assert f"1 problem:\n  {ANNOTATIONS} line 7: 'val_0.JPEG' is annotated twice" in refused(archive)

    def test_unknown_class_is_named(self, archive, refused):
        lines = archive.lines(ANNOTATIONS)
        archive.set_lines(ANNOTATIONS, [*lines[:-1], lines[-1].replace(archive.wnids[2], "n99999999")])
        assert "val/images/val_5.JPEG: its class 'n99999999' is not in wnids.txt" in refused(archive)

    def test_line_that_cannot_be_parsed_is_named(self, archive, refused):
        lines = archive.lines(ANNOTATIONS)
        archive.set_lines(ANNOTATIONS, [*lines[:-1], lines[-1].replace("\t", " ")])
        assert f"{ANNOTATIONS} line 6: expected 2 or 6 columns: 'val_5.JPEG {archive.wnids[2]}" in refused(archive)

    def test_class_of_training_images_that_is_not_in_wnids_txt_is_named(self, archive, refused):
        archive.members["train/n99999999/images/n99999999_0.JPEG"] = b"jpeg"
        assert "train/n99999999: 1 images of a class that is not in wnids.txt" in refused(archive)


class TestMessage:
    @pytest.mark.parametrize(("num_missing", "told"), [(1, "1 problem:"), (10, "10 problems:"), (25, "25 problems:")])
    def test_shows_the_first_ten_lines_and_the_total(self, make_archive, refused, num_missing, told):
        archive = make_archive(3, train=1, val=10)
        missing = sorted(f"val/images/val_{index}.JPEG" for index in range(num_missing))
        for name in missing:
            del archive.members[name]
        message = refused(archive)
        assert told in message
        assert [line.strip() for line in message.splitlines()[1:11]] == [
            f"{name}: annotated but missing" for name in missing[:10]
        ]
        assert message.endswith("... and 15 more") == (num_missing == 25)
        assert len(message.splitlines()) == 1 + min(num_missing, 10) + (num_missing > 10)

    def test_shows_some_of_each_kind_of_problem(self, make_archive, refused):
        archive = make_archive(3, train=2, val=20)
        first, second, _ = archive.wnids
        lines = archive.lines(ANNOTATIONS)
        for index in range(20):
            del archive.members[f"val/images/val_{index}.JPEG"]
        lines[20:30] = [line.replace("\t", " ") for line in lines[20:30]]
        lines[30] = f"val_30.JPEG\t{first}\t1\tx\t3\t4"
        archive.set_lines(ANNOTATIONS, [*lines, f"val_31.JPEG\t{second}"])
        archive.members["train/n99999999/images/n99999999_0.JPEG"] = b"jpeg"
        message = refused(archive, expect=Expect(train=3))
        for kind in (
            "val/images/val_0.JPEG: annotated but missing",
            f"{ANNOTATIONS} line 21: expected 2 or 6 columns",
            f"{ANNOTATIONS} line 31: a corner of the box is not a whole number",
            f"{ANNOTATIONS} line 61: 'val_31.JPEG' is annotated twice",
            "val/images/val_20.JPEG: not annotated",
            "train/n99999999: 1 images of a class that is not in wnids.txt",
            f"train: expected 3 of class {first}, found 2",
        ):
            assert kind in message
        counts = [int(line.split()[2]) for line in message.splitlines() if line.strip().startswith("... and")]
        total = int(message.split("params.yaml. ")[1].split()[0])
        assert total == 20 + 10 + 1 + 1 + 11 + 1 + 3 == len(message.splitlines()) - 1 - len(counts) + sum(counts)


class TestClassFoldersInVal:
    """A val/ that somebody has moved into class folders already."""

    PLACES = ("val/{wnid}/images/{file}", "val/{wnid}/{file}", "val/images/{wnid}/{file}")

    @staticmethod
    def moved(archive, place):
        classes = {line.split("\t")[0]: line.split("\t")[1] for line in archive.lines(ANNOTATIONS)}
        for file, wnid in classes.items():
            archive.members[place.format(wnid=wnid, file=file)] = archive.members.pop(f"val/images/{file}")
        return archive

    @pytest.mark.parametrize("place", PLACES)
    def test_is_accepted_as_it_is(self, archive, run, place):
        expected = run(archive, name="flat")
        folder = run(self.moved(archive, place), expect=EXPECT, name="folders")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            path.name: path.read_bytes() for path in expected.iterdir()
        }

    @pytest.mark.parametrize("place", PLACES)
    def test_needs_no_annotations(self, archive, run, place):
        expected = contents(run(archive, name="flat") / "val.zip")
        del self.moved(archive, place).members[ANNOTATIONS]
        folder = run(archive, expect=EXPECT, name="folders")
        assert contents(folder / "val.zip") == expected
        assert manifest_of(folder)["xmin"].isna().tolist() == [False] * 12 + [True] * 6

    def test_that_contradicts_the_annotations_is_refused(self, archive, refused):
        first, second, _ = archive.wnids
        self.moved(archive, "val/{wnid}/{file}")
        archive.members[f"val/{second}/val_0.JPEG"] = archive.members.pop(f"val/{first}/val_0.JPEG")
        message = refused(archive)
        problem = f"val/{second}/val_0.JPEG: annotated as '{first}', but in the folder of '{second}'"
        assert f"1 problem:\n  {problem}" in message

    def test_of_an_unknown_class_is_named(self, archive, refused):
        del archive.members[ANNOTATIONS]
        archive.members = {name: one for name, one in archive.members.items() if not name.startswith("val/")}
        archive.members["val/n99999999/val_0.JPEG"] = b"jpeg"
        assert "val/n99999999: 1 images of a class that is not in wnids.txt" in refused(archive)

    def test_with_a_missing_image_is_refused(self, archive, refused):
        self.moved(archive, "val/{wnid}/{file}")
        del archive.members[f"val/{archive.wnids[0]}/val_0.JPEG"]
        assert "1 problem:\n  val/images/val_0.JPEG: annotated but missing" in refused(archive)

    def test_with_images_of_another_format_is_refused_with_the_reason(self, archive, refused):
        archive.members = {name.replace(".JPEG", ".png"): content for name, content in archive.members.items()}
        archive.set_lines("val/val_annotations.txt", [f"val_{index}.png\t{archive.wnids[0]}" for index in range(2)])
        message, first = refused(archive), archive.wnids[0]
        assert "val/images/val_0.png: not a .jpeg or .jpg file; convert it to JPEG" in message
        assert f"{first}, found 0; '{archive.root}train/{first}/images/{first}_0.png': not a .jpeg or .jpg" in message
        assert "did you mean" not in message

    def test_with_a_stray_in_a_class_without_images_has_no_advice_to_convert_it(self, archive, refused):
        first = archive.wnids[0]
        for name in [name for name in archive.members if f"train/{first}/" in name]:
            archive.members[f"train/{first}/.DS_Store"] = archive.members.pop(name)
        message = refused(archive)
        assert f"{first}, found 0" in message
        assert "convert" not in message

    def test_moved_in_part_is_refused_with_the_path_of_the_rest(self, archive, refused):
        first = archive.wnids[0]
        archive.members[f"val/{first}/val_0.JPEG"] = archive.members.pop("val/images/val_0.JPEG")
        message = refused(archive)
        assert f"val/images/val_0.JPEG: annotated but missing (did you mean 'val/{first}/val_0.JPEG'?)" in message

    @pytest.mark.parametrize("place", PLACES)
    def test_a_stray_image_beside_the_class_folders_is_left_out(self, archive, run, place):
        expected = contents(run(archive, name="official") / "val.zip")
        self.moved(archive, place)
        del archive.members[ANNOTATIONS]
        archive.members["val/images/thumb.JPEG"] = b"jpeg"
        folder = run(archive, name="stray")
        assert contents(folder / "val.zip") == expected
        assert json.loads((folder / "layout.json").read_text())["strays"] == [f"{archive.root}val/images/thumb.JPEG"]

    def test_training_images_may_be_in_plain_class_folders_too(self, archive, run):
        expected = contents(run(archive, name="official") / "train.zip")
        archive.members = {
            name.replace("/images/", "/") if name.startswith("train/") else name: content
            for name, content in archive.members.items()
        }
        folder = run(archive, expect=EXPECT, name="plain")
        assert contents(folder / "train.zip") == expected
        assert json.loads((folder / "layout.json").read_text())["strays"] == []

    def test_each_class_may_have_its_training_images_in_another_folder(self, archive, run):
        expected = contents(run(archive, name="official") / "train.zip")
        first = archive.wnids[0]
        archive.members = {
            name.replace(f"train/{first}/images/", f"train/{first}/"): content
            for name, content in archive.members.items()
        }
        folder = run(archive, expect=EXPECT, name="mixed")
        assert contents(folder / "train.zip") == expected
        assert json.loads((folder / "layout.json").read_text())["strays"] == []

    def test_class_with_images_in_two_folders_is_refused_with_the_path_of_the_rest(self, archive, refused):
        first = archive.wnids[0]
        moved = f"train/{first}/{first}_3.JPEG"
        archive.members[moved] = archive.members.pop(f"train/{first}/images/{first}_3.JPEG")
        message = refused(archive, expect=EXPECT)
        assert f"train: expected 4 of class {first}, found 3; 1 more is in another folder: '" in message
        assert f"/{moved}'" in message


class TestBoxFiles:
    def test_longer_than_the_images_are_accepted_and_counted(self, archive, run):
        # A part of the official archive keeps the box files of the whole.
        first, second, _ = archive.wnids
        del archive.members[f"train/{first}/images/{first}_2.JPEG"]
        for index in (0, 3):
            del archive.members[f"train/{second}/images/{second}_{index}.JPEG"]
        summary = json.loads((run(archive) / "layout.json").read_text())
        assert summary["train_boxes_without_image"] == 3
        assert summary["in_archive"]["train"] == 9

    @pytest.mark.parametrize("corner", ["1.5", "x", "", "9" * 30, "1_0", "٣"])
    def test_corner_that_is_not_a_whole_number_of_pixels_is_named(self, archive, refused, corner):
        wnid = archive.wnids[0]
        member = f"train/{wnid}/{wnid}_boxes.txt"
        archive.set_lines(member, [f"{wnid}_0.JPEG\t0\t{corner}\t2\t3"])
        assert f"{member} line 1: a corner of the box is not a whole number: '{wnid}_0.JPEG" in refused(archive)


class TestParseBoxes:
    names = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)
    boxes = st.none() | st.tuples(*[st.integers(-999_999_999, 999_999_999)] * 4)

    @given(st.dictionaries(names, st.tuples(names, boxes)))
    def test_annotations_survive_a_round_trip(self, annotations):
        text = "".join(
            "\t".join([name, wnid, *(str(corner) for corner in box or ())]) + "\n"
            for name, (wnid, box) in annotations.items()
        )
        problems: Problems = defaultdict(list)
        assert parse_boxes(text, 2, "annotations", problems) == annotations
        assert problems == {}

    @given(st.dictionaries(names, boxes))
    def test_boxes_survive_a_round_trip(self, boxes):
        text = "".join("\t".join([name, *map(str, box or ())]) + "\r\n" for name, box in boxes.items())
        problems: Problems = defaultdict(list)
        assert parse_boxes(text, 1, "boxes", problems) == {name: ("", box) for name, box in boxes.items()}
        assert problems == {}

    @given(st.text(st.sampled_from("ab.\t\n\r -+_0٣²") | st.characters()), st.sampled_from([1, 2]))
    def test_every_line_of_any_text_is_parsed_or_a_problem(self, text, columns):
        problems: Problems = defaultdict(list)
        parsed = parse_boxes(text, columns, "where", problems)
        assert len(parsed) + sum(map(len, problems.values())) == sum(
            bool(line.strip()) for line in text.replace("\r", "\n").split("\n")
        )
        for _, box in parsed.values():
            assert box is None or all(abs(corner) < 2**31 for corner in box)


class TestFirstOfEachClass:
    def test_are_selected_by_number_for_each_split(self, make_archive, run):
        archive = make_archive(2, train=12, val=11)
        folder = run(archive, images_per_class=ImagesPerClass(train=11, val=2))
        assert sorted(contents(folder / "train.zip")) == sorted(
            f"{wnid}/{wnid}_{index}.JPEG" for wnid in archive.wnids for index in range(11)
        )
        first, second = archive.wnids
        assert sorted(contents(folder / "val.zip")) == sorted(
            [f"{first}/val_0.JPEG", f"{second}/val_1.JPEG", f"{first}/val_2.JPEG", f"{second}/val_3.JPEG"]
        )
        assert len(manifest_of(folder)) == 22 + 4
        summary = json.loads((folder / "layout.json").read_text())
        assert (summary["in_archive"], summary["used"]) == ({"train": 24, "val": 22}, {"train": 22, "val": 4})

    def test_are_all_images_if_fewer_exist(self, archive, run):
        assert len(contents(run(archive, images_per_class=ImagesPerClass(train=99)) / "train.zip")) == 12

    def test_natural_order_is_that_of_the_numbers(self):
        names = ["val_10.JPEG", "val_9.JPEG", "val_100.JPEG", "val_1.JPEG", "n2_3.JPEG", "n2_20.JPEG", "n10_1.JPEG"]
        assert sorted(names, key=natural_key) == [
            "n2_3.JPEG",
            "n2_20.JPEG",
            "n10_1.JPEG",
            "val_1.JPEG",
            "val_9.JPEG",
            "val_10.JPEG",
            "val_100.JPEG",
        ]

    @given(st.lists(st.text(st.sampled_from("a1²9٣_") | st.characters(), max_size=8)))
    def test_any_names_can_be_ordered(self, names):
        assert sorted(sorted(names, key=natural_key)) == sorted(names)

    @pytest.mark.parametrize("name", ["5²5.JPEG", "٣" * 5_000 + ".JPEG", "1" * 5_000 + ".JPEG"])
    def test_digits_that_are_not_numbers_do_not_crash(self, archive, run, name):
        archive.members[f"train/{archive.wnids[0]}/images/{name}"] = b"jpeg"
        assert len(contents(run(archive) / "train.zip")) == 13

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_two_images_with_the_same_new_name_are_refused(self, archive, refused, split):
        first = archive.wnids[0]
        if split == "val":
            archive.members["val/images/val_0.jpg"] = b"jpeg"
            archive.set_lines(ANNOTATIONS, [*archive.lines(ANNOTATIONS), f"val_0.jpg\t{first}"])
        else:
            archive.members[f"train/{first}/images/{first}_0.jpg"] = b"jpeg"
        assert "would have the same name" in refused(archive)


class TestFewerClasses:
    def test_they_are_spread_evenly_and_relabelled(self, archive, run):
        wnids = sorted(archive.wnids)
        folder = run(archive, num_classes=2)
        expected = [wnids[0], wnids[len(wnids) // 2]]
        classes = pd.read_csv(folder / "classes.csv")
        assert list(classes["wnid"]) == expected
        assert list(classes["label"]) == [0, 1]
        assert set(manifest_of(folder)["wnid"]) == set(expected)
        assert {name.split("/")[0] for name in contents(folder / "train.zip")} == set(expected)

    def test_all_of_them_are_the_same_as_no_number(self, archive, run):
        whole = run(archive, name="whole")
        named = run(archive, num_classes=len(archive.wnids), name="named")
        assert {path.name: path.read_bytes() for path in whole.iterdir()} == {
            path.name: path.read_bytes() for path in named.iterdir()
        }

    def test_more_than_exist_is_refused(self, archive, refused):
        count = len(archive.wnids)
        message = refused(archive, num_classes=count + 1)
        assert f"has {count} classes, but `num_classes` is {count + 1}" in message
