import io
import sys
from collections.abc import Iterator

import pytest

from tiny_imagenet.common import progress
from tiny_imagenet.common.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[io.StringIO, Terminal])
def stderr(request, monkeypatch):
    stream = request.param()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    return stream


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: `clock[0]` is the time in seconds."""
    seconds = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def test_items_are_yielded_unchanged_and_in_order(stderr):
    items = [object() for _ in range(100)]
    assert list(track(iter(items), "work", len(items))) == items


def test_no_items_are_no_error(stderr):
    assert list(track([], "work", 0)) == []


def test_items_are_requested_one_at_a_time(stderr):
    asked = []

    def items() -> Iterator[int]:
        for item in range(10):
            asked.append(item)
            yield item

    tracked = track(items(), "work", 10)
    assert asked == []
    assert next(tracked) == 0
    assert asked == [0]


def test_error_of_the_items_is_not_swallowed(stderr):
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    tracked = track(items(), "work", 2)
    assert next(tracked) == 1
    with pytest.raises(ValueError, match="broken"):
        next(tracked)


def test_off_a_terminal_a_line_is_printed_every_five_seconds(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    for _ in track(range(12), "cache train", 12_000):
        clock[0] += 2
    # 2 s an item: the third, sixth, ninth and twelfth are the first ones past 5 s
    assert sys.stderr.getvalue().splitlines() == [f"cache train: {done} of 12,000" for done in (3, 6, 9, 12)]


def test_off_a_terminal_quick_work_is_silent(monkeypatch, clock):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert len(list(track(range(1_000), "work", 1_000))) == 1_000
    assert sys.stderr.getvalue() == ""


def test_on_a_terminal_a_bar_names_the_work_and_counts(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    list(track(range(30), "cache train", 30))
    assert "cache train" in sys.stderr.getvalue()
    assert "30/30" in sys.stderr.getvalue()


def test_stdout_stays_free_for_results(stderr, capsys):
    list(track(range(30), "work", 30))
    assert capsys.readouterr().out == ""
