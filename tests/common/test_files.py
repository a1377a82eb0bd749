import hashlib
import io
import os
import signal
import subprocess
import sys
import zipfile

import pytest

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import PARTIAL_SUFFIX, deterministic_member, md5, read_json, replaced, write_text


class TestReplaced:
    def test_file_has_its_name_only_after_the_block(self, tmp_path):
        path = tmp_path / "new" / "folder" / "a.bin"
        with replaced(path) as partial:
            partial.write_bytes(b"content")
            assert not path.exists()
        assert path.read_bytes() == b"content"
        assert list(path.parent.iterdir()) == [path]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
    def test_block_that_fails_leaves_the_old_file_and_nothing_else(self, tmp_path, error):
        path = tmp_path / "a.bin"
        path.write_bytes(b"old")

        def fail() -> None:
            with replaced(path) as partial:
                partial.write_bytes(b"half of the n")
                raise error

        with pytest.raises(error):
            fail()
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_killed_process_leaves_the_old_file_and_the_next_one_replaces_it(self, tmp_path):
        path = tmp_path / "a.bin"
        path.write_bytes(b"old")
        code = (
            "import os, signal, sys; from pathlib import Path; from tiny_imagenet.common.files import replaced\n"
            "with replaced(Path(sys.argv[1])) as partial:\n"
            "    partial.write_bytes(b'half of something longer')\n"
            "    os.kill(os.getpid(), signal.SIGKILL)\n"
        )
        killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
        assert killed.returncode == -signal.SIGKILL
        assert path.read_bytes() == b"old"

        write_text(path, "new")
        assert path.read_bytes() == b"new"
        assert list(tmp_path.iterdir()) == [path]

    def test_bytes_are_on_the_disk_before_the_name_is(self, tmp_path, monkeypatch):
        path = tmp_path / "a.bin"
        calls = []

        def note(descriptor: int) -> None:
            calls.append((os.fstat(descriptor).st_size, path.exists()))

        monkeypatch.setattr(os, "fsync", note)
        with replaced(path) as partial:
            partial.write_bytes(b"12345")
        assert calls == [(5, False)]

    def test_partial_file_is_beside_its_target(self, tmp_path):
        with replaced(tmp_path / "a.zip") as partial:
            assert partial == tmp_path / f"a.zip{PARTIAL_SUFFIX}"
            partial.touch()


def test_text_is_utf8_with_unix_line_ends(tmp_path):
    write_text(tmp_path / "a.txt", "größer\nals ½\n")
    assert (tmp_path / "a.txt").read_bytes() == "größer\nals ½\n".encode()


@pytest.mark.parametrize(
    ("content", "digest"),  # RFC 1321, A.5
    [(b"", "d41d8cd98f00b204e9800998ecf8427e"), (b"message digest", "f96b697d7cb7938d525a2f31aaf161d0")],
)
def test_md5_is_that_of_the_rfc(tmp_path, content, digest):
    (tmp_path / "a").write_bytes(content)
    assert md5(tmp_path / "a") == digest


def test_md5_reads_all_of_a_file_larger_than_a_buffer(tmp_path):
    content = bytes(range(256)) * 4_001
    (tmp_path / "a").write_bytes(content)
    assert md5(tmp_path / "a") == hashlib.md5(content, usedforsecurity=False).hexdigest()


class TestDeterministicMember:
    @staticmethod
    def zipped(name: str) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(deterministic_member(name), b"content")
        return buffer.getvalue()

    def test_bytes_depend_on_name_and_content_alone(self, monkeypatch):
        first = self.zipped("a/b.JPEG")
        monkeypatch.setattr("time.localtime", lambda *_: (2033, 1, 2, 3, 4, 5, 6, 7, 0))
        assert self.zipped("a/b.JPEG") == first
        assert self.zipped("a/c.JPEG") != first

    def test_is_a_plain_readable_file_stored_and_dated_1980(self):
        (info,) = zipfile.ZipFile(io.BytesIO(self.zipped("a"))).infolist()
        assert info.date_time == (1980, 1, 1, 0, 0, 0)
        assert info.compress_type == zipfile.ZIP_STORED
        assert info.external_attr >> 16 == 0o100644


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        ("{", "Expecting property name"),
        ("[1]", "it lacks a, b"),
        ("1", "not iterable"),
        ('{"a": 1}', "it lacks b"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_json_that_cannot_be_read_is_refused_with_the_reason_and_a_remedy(content, reason, tmp_path):
    path = tmp_path / "run.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=reason) as refused:
        read_json(path, ["a", "b"], remedy="rerun it")
    assert str(refused.value).startswith(f"{path} cannot be read (")
    assert str(refused.value).endswith("): rerun it")


def test_json_has_its_keys_and_values_and_a_folder_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"a": 1, "b": [2]}')
    assert read_json(tmp_path / "run.json", ["a"]) == {"a": 1, "b": [2]}
    with pytest.raises(UserError, match="Is a directory"):
        read_json(tmp_path, remedy="rerun it")
