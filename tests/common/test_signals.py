"""Ctrl-C that is delayed."""

import signal
import threading

import pytest

from tiny_imagenet.common.signals import interrupts_held


def press_ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.fixture(autouse=True)
def interrupts_raise():
    """Let Ctrl-C raise KeyboardInterrupt, as in a terminal: pytest may run as a background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_the_first_interrupt_waits_for_the_check():
    with interrupts_held() as held:
        held.check()
        press_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            held.check()


def test_the_second_interrupt_is_raised_at_once():
    with interrupts_held():
        press_ctrl_c()
        with pytest.raises(KeyboardInterrupt):
            press_ctrl_c()


def test_after_the_block_interrupts_are_raised_again():
    with interrupts_held():
        pass
    with pytest.raises(KeyboardInterrupt):
        press_ctrl_c()


def test_in_another_thread_nothing_is_delayed_and_nothing_fails():
    seen = []

    def work() -> None:
        with interrupts_held() as held:
            held.check()
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]
