"""The watchdog stops a command, and all processes of the command, when its parent exits."""

import os
import signal
import subprocess
import sys
import time

import pytest

# Exits with 130 on Ctrl-C, like a stage.
WAITS = """
import os, sys, time
try:
    print(os.getpid(), flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    sys.exit(130)
"""
# Starts the command through a shell, like DVC.
STARTS_AND_IS_KILLED = """
import os, signal, subprocess, sys
subprocess.Popen([*sys.argv[1:], "sh", "-c", 'exec "$PYTHON" -c "$CODE"'], stdin=subprocess.PIPE)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def watchdog(tmp_path) -> list[str]:
    return [sys.executable, "-m", "tiny_imagenet.repository.watchdog", str(tmp_path / "locks" / "lock")]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_it_ends(pid: int) -> None:
    deadline = time.monotonic() + 30
    while is_running(pid):
        assert time.monotonic() < deadline, f"{pid} is still running"
        time.sleep(0.05)


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_that_of_the_command(code, watchdog):
    with subprocess.Popen([*watchdog, "sh", "-c", f"exit {code}"], stdin=subprocess.PIPE) as process:
        assert process.wait(30) == code


def test_the_command_is_interrupted_when_stdin_is_closed(watchdog):
    process = subprocess.Popen(
        [*watchdog, sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin
    assert process.stdout
    pid = int(process.stdout.readline())
    process.stdin.close()
    assert process.wait(30) == 130
    assert not is_running(pid)


def test_the_command_ends_when_its_parent_is_killed(watchdog):
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTS_AND_IS_KILLED, *watchdog], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=os.environ | {"PYTHON": sys.executable, "CODE": WAITS},
    )  # fmt: skip
    assert starter.stdin
    assert starter.stdout
    pid = int(starter.stdout.readline())
    starter.stdin.write("die\n")
    starter.stdin.flush()
    assert starter.wait(30) == -signal.SIGKILL
    wait_until_it_ends(pid)


def test_the_command_ends_when_a_signal_ends_the_group_of_its_parent(watchdog):
    """`timeout` and a closed terminal send such a signal. The watchdog receives it too."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTS_AND_IS_KILLED, *watchdog], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=os.environ | {"PYTHON": sys.executable, "CODE": WAITS}, start_new_session=True,
    )  # fmt: skip
    assert starter.stdout
    pid = int(starter.stdout.readline())
    os.killpg(starter.pid, signal.SIGTERM)
    assert starter.wait(30) == -signal.SIGTERM
    wait_until_it_ends(pid)


def test_a_second_command_waits_for_the_first_and_gives_up_with_its_parent(watchdog):
    first = subprocess.Popen(
        [*watchdog, sys.executable, "-c", WAITS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert first.stdin
    assert first.stdout
    first.stdout.readline()
    second, third = (
        subprocess.Popen([*watchdog, "echo", word], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for word in ("second", "third")
    )
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(2)
    third_printed, _ = third.communicate(timeout=30)  # closes its stdin
    assert (third_printed, third.returncode) == ("", 1)
    first.stdin.close()
    assert first.wait(30) == 130
    assert second.stdout
    assert second.stdout.readline() == "second\n"
    assert second.wait(30) == 0
