"""Download an archive or copy it from disk, verify it, then rename it into place.

An incomplete download stays as `<name>.partial`; the next attempt resumes it. 248 MB take a minute at 4 MB/s.
"""

import os
import re
import shutil
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import requests
from rich import progress
from rich.console import Console

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import digest, require_free

NUM_ATTEMPTS = 5  # per URL, in a row, without a new byte
BACKOFF_SECONDS = 1.0  # doubles with each attempt: 1 + 2 + 4 + 8 = 15 s per URL
TIMEOUT_SECONDS = (10.0, 30.0)  # to connect; between two bytes
REPORT_SECONDS = 5.0
CHUNK_BYTES = 16 * 1024  # lost at most when a connection breaks
TRANSIENT_STATUSES = {408, 429, *range(500, 600)}
HINT = "Check the network, or set dataset.archive in params.yaml to a zip already on disk."


class _RefusedError(Exception):
    """A source does not have the archive; the message says why."""


class _BrokenError(Exception):
    """A transfer ended early; a retry may get further."""


def obtain(
    destination: Path,
    *,
    urls: Sequence[str],
    archive: Path | None,
    size: int | None,
    md5: str | None,
    report: Callable[[str], None] = print,
    hint: str = HINT,
) -> None:
    """Write the verified archive to `destination`, atomically. A file with the right `md5` is kept.

    Copy the `archive` on disk. If it is None, try the `urls` (http, https or file) in order. A `size` of None is any
    number of bytes. `md5` is in hexadecimal; 64 digits are a SHA-256. If it is None, any zip is accepted, and a partial
    download of an earlier call is not resumed: only a digest shows that both parts match.

    `report` receives one line at a time. Raise UserError if no source has the expected archive, or the disk cannot
    store it. If no URL works, its last line is the `hint`, which says what the user can do.
    """
    partial = destination.with_name(destination.name + ".partial")
    try:
        if destination.is_dir():
            raise UserError(f"{destination} is a folder, expected a file. Move the folder elsewhere.")
        if md5 is not None and destination.is_file() and not _fault(destination, size, md5):
            return
        destination.parent.mkdir(parents=True, exist_ok=True)
        delivery = _Delivery(partial, size, md5, report, hint)
        if archive is None:
            delivery.download(urls)
        else:
            try:
                delivery.copy(archive)
            except _RefusedError as error:
                hint = "Set dataset.archive in params.yaml to the right zip, or to null to download one."
                raise UserError(f"{archive} {error}. {hint}") from None
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(destination)
    except OSError as error:
        path = error.filename2 or error.filename or partial
        hint = "Check that the disk is not full and that the folder is writable."
        raise UserError(f"{path}: {error.strerror or error}. {hint}") from error


def _fault(path: Path, size: int | None, md5: str | None) -> str:
    """Return what is wrong with an archive, as the end of a sentence, or ""."""
    try:
        if not path.is_file():
            return "is not a file, expected a zip archive" if path.exists() else "does not exist"
        faults = []
        received = path.stat().st_size
        if size is not None and received != size:
            faults.append(f"has {received:,} bytes, expected {size:,}")
        elif md5 is not None:
            kind, received_digest = digest(path, like=md5)
            if received_digest != md5.lower():
                faults.append(f"has {kind} {received_digest}, expected {md5.lower()}")
        if md5 is None and not zipfile.is_zipfile(path):
            faults.append("is not a zip archive")
        return " and ".join(faults)
    except OSError as error:
        return f"cannot be read: {error.strerror}"


@dataclass
class _Delivery:
    """Write one archive into its partial file."""

    partial: Path
    size: int | None
    md5: str | None
    report: Callable[[str], None]
    hint: str
    validator: str | None = None  # ETag or date of the version that this call writes into the partial file

    def copy(self, source: Path) -> None:
        """Copy an archive from disk."""
        if fault := _fault(source, self.size, self.md5):
            raise _RefusedError(fault)
        require_free(self.partial.parent, source.stat().st_size - self._received(), "the archive")
        self.report(f"copying {source}")
        shutil.copyfile(source, self.partial)
        if fault := _fault(self.partial, self.size, self.md5):
            self.partial.unlink()
            raise _RefusedError(f"was copied, but the copy {fault}")

    def download(self, urls: Sequence[str]) -> None:
        """Try the URLs in order, unless an earlier call left the whole archive."""
        if self.md5 is not None and not _fault(self.partial, self.size, self.md5):
            return
        if self.size is not None:
            if self._received() >= self.size:
                self.partial.unlink()  # too long, or damaged
            require_free(self.partial.parent, self.size - self._received(), "the archive")
        reasons = []
        for url in urls:
            try:
                if url.lower().startswith("file:"):
                    self.copy(Path(url2pathname(urlsplit(url).path)))
                else:
                    self._fetch(url)
                return
            except _RefusedError as error:
                self.report(f"{url}: {error}")
                reasons.append(f"\n  {url}: {error}")
        raise UserError(f"The archive could not be fetched.{''.join(reasons) or ' No URL is given.'}\n{self.hint}")

    def _received(self) -> int:
        return self.partial.stat().st_size if self.partial.exists() else 0

    def _fetch(self, url: str) -> None:
        """Retry until the archive is complete, or until several attempts in a row make no progress."""
        self.validator = None
        failures, furthest = 0, self._received()
        while True:
            try:
                return self._attempt(url)
            except _BrokenError as error:
                failures = 1 if self._received() > furthest else failures + 1
                furthest = max(furthest, self._received())
                if failures >= NUM_ATTEMPTS:
                    raise _RefusedError(f"{error} (gave up after {failures} attempts without progress)") from None
                delay = BACKOFF_SECONDS * 2 ** (failures - 1)
                self.report(f"{url}: {error}; retry in {delay:g} s")
                time.sleep(delay)

    def _attempt(self, url: str) -> None:
        start = self._received() if self.md5 is not None or self.validator else 0
        headers = {"Accept-Encoding": "identity"}  # offsets count bytes of the file itself
        if start:
            headers["Range"] = f"bytes={start}-"
            if self.validator:
                headers["If-Range"] = self.validator
        try:
            response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_SECONDS)
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _BrokenError(_plain(error)) from None
        except requests.RequestException as error:
            raise _RefusedError(_plain(error)) from None
        with response:
            start, total = self._agree(response, start)
            whole = f", {total / 1e6:,.1f} MB" if total else ""
            self.report(f"fetching {url}{whole}" + (f", from byte {start:,}" if start else ""))
            self._receive(response, start, total)
        if fault := _fault(self.partial, self.size, self.md5):
            self.partial.unlink()
            # If the two parts do not match, each may be good: a download from the start can help.
            raise (_BrokenError if start else _RefusedError)(f"the file received {fault}")

    def _agree(self, response: requests.Response, start: int) -> tuple[int, int | None]:
        """Check a response; return the offset of its body in the file, and the bytes of the whole file if known."""
        status, headers = response.status_code, response.headers
        if status in TRANSIENT_STATUSES:
            raise _BrokenError(f"HTTP {status} {response.reason}")
        content_range = headers.get("Content-Range", "") if status == 206 else ""
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
        if status != 200 and not (part and int(part[1]) == start):
            if start and status in {206, 416}:
                self.partial.unlink()
                raise _BrokenError(f"the server cannot resume at byte {start:,} (HTTP {status})")
            raise _RefusedError(f"HTTP {status} {response.reason}")
        if headers.get("Content-Type", "").startswith("text/html"):
            raise _RefusedError("received a web page, not a zip; check for a proxy or a login page")
        announced = part[2] if part else headers.get("Content-Length", "")
        total = int(announced) if announced.isdecimal() else None
        if self.size is not None and total is not None and total != self.size:
            raise _RefusedError(f"the server has {total:,} bytes, expected {self.size:,}")
        etag = headers.get("ETag", "")
        # If-Range does not allow a weak ETag (RFC 9110, 13.1.5).
        self.validator = etag if etag.startswith('"') else headers.get("Last-Modified")
        return (start if part else 0), self.size or total

    def _receive(self, response: requests.Response, start: int, total: int | None) -> None:
        received = start
        with (
            self.partial.open("ab" if start else "wb") as file,
            _shown(self.partial.stem, start, total, self.report) as show,
        ):
            try:
                for chunk in response.iter_content(CHUNK_BYTES):
                    if self.size is not None and received + len(chunk) > self.size:
                        self.partial.unlink()
                        raise _RefusedError(f"the server sent more than the expected {self.size:,} bytes")
                    file.write(chunk)
                    received += len(chunk)
                    show(received)
            except requests.RequestException as error:
                # While a body is read, ConnectionError means a read timeout, and nothing else does.
                verb = "stalled" if isinstance(error, requests.ConnectionError) else "broke off"
                if received != self.size:
                    raise _BrokenError(f"{verb} after {received:,} bytes") from None
        if total is not None and received < total:
            raise _BrokenError(f"ended after {received:,} of {total:,} bytes")


def _plain(error: requests.RequestException) -> str:
    """Return the innermost reason, without the name of the connection pool."""
    cause = error.args[0] if error.args else error
    return re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): ", "", str(getattr(cause, "reason", None) or cause))


@contextmanager
def _shown(name: str, start: int, total: int | None, report: Callable[[str], None]) -> Iterator[Callable[[int], None]]:
    """Yield a function that shows the bytes received: a bar on a terminal, a line every few seconds elsewhere."""
    if sys.stderr.isatty():
        columns = (progress.DownloadColumn(), progress.TransferSpeedColumn(), progress.TimeRemainingColumn())
        with progress.Progress(progress.BarColumn(), *columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(name, completed=start, total=total)
            yield lambda received: bar.update(task, completed=received)
        return
    began = shown = time.monotonic()

    def show(received: int) -> None:
        nonlocal shown
        if (now := time.monotonic()) - shown >= REPORT_SECONDS:
            shown, rate = now, (received - start) / (now - began)  # bytes per second
            left = f" of {total / 1e6:,.1f} MB, {(total - received) / rate:,.0f} s left" if total else " MB"
            report(f"{name}: {received / 1e6:,.1f}{left}, {rate / 1e6:,.1f} MB/s")

    yield show
