"""Archives from other systems, with strays, hostile members or damage."""

import copy
import json
import random
import stat
import struct
import tracemalloc
import unicodedata
import zipfile

import pytest
from made_zips import ANNOTATIONS, ANY_ARCHIVE, EXPECT, contents, with_header, with_member, without_utf8_flag

from tiny_imagenet.common.errors import DatasetError
from tiny_imagenet.dataset import layout
from tiny_imagenet.dataset.layout import reorganize


class TestStrays:
    STRAYS = (
        ".DS_Store",
        "Thumbs.db",
        "train/.ipynb_checkpoints/images/n00000010_0.JPEG",
        "train/__MACOSX/images/n00000010_0.JPEG",
        "train/n00000010/images/.ipynb_checkpoints/n00000010_0.JPEG",
        "train/n00000010/images/Thumbs.db",
        "train/n00000010/images/._n00000010_0.JPEG",
        "train/n00000010/n00000010_0.JPEG",
        "val/images/.ipynb_checkpoints/val_0.JPEG",
        "val/images/Thumbs.db",
        "val/images/n00000010/val_0.JPEG",
    )

    def test_are_named_and_left_out(self, archive, run, tmp_path):
        expected = {split: contents(run(archive, name="clean") / f"{split}.zip") for split in ("train", "val")}
        for name in self.STRAYS:
            archive.members[name] = b"stray"
        source = archive.write(tmp_path / "strays.zip")
        outside = [f"__MACOSX/{archive.root}val/images/._val_0.JPEG", "readme.txt"]
        for name in outside:
            with_member(source, name)
        folder = run(source, expect=EXPECT)
        assert {split: contents(folder / f"{split}.zip") for split in ("train", "val")} == expected
        strays = json.loads((folder / "layout.json").read_text())["strays"]
        assert strays == sorted([archive.root + name for name in self.STRAYS] + outside)

    def test_wnids_txt_of_a_mac_is_not_used_as_the_archives(self, archive, run, tmp_path):
        archive.root = "some/where/"
        source = with_member(archive.write(tmp_path / "mac.zip"), "__MACOSX/wnids.txt")
        assert len(contents(run(source) / "val.zip")) == 6

    @pytest.mark.parametrize("kind", ["large", "link", "encrypted", "twice"])
    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_are_left_out_even_if_unreadable(self, archive, run, tmp_path, kind):
        name = f"{archive.root}extra/notes.bin"
        info = zipfile.ZipInfo(name)
        if kind == "link":
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
        source = with_member(archive.write(tmp_path / "strays.zip"), info, b"/etc/passwd")
        if kind == "large":
            with_header(source, "notes.bin", "size", 2**30)
        elif kind == "encrypted":
            with_header(source, "notes.bin", "flags", 1)
        elif kind == "twice":
            with_member(source, name)
        folder = run(source, expect=EXPECT)
        assert json.loads((folder / "layout.json").read_text())["strays"] == [name]
        assert len(contents(folder / "val.zip")) == 6


UMLAUTS = "\u00e4\u00f6\u00fc"
"""Letters that macOS writes as two characters each."""


class TestOtherSystems:
    """A zip from another system gives the same result as the same files zipped here."""

    @pytest.fixture
    def umlauts(self, archive):
        """Return the archive with one image of each split renamed, in the composed form of Unicode."""
        first = archive.wnids[0]
        archive.members[f"train/{first}/images/{UMLAUTS}.JPEG"] = archive.members.pop(
            f"train/{first}/images/{first}_0.JPEG"
        )
        boxes = f"train/{first}/{first}_boxes.txt"
        archive.set_lines(boxes, [line.replace(f"{first}_0.", f"{UMLAUTS}.") for line in archive.lines(boxes)])
        archive.members[f"val/images/{UMLAUTS}.JPEG"] = archive.members.pop("val/images/val_0.JPEG")
        archive.set_lines(ANNOTATIONS, [line.replace("val_0.", f"{UMLAUTS}.") for line in archive.lines(ANNOTATIONS)])
        return archive

    @pytest.fixture
    def same(self, run):
        """Assert that an archive and a zip with the same files under other names give the same bytes."""

        def same(archive, source):
            outputs = [run(one, name=f"out_{turn}") for turn, one in enumerate((archive, source))]
            one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in outputs)
            assert one == two

        return same

    @staticmethod
    def zipped(archive, path, rename):
        """Write the members under other names."""
        with zipfile.ZipFile(path, "w") as file:
            for name, content in archive.members.items():
                info = zipfile.ZipInfo("x")
                info.filename = rename(archive.root + name)
                file.writestr(info, content)
        return path

    def test_backslashes_of_windows_separate_folders(self, archive, same, tmp_path):
        source = self.zipped(archive, tmp_path / "windows.zip", lambda name: name.replace("/", "\\"))
        with_member(source, "tiny-imagenet-200\\train\\", b"")  # a folder
        same(archive, source)

    @pytest.mark.parametrize("before", ["./", ".//"])
    def test_dots_and_double_slashes_are_ignored(self, archive, same, tmp_path, before):
        source = self.zipped(archive, tmp_path / "dots.zip", lambda name: before + name.replace("/", "//"))
        same(archive, with_member(source, "./", b""))  # the folder itself is no stray

    @pytest.mark.parametrize("form", ["NFC", "NFD"])
    @pytest.mark.parametrize("text_form", ["NFC", "NFD"])
    def test_unicode_forms_are_equivalent(self, umlauts, same, tmp_path, form, text_form):
        other = copy.deepcopy(umlauts)
        for name in other.members:
            if name.endswith(".txt"):
                text = other.members[name].decode()
                other.members[name] = unicodedata.normalize(text_form, text).encode()
        source = self.zipped(other, tmp_path / "mac.zip", lambda name: unicodedata.normalize(form, name))
        same(umlauts, source)

    def test_utf8_that_is_not_declared_is_read_as_utf8(self, umlauts, same, tmp_path):
        same(umlauts, without_utf8_flag(umlauts.write(tmp_path / "undeclared.zip")))

    def test_a_name_in_another_encoding_has_a_hint(self, umlauts, refused, tmp_path):
        message = refused(without_utf8_flag(umlauts.write(tmp_path / "latin.zip"), "latin-1"))
        assert "not annotated (its name is in an unknown encoding: write the zip with UTF-8 names)" in message

    @pytest.mark.parametrize("name", ["plain.JPEG", f"{UMLAUTS}s.JPEG"])
    def test_a_name_in_a_known_encoding_has_no_hint(self, archive, refused, tmp_path, name):
        archive.members[f"val/images/{name}"] = b"jpeg"
        for source in (
            archive.write(tmp_path / "declared.zip"),
            without_utf8_flag(archive.write(tmp_path / "not.zip")),
        ):
            message = refused(source)
            assert f"val/images/{name}: not annotated" in message
            assert "encoding" not in message

    @pytest.mark.parametrize(
        "name", ["12:30.JPEG", "a b.JPEG", "a\tb.JPEG", "#.jpg", "\u5e8f.jpeg", "x" * 200 + ".JPEG"]
    )
    def test_unusual_names_of_images_are_accepted(self, archive, run, name):
        archive.members[f"train/{archive.wnids[0]}/images/{name}"] = b"jpeg"
        archive.members["10:15.txt"] = b"a stray with a colon"
        folder = run(archive)
        stem = name.rsplit(".", 1)[0]
        assert contents(folder / "train.zip")[f"{archive.wnids[0]}/{stem}.JPEG"] == b"jpeg"

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_two_forms_of_one_name_are_a_duplicate(self, umlauts, refused, tmp_path):
        source = umlauts.write(tmp_path / "both.zip")
        with_member(source, umlauts.root + unicodedata.normalize("NFD", f"val/images/{UMLAUTS}.JPEG"))
        assert f"1 problem:\n  'tiny-imagenet-200/val/images/{UMLAUTS}.JPEG': occurs 2 times" in refused(source)


class TestHostileMembers:
    @pytest.fixture
    def source(self, archive, tmp_path):
        return archive.write(tmp_path / "hostile.zip")

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("/etc/passwd", "its path is absolute"),
            ("../outside.JPEG", "its path has '..'"),
            ("tiny-imagenet-200/train/../../x", "its path has '..'"),
            ("train\\..\\x.JPEG", "its path has '..'"),
            ("C:/x.JPEG", "its path is absolute"),
            ("C:\\x.JPEG", "its path is absolute"),
            ("\\\\server\\share\\x.JPEG", "its path is absolute"),
        ],
    )
    def test_path_that_leads_outside_is_refused_with_the_reason(self, source, refused, name, reason):
        assert f"1 problem:\n  {name!r}: {reason}" in refused(with_member(source, name))

    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
    def test_link_or_special_file_is_refused(self, source, refused, kind):
        info = zipfile.ZipInfo("tiny-imagenet-200/val/images/val_9.JPEG")
        info.external_attr = (kind | 0o777) << 16
        assert "a link or special file" in refused(with_member(source, info, b"/etc/passwd"))

    def test_encrypted_member_is_refused(self, source, refused):
        message = refused(with_header(source, "val/images/val_1.JPEG", "flags", 1))
        assert "1 problem:\n  'tiny-imagenet-200/val/images/val_1.JPEG': encrypted" in message

    def test_member_larger_than_any_image_is_refused_unread(self, source, refused):
        message = refused(with_header(source, "val/images/val_1.JPEG", "size", 2**24 + 1))
        assert "val_1.JPEG': 16,777,217 bytes, more than 16,777,216" in message

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    def test_duplicate_name_is_refused(self, source, refused):
        message = refused(with_member(source, "tiny-imagenet-200/val/images/val_1.JPEG"))
        assert "1 problem:\n  'tiny-imagenet-200/val/images/val_1.JPEG': occurs 2 times" in message

    def test_member_that_would_inflate_past_its_size_does_not_fill_memory(self, archive, refused, tmp_path):
        del archive.members["val/images/val_1.JPEG"]
        source = archive.write(tmp_path / "bomb.zip")
        name = f"{archive.root}val/images/val_1.JPEG"
        with zipfile.ZipFile(source, "a", zipfile.ZIP_DEFLATED) as file, file.open(name, "w") as member:
            for _ in range(200):
                member.write(bytes(2**20))
        assert source.stat().st_size < 2**20
        with_header(source, "val/images/val_1.JPEG", "size", 1_000)
        tracemalloc.start()
        try:
            assert "'tiny-imagenet-200/val/images/val_1.JPEG' cannot be read" in refused(source)
            assert tracemalloc.get_traced_memory()[1] < 20 * 2**20
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("wnid", ["..", "a/b", "a b", "-rf", "ñ"])
    def test_class_id_that_is_not_a_plain_folder_name_is_refused(self, archive, refused, wnid):
        archive.set_lines("wnids.txt", [*archive.wnids, wnid])
        assert f"wnids.txt: '{wnid}' is not a class id" in refused(archive)


class TestDamage:
    def test_missing_archive_says_how_to_make_it(self, tmp_path, refused):
        assert "run `dvc repro download`" in refused(tmp_path / "none.zip")

    @pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PK\3\4" + bytes(100)])
    def test_file_that_is_not_a_zip_is_refused(self, tmp_path, refused, content):
        (tmp_path / "no.zip").write_bytes(content)
        assert f"{tmp_path / 'no.zip'} is not a readable zip" in refused(tmp_path / "no.zip")

    def test_folder_instead_of_the_zip_is_refused(self, tmp_path, refused):
        assert "is not a readable zip" in refused(tmp_path)

    @pytest.mark.parametrize("member", ["wnids.txt", ANNOTATIONS])
    def test_archive_without_its_index_files_is_refused(self, archive, refused, member):
        del archive.members[member]
        assert f"has no '{'' if member == 'wnids.txt' else archive.root}{member}'" in refused(archive)

    def test_text_in_another_encoding_is_refused(self, archive, refused):
        archive.members["words.txt"] = "n00000010\tcafé".encode("latin-1")
        assert "'tiny-imagenet-200/words.txt' is not UTF-8 text" in refused(archive)

    def test_truncated_anywhere_is_refused(self, archive, refused, tmp_path):
        whole = archive.write(tmp_path / "whole.zip").read_bytes()
        draw = random.Random(0)  # noqa: S311 - repeatable, not secret
        for end in [draw.randrange(len(whole)) for _ in range(50)] + [len(whole) - 1]:
            (tmp_path / "part.zip").write_bytes(whole[:end])
            assert "is not a readable zip" in refused(tmp_path / "part.zip")

    @pytest.mark.parametrize("damaged", ["anywhere", "directory"])
    def test_flipped_bytes_are_refused_or_change_no_image(self, archive, run, tmp_path, damaged):
        # Some bytes carry nothing, such as dates, and some only the name of a class or of a stray.
        source = archive.write(tmp_path / "whole.zip")
        whole = source.read_bytes()
        images = set(archive.members.values())
        with zipfile.ZipFile(source) as file:
            start = file.start_dir if damaged == "directory" else 0
        draw = random.Random(1)  # noqa: S311 - repeatable, not secret
        num_refused = 0
        for turn in range(150):
            content = bytearray(whole)
            content[draw.randrange(start, len(whole))] ^= draw.randrange(1, 256)
            (tmp_path / "flipped.zip").write_bytes(content)
            try:
                folder = run(tmp_path / "flipped.zip", name=f"out_{turn}")
            except DatasetError:
                num_refused += 1
            else:
                assert set(contents(folder / "train.zip").values()) <= images
                assert set(contents(folder / "val.zip").values()) <= images
        assert num_refused > 50

    @pytest.mark.parametrize("method", [1, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, 99])
    def test_member_with_a_wrong_compression_method_is_refused(self, archive, refused, tmp_path, method):
        source = archive.write(tmp_path / "method.zip")
        assert "val_1.JPEG' cannot be read" in refused(with_header(source, "val_1.JPEG", "method", method))

    def test_corrupt_lzma_stream_is_refused(self, archive, refused, tmp_path):
        content = b"\x10\x02\x05\x00" + b"\xff" * 200  # the first of its five properties may not pass 224
        info = zipfile.ZipInfo("tiny-imagenet-200/val/images/val_6.JPEG")
        archive.set_lines(ANNOTATIONS, [*archive.lines(ANNOTATIONS), f"val_6.JPEG\t{archive.wnids[0]}"])
        source = with_member(archive.write(tmp_path / "lzma.zip"), info, content)
        message = refused(with_header(source, "val_6.JPEG", "method", zipfile.ZIP_LZMA))
        assert "val_6.JPEG' cannot be read" in message

    def test_member_beyond_the_end_of_the_file_is_refused(self, archive, refused, tmp_path):
        source = with_header(archive.write(tmp_path / "offset.zip"), "val_1.JPEG", "offset", 2**32 - 16)
        assert "val_1.JPEG' cannot be read" in refused(source)

    def test_member_without_a_name_does_not_crash(self, archive, run, tmp_path):
        source = with_member(archive.write(tmp_path / "nameless.zip"), "x")
        content = bytearray(source.read_bytes())
        place = content.rindex(b"PK\1\2")  # its name becomes its extra field: one byte from the one to the other
        struct.pack_into("<HH", content, place + 28, 0, 1)
        source.write_bytes(content)
        assert json.loads((run(source) / "layout.json").read_text())["strays"] == [""]

    def test_validation_image_that_cannot_be_read_leaves_no_zip_behind(self, archive, refused, tmp_path):
        source = archive.write(tmp_path / "crc.zip")
        with zipfile.ZipFile(source) as file:
            info = file.getinfo(archive.root + "val/images/val_5.JPEG")
        content = bytearray(source.read_bytes())
        content[info.header_offset + 200] ^= 0xFF
        source.write_bytes(content)
        assert "'tiny-imagenet-200/val/images/val_5.JPEG' cannot be read" in refused(source)

    def test_old_files_are_kept_if_a_new_archive_is_refused(self, archive, run, tmp_path):
        folder = run(archive)
        before = {path.name: path.read_bytes() for path in folder.iterdir()}
        del archive.members["val/images/val_0.JPEG"]
        source = archive.write(tmp_path / "worse.zip")
        with pytest.raises(DatasetError):
            reorganize(source, folder, ANY_ARCHIVE)
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_member_limit_exceeds_the_longest_text_of_the_official_archive():
    assert layout._LARGEST_MEMBER > 4 * 2_655_750  # words.txt


class TestTextFiles:
    @pytest.mark.parametrize("member", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
    def test_a_byte_order_mark_at_the_start_changes_nothing(self, make_archive, tmp_path, member):
        outputs = []
        for mark in (b"", b"\xef\xbb\xbf"):
            archive = make_archive()
            archive.members[member] = mark + archive.members[member]
            folder = tmp_path / f"images{len(mark)}"
            source = archive.write(tmp_path / "dataset.zip")
            reorganize(source, folder, ANY_ARCHIVE)
            outputs.append({path.name: path.read_bytes() for path in folder.iterdir()})
        assert outputs[0] == outputs[1]

    def test_a_duplicate_class_in_wnids_is_a_problem(self, make_archive, tmp_path):
        archive = make_archive()
        archive.set_lines("wnids.txt", [*archive.wnids, archive.wnids[0]])
        with pytest.raises(DatasetError, match=f"'{archive.wnids[0]}' occurs 2 times"):
            reorganize(archive.write(tmp_path / "dataset.zip"), tmp_path / "images", ANY_ARCHIVE)

    def test_an_archive_without_classes_is_refused(self, make_archive, tmp_path):
        archive = make_archive()
        archive.members = {"wnids.txt": b"", "val/val_annotations.txt": b""}
        with pytest.raises(DatasetError, match="expected at least one class, found none"):
            reorganize(archive.write(tmp_path / "dataset.zip"), tmp_path / "images", ANY_ARCHIVE)
