"""The download, against a loopback server that fails in many ways; takes seconds."""

import errno
import hashlib
import io
import os
import random
import shutil
import socket
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from tiny_imagenet.common import download
from tiny_imagenet.common.errors import UserError


def make_zip(seed: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        member = zipfile.ZipInfo("tiny-imagenet-200/wnids.txt")  # fixed date: the ids of tests contain its MD5
        file.writestr(member, random.Random(seed).randbytes(400_000))  # noqa: S311 - repeatable, not secret
    return buffer.getvalue()


BODY = make_zip(seed=0)
SIZE = len(BODY)
MD5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
STALL_SECONDS = 8
NUM_EARLIER = 150_000  # bytes in the partial file of an earlier call


@dataclass(frozen=True)
class Reply:
    """The server's reply to one request."""

    status: int = 200  # any other is sent without a body
    body: bytes = BODY
    cut_at: int | None = None  # offset in the file at which the connection ends
    stall_at: int | None = None  # offset in the file after which nothing more is sent
    ranges: bool = True  # whether Range is understood
    range_shift: int = 0  # error in the offset of the answer to a Range
    says_length: bool = True
    etag: str | None = None
    content_type: str = "application/zip"


class Handler(BaseHTTPRequestHandler):
    server: "FaultyServer"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers) | {"path": self.path})
        reply = server.replies[min(len(server.requests), len(server.replies)) - 1]
        start, status = 0, reply.status
        asked = self.headers.get("Range") if reply.ranges else None
        if asked and self.headers.get("If-Range") in (None, reply.etag):
            start, status = int(asked.removeprefix("bytes=").removesuffix("-")) + reply.range_shift, 206
        if reply.status != 200:
            start, status = len(reply.body), reply.status
        self.send_response(status)
        if reply.says_length:
            self.send_header("Content-Length", str(len(reply.body) - start))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(reply.body) - 1}/{len(reply.body)}")
        if reply.etag:
            self.send_header("ETag", reply.etag)
        self.send_header("Content-Type", reply.content_type)
        self.end_headers()
        end = min(at for at in (reply.cut_at, reply.stall_at, len(reply.body)) if at is not None)
        server.sent.append(max(end - start, 0))
        self.wfile.write(reply.body[start:end])
        if reply.stall_at is not None:
            server.stopping.wait(STALL_SECONDS)


class FaultyServer(ThreadingHTTPServer):
    """Answers the n-th request with the n-th reply, and all later ones with the last."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies = [Reply()]
        self.requests: list[dict[str, str]] = []
        self.sent: list[int] = []  # bytes of body, per request
        self.stopping = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/archive.zip"

    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for headers in self.requests]

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the client hung up, as some tests want


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with FaultyServer() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.stopping.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setattr(download, "NUM_ATTEMPTS", 3)
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", (2.0, 0.3))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "archive.zip"


@pytest.fixture
def partial(destination: Path) -> Path:
    return destination.with_name("archive.zip.partial")


def no_report(line: str) -> None:
    pass


def fetch(
    destination: Path,
    *urls: str,
    archive_path: Path | None = None,
    size: int | None = SIZE,
    md5: str | None = MD5,
    report: Callable[[str], None] = no_report,
) -> None:
    download.obtain(destination, urls=urls, archive=archive_path, size=size, md5=md5, report=report)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def assert_whole(destination: Path) -> None:
    assert destination.read_bytes() == BODY
    assert [path.name for path in destination.parent.iterdir()] == [destination.name]


class TestWholeArchive:
    @pytest.mark.parametrize("size", [SIZE, None])
    @pytest.mark.parametrize("md5", [MD5, MD5.upper(), None])
    @pytest.mark.parametrize("says_length", [True, False])
    def test_is_fetched_over_http(self, server, destination, size, md5, says_length):
        server.replies = [Reply(says_length=says_length)]
        fetch(destination, server.url, size=size, md5=md5)
        assert_whole(destination)
        assert len(server.requests) == 1

    def test_is_copied_from_a_file_url_with_a_space_in_it(self, tmp_path, destination):
        (tmp_path / "a b.zip").write_bytes(BODY)
        url = (tmp_path / "a b.zip").as_uri()
        assert "%20" in url
        fetch(destination, url)
        assert_whole(destination)

    def test_on_disk_wins_over_urls(self, server, tmp_path, destination):
        (tmp_path / "mine.zip").write_bytes(BODY)
        fetch(destination, server.url, archive_path=tmp_path / "mine.zip")
        assert_whole(destination)
        assert (tmp_path / "mine.zip").read_bytes() == BODY
        assert server.requests == []

    def test_at_the_destination_is_not_fetched_again(self, server, destination):
        destination.write_bytes(BODY)
        before = destination.stat()
        fetch(destination, server.url)
        assert server.requests == []
        assert destination.stat().st_mtime_ns == before.st_mtime_ns

    def test_creates_a_missing_folder(self, server, tmp_path):
        fetch(tmp_path / "new" / "folder" / "archive.zip", server.url)
        assert_whole(tmp_path / "new" / "folder" / "archive.zip")

    def test_replaces_a_wrong_one_at_the_destination(self, server, destination):
        destination.write_bytes(make_zip(seed=1))
        fetch(destination, server.url)
        assert_whole(destination)

    def test_at_the_destination_of_unknown_md5_is_replaced(self, server, destination):
        destination.write_bytes(make_zip(seed=1))
        fetch(destination, server.url, size=None, md5=None)
        assert_whole(destination)

    def test_left_under_the_partial_name_is_taken_without_a_request(self, server, destination, partial):
        partial.write_bytes(BODY)
        fetch(destination, server.url)
        assert_whole(destination)
        assert server.requests == []

    def test_comes_through_the_proxy_of_the_environment(self, server, destination, monkeypatch):
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{server.server_port}")
        fetch(destination, "http://images.invalid/archive.zip")
        assert_whole(destination)
        assert server.requests[0]["path"] == "http://images.invalid/archive.zip"


class TestBrokenTransfer:
    def test_resumes_where_it_broke(self, server, destination):
        server.replies = [Reply(cut_at=200_000, etag='"v1"'), Reply(etag='"v1"')]
        fetch(destination, server.url)
        assert_whole(destination)
        first, second = server.requests
        start = int(second["Range"].removeprefix("bytes=").removesuffix("-"))
        assert 200_000 - download.CHUNK_BYTES <= start <= 200_000
        assert server.sent == [200_000, SIZE - start]
        assert "Range" not in first
        assert "If-Range" not in first
        assert second["Accept-Encoding"] == "identity"
        assert second["If-Range"] == '"v1"'

    def test_leaves_its_bytes_and_the_next_call_requests_only_the_rest(self, server, destination, partial):
        server.replies = [Reply(cut_at=200_000), Reply(status=503)]
        with pytest.raises(UserError, match="503"):
            fetch(destination, server.url)
        held = partial.stat().st_size
        assert partial.read_bytes() == BODY[:held]
        assert not destination.exists()
        assert held > 0

        server.replies, server.requests[:], server.sent[:] = [Reply()], [], []
        fetch(destination, server.url)
        assert_whole(destination)
        assert server.ranges() == [f"bytes={held}-"]
        assert sum(server.sent) == SIZE - held

    def test_resumes_from_another_url(self, server, destination, partial):
        partial.write_bytes(BODY[:NUM_EARLIER])
        fetch(destination, f"http://127.0.0.1:{closed_port()}/", server.url)
        assert_whole(destination)
        assert server.sent == [SIZE - NUM_EARLIER]

    @pytest.mark.parametrize("says_length", [True, False])
    def test_with_progress_may_break_more_often_than_the_limit(self, server, destination, says_length):
        cuts = range(70_000, SIZE, 70_000)
        assert len(cuts) > download.NUM_ATTEMPTS
        server.replies = [Reply(cut_at=cut, says_length=says_length) for cut in cuts] + [Reply()]
        fetch(destination, server.url)
        assert_whole(destination)
        assert len(server.requests) == len(cuts) + 1

    def test_gives_up_without_progress(self, server, destination):
        server.replies = [Reply(cut_at=200_000, ranges=False)]
        with pytest.raises(UserError, match=r"broke off after \d+,\d+ bytes .*3 attempts"):
            fetch(destination, server.url)
        assert len(server.requests) == 1 + download.NUM_ATTEMPTS - 1
        assert not destination.exists()

    def test_that_stalls_resumes_after_the_read_timeout(self, server, destination):
        lines: list[str] = []
        server.replies = [Reply(stall_at=200_000), Reply()]
        begun = time.monotonic()
        fetch(destination, server.url, report=lines.append)
        assert time.monotonic() - begun < STALL_SECONDS / 2
        assert_whole(destination)
        assert server.sent[1] < SIZE
        assert any("stalled after" in line for line in lines)

    def test_that_breaks_after_the_last_byte_is_complete(self, server, destination, monkeypatch):
        monkeypatch.setattr(download, "CHUNK_BYTES", SIZE)
        server.replies = [Reply(stall_at=SIZE, says_length=False), Reply(status=404)]
        fetch(destination, server.url)
        assert_whole(destination)

    def test_starts_over_if_the_server_ignores_ranges(self, server, destination, partial):
        partial.write_bytes(BODY[:NUM_EARLIER])
        server.replies = [Reply(ranges=False)]
        fetch(destination, server.url)
        assert_whole(destination)
        assert server.ranges() == [f"bytes={NUM_EARLIER}-"]

    def test_starts_over_when_the_file_on_the_server_has_changed(self, server, destination):
        server.replies = [Reply(body=make_zip(seed=1), cut_at=200_000, etag='"old"'), Reply(etag='"new"')]
        fetch(destination, server.url)
        assert_whole(destination)
        assert server.requests[1]["If-Range"] == '"old"'
        assert server.sent[1] == SIZE

    @pytest.mark.parametrize("refusal", [Reply(status=416), Reply(range_shift=-1)])
    def test_starts_over_when_the_server_cannot_resume(self, server, destination, partial, refusal):
        partial.write_bytes(BODY[:NUM_EARLIER])
        server.replies = [refusal, Reply()]
        fetch(destination, server.url)
        assert_whole(destination)
        assert server.ranges() == [f"bytes={NUM_EARLIER}-", None]

    def test_starts_over_when_the_earlier_half_does_not_match(self, server, destination, partial):
        partial.write_bytes(make_zip(seed=1)[:NUM_EARLIER])
        fetch(destination, server.url)
        assert_whole(destination)
        assert server.sent == [SIZE - NUM_EARLIER, SIZE]

    @pytest.mark.parametrize("wrong", [b"x" * SIZE, BODY + b"x"])
    def test_starts_over_when_the_earlier_bytes_are_too_many(self, server, destination, partial, wrong):
        partial.write_bytes(wrong)
        fetch(destination, server.url)
        assert_whole(destination)
        assert server.ranges() == [None]

    def test_of_an_earlier_call_does_not_resume_without_md5(self, server, destination, partial):
        partial.write_bytes(make_zip(seed=1)[:NUM_EARLIER])
        fetch(destination, server.url, md5=None)
        assert_whole(destination)
        assert server.ranges() == [None]

    @pytest.mark.parametrize("etag", ['W/"weak"', None])
    def test_does_not_resume_without_md5_and_strong_etag(self, server, destination, etag):
        server.replies = [Reply(cut_at=200_000, etag=etag), Reply(etag=etag)]
        fetch(destination, server.url, md5=None)
        assert_whole(destination)
        assert server.ranges() == [None, None]

    def test_does_not_resume_without_md5_from_another_url(self, server, destination):
        server.replies = [Reply(cut_at=200_000, etag='"v1"'), Reply(status=404), Reply(etag='"v1"')]
        fetch(destination, server.url, server.url, md5=None)
        assert_whole(destination)
        assert server.ranges()[2] is None

    def test_resumes_without_md5_under_the_same_etag(self, server, destination):
        server.replies = [Reply(cut_at=200_000, etag='"v1"'), Reply(etag='"v1"')]
        fetch(destination, server.url, md5=None)
        assert_whole(destination)
        assert server.sent[1] < SIZE

    def test_retries_after_a_server_error(self, server, destination):
        server.replies = [Reply(status=500), Reply(status=429), Reply()]
        fetch(destination, server.url)
        assert_whole(destination)

    def test_waits_twice_as_long_each_time(self, server, destination, monkeypatch):
        waits: list[float] = []
        monkeypatch.setattr(download.time, "sleep", waits.append)
        monkeypatch.setattr(download, "NUM_ATTEMPTS", 5)
        monkeypatch.setattr(download, "BACKOFF_SECONDS", 1.0)
        server.replies = [Reply(status=500)]
        with pytest.raises(UserError):
            fetch(destination, server.url)
        assert waits == [1, 2, 4, 8]

    def test_by_ctrl_c_leaves_its_bytes(self, server, destination, partial, monkeypatch):
        def interrupt(line: str) -> None:
            if "MB/s" in line:
                raise KeyboardInterrupt

        monkeypatch.setattr(download, "REPORT_SECONDS", 1e-9)
        with pytest.raises(KeyboardInterrupt):
            fetch(destination, server.url, report=interrupt)
        assert BODY.startswith(partial.read_bytes())
        assert partial.stat().st_size > 0
        assert not destination.exists()


class TestRefusedSource:
    def test_404_tries_the_next_url_at_once(self, server, destination):
        server.replies = [Reply(status=404), Reply()]
        fetch(destination, f"{server.url}?first", f"{server.url}?second")
        assert_whole(destination)
        assert [request["path"] for request in server.requests] == [
            "/archive.zip?first",
            "/archive.zip?second",
        ]

    def test_wrong_md5_names_both_and_leaves_nothing(self, server, destination, partial):
        damaged = BODY[:1000] + bytes([BODY[1000] ^ 1]) + BODY[1001:]
        server.replies = [Reply(body=damaged)]
        received = hashlib.md5(damaged, usedforsecurity=False).hexdigest()
        with pytest.raises(UserError, match=f"has md5 {received}, expected {MD5}"):
            fetch(destination, server.url)
        assert list(partial.parent.iterdir()) == []
        assert len(server.requests) == 1

    def test_wrong_md5_tries_the_next_url_from_the_start(self, server, destination):
        server.replies = [Reply(body=BODY[:-1] + b"x"), Reply()]
        fetch(destination, server.url, server.url)
        assert_whole(destination)
        assert server.ranges() == [None, None]

    def test_half_wrong_file_that_keeps_breaking_ends_the_retries(self, server, destination):
        wrong = BODY[:-1] + b"x"
        server.replies = [Reply(body=wrong, cut_at=200_000), Reply(body=wrong)] * 10
        with pytest.raises(UserError, match="gave up after 3 attempts"):
            fetch(destination, server.url)
        assert len(server.requests) <= 2 * download.NUM_ATTEMPTS

    def test_file_of_another_length_is_refused_before_its_body(self, server, destination, partial):
        partial.write_bytes(BODY[:NUM_EARLIER])
        server.replies = [Reply(body=BODY + b"x")]
        with pytest.raises(UserError, match=f"the server has {SIZE + 1:,} bytes, expected {SIZE:,}"):
            fetch(destination, server.url)
        assert len(server.requests) == 1
        assert partial.read_bytes() == BODY[:NUM_EARLIER]

    def test_more_than_expected_is_cut_off(self, server, destination, partial):
        server.replies = [Reply(body=BODY + bytes(10_000_000), says_length=False)]
        with pytest.raises(UserError, match=f"sent more than the expected {SIZE:,} bytes"):
            fetch(destination, server.url)
        assert list(partial.parent.iterdir()) == []
        assert len(server.requests) == 1

    def test_web_page_of_a_login_is_refused(self, server, destination, partial):
        server.replies = [Reply(body=b"<html>", says_length=False, content_type="text/html; charset=utf-8")]
        with pytest.raises(UserError, match="received a web page, not a zip"):
            fetch(destination, server.url)
        assert list(partial.parent.iterdir()) == []

    @pytest.mark.parametrize("says_length", [True, False])
    def test_file_that_is_not_a_zip_is_refused_without_md5(self, server, destination, says_length):
        server.replies = [Reply(body=b"x" * SIZE, says_length=says_length)]
        with pytest.raises(UserError, match="is not a zip archive"):
            fetch(destination, server.url, md5=None)
        assert not destination.exists()

    def test_no_network_gives_one_message_with_every_url_and_reason(self, destination):
        urls = [f"http://127.0.0.1:{closed_port()}/a.zip", "http://nothing.invalid/b.zip", "ftp://c/d.zip"]
        with pytest.raises(UserError) as caught:
            fetch(destination, *urls)
        message = str(caught.value)
        for url, reason in zip(urls, ["refused", "Failed to resolve", "No connection adapters"], strict=True):
            (line,) = (line for line in message.splitlines() if url + ": " in line)
            assert reason in line
        assert "dataset.archive in params.yaml" in message
        assert "HTTPConnection" not in message
        assert message.count("gave up after 3 attempts") == 2

    def test_no_url_and_no_archive_says_so(self, destination):
        with pytest.raises(UserError, match="No URL is given"):
            fetch(destination)

    def test_missing_file_url_tries_the_next(self, server, tmp_path, destination):
        fetch(destination, (tmp_path / "missing.zip").as_uri(), server.url)
        assert_whole(destination)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "does not exist"),
            ("folder", "is not a file"),
            (b"no zip", f"has 6 bytes, expected {SIZE:,}"),
            (make_zip(seed=1), f"has md5 [0-9a-f]{{32}}, expected {MD5}"),
        ],
    )
    def test_wrong_archive_on_disk_is_named_and_not_copied(self, tmp_path, destination, content, message):
        source = tmp_path / "mine.zip"
        if content == "folder":
            source.mkdir()
        elif content is not None:
            source.write_bytes(content)
        with pytest.raises(UserError, match=f"mine.zip {message}.*dataset.archive in params.yaml"):
            fetch(destination, archive_path=source)
        assert list(destination.parent.iterdir()) == []


class TestDisk:
    @pytest.mark.parametrize("source", ["url", "archive"])
    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full stands in for a full disk")
    def test_that_is_full_gives_a_message_with_the_path(self, server, tmp_path, destination, partial, source):
        (tmp_path / "mine.zip").write_bytes(BODY)
        partial.symlink_to("/dev/full")
        archive_path = tmp_path / "mine.zip" if source == "archive" else None
        with pytest.raises(UserError, match="No space left on device") as caught:
            fetch(destination, server.url, archive_path=archive_path)
        assert str(partial) in str(caught.value)
        assert not destination.exists()

    def test_that_fills_up_during_a_copy_is_not_blamed_on_the_source(self, tmp_path, destination, monkeypatch):
        def fail(source: Path, target: Path) -> None:
            raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

        (tmp_path / "mine.zip").write_bytes(BODY)
        monkeypatch.setattr(shutil, "copyfile", fail)
        with pytest.raises(UserError, match=r"^\S+/archive\.zip\.partial: No space left on device"):
            fetch(destination, archive_path=tmp_path / "mine.zip")

    def test_that_cannot_store_the_bytes_has_no_archive(self, server, destination, monkeypatch):
        def fail(descriptor: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(UserError, match=r"archive\.zip\.partial: Input/output error"):
            fetch(destination, server.url)
        assert not destination.exists()

    def test_that_damages_the_copy_has_no_archive(self, tmp_path, destination, monkeypatch):
        (tmp_path / "mine.zip").write_bytes(BODY)
        monkeypatch.setattr(shutil, "copyfile", lambda source, target: target.write_bytes(source.read_bytes()[1:]))
        with pytest.raises(UserError, match="the copy has"):
            fetch(destination, archive_path=tmp_path / "mine.zip")
        assert list(destination.parent.iterdir()) == []

    def test_without_room_for_the_rest_is_refused_before_any_request(
        self, server, tmp_path, destination, partial, monkeypatch
    ):
        partial.write_bytes(BODY[:NUM_EARLIER])
        (tmp_path / "mine.zip").write_bytes(BODY)
        usage = SimpleNamespace(free=SIZE - NUM_EARLIER - 1)
        monkeypatch.setattr(shutil, "disk_usage", {destination.parent: usage}.__getitem__)
        for archive_path in (None, tmp_path / "mine.zip"):
            with pytest.raises(UserError, match=r"has 0\.3 MB free, but the archive needs 0\.3 MB"):
                fetch(destination, server.url, archive_path=archive_path)
        assert server.requests == []

        usage.free += 1
        fetch(destination, server.url)
        assert_whole(destination)

    def test_folder_that_cannot_be_made_is_named(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match=f"{tmp_path}/file"):
            fetch(tmp_path / "file" / "archive.zip", "http://127.0.0.1:9/")

    @pytest.mark.skipif(sys.platform != "linux", reason="/proc is the folder that takes no files")
    def test_folder_that_cannot_be_written_is_named(self, server):
        with pytest.raises(UserError, match=r"/proc/archive\.zip\.partial: .*folder is writable"):
            fetch(Path("/proc/archive.zip"), server.url, size=None)

    def test_folder_instead_of_the_archive_is_refused_before_any_request(self, server, destination):
        destination.mkdir(parents=True)
        with pytest.raises(UserError, match="is a folder"):
            fetch(destination, server.url)
        assert server.requests == []


class TestDamage:
    def test_truncated_at_20_places_is_never_accepted(self, server, tmp_path, destination):
        draw = random.Random(1)  # noqa: S311 - repeatable, not secret
        for end in [draw.randrange(SIZE) for _ in range(20)]:
            server.replies = [Reply(body=BODY[:end])]
            (tmp_path / "mine.zip").write_bytes(BODY[:end])
            for size in (SIZE, None):
                with pytest.raises(UserError):
                    fetch(destination, server.url, size=size)
                with pytest.raises(UserError):
                    fetch(destination, archive_path=tmp_path / "mine.zip", size=size)
                assert not destination.exists()

    def test_200_flipped_bytes_are_never_accepted(self, server, tmp_path, destination, partial):
        draw = random.Random(2)  # noqa: S311 - repeatable, not secret
        for turn in range(200):
            damaged = bytearray(BODY)
            damaged[draw.randrange(SIZE)] ^= draw.randrange(1, 256)
            server.replies = [Reply(body=bytes(damaged))]
            (tmp_path / "mine.zip").write_bytes(damaged)
            if turn % 2:
                partial.write_bytes(damaged)
            with pytest.raises(UserError, match="has md5"):
                fetch(destination, server.url)
            with pytest.raises(UserError, match="has md5"):
                fetch(destination, archive_path=tmp_path / "mine.zip")
            assert not destination.exists()


class TestProgress:
    @pytest.mark.parametrize("size", [SIZE, None])
    def test_is_lines_with_rate_and_time_left_off_a_terminal(self, server, destination, monkeypatch, size):
        monkeypatch.setattr(download, "REPORT_SECONDS", 1e-9)
        lines: list[str] = []
        server.replies = [Reply(says_length=size is None)]
        fetch(destination, server.url, size=size, report=lines.append)
        shown = [line for line in lines if "MB/s" in line]
        assert "of 0.4 MB" in shown[0]
        assert "s left" in shown[0]

    def test_is_no_line_before_its_time(self, server, destination):
        lines: list[str] = []
        fetch(destination, server.url, report=lines.append)
        assert lines == [f"fetching {server.url}, {SIZE / 1e6:,.1f} MB"]

    def test_is_a_bar_on_a_terminal(self, server, destination, monkeypatch):
        terminal = io.StringIO()
        monkeypatch.setattr(terminal, "isatty", lambda: True)
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("TERM", "xterm")
        lines: list[str] = []
        fetch(destination, server.url, report=lines.append)
        assert_whole(destination)
        assert "MB" in terminal.getvalue() or "kB" in terminal.getvalue()
        assert lines == [f"fetching {server.url}, {SIZE / 1e6:,.1f} MB"]
