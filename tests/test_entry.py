"""How commands end, and that params are checked in full."""

import errno
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

from tiny_imagenet import entry
from tiny_imagenet.common.errors import UserError

COMMITTED = Path(__file__).parents[1] / "params.yaml"


def failing(error: BaseException):
    def main() -> None:
        raise error

    return main


def test_success_is_0_and_silent(capsys):
    assert entry.run(lambda: None) == 0
    assert capsys.readouterr() == ("", "")


def test_a_user_error_is_1_with_only_its_message_on_stderr(capsys):
    assert entry.run(failing(UserError("params.yaml: seed: no"))) == 1
    assert capsys.readouterr() == ("", "error: params.yaml: seed: no\n")


def test_ctrl_c_is_130_without_a_traceback(capsys):
    assert entry.run(failing(KeyboardInterrupt())) == 130
    assert capsys.readouterr() == ("", "stopped\n")


@pytest.mark.parametrize(
    ("begins", "said"),
    [
        ("sys.argv[0] = '-m'; import stages; interrupt()", "stopped\n"),  # as `python -m stages.train` imports it
        ("sys.argv[0] = '-m'; import stages, tiny_imagenet.entry as e; sys.exit(e.run(tidy))", "tidy\nstopped\n"),
        ("sys.modules['tiny_imagenet.cli.app'] = Interrupting(); from tiny_imagenet.__main__ import main; main()", ""),
    ],
)  # fmt: skip
def test_ctrl_c_during_imports_is_130_too(begins, said):
    script = f"""
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run where it is ignored
def interrupt():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)
def tidy():
    try:
        interrupt()
    finally:
        print("tidy", file=sys.stderr)
class Interrupting:
    __spec__ = None
    main = staticmethod(interrupt)
{begins}
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=COMMITTED.parent, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, said)


def test_an_ignored_signal_stays_ignored(monkeypatch):
    """As the shell starts what runs in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert entry.run(lambda: os.kill(os.getpid(), signal.SIGINT)) == 0
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        FileNotFoundError(errno.ENOENT, "No usable temporary directory"),
    ],
)
def test_if_the_error_does_not_name_the_full_disk_both_are_named(error, capsys, tmp_path, monkeypatch):
    """As when the folder of temporary files is a small disk of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert entry.run(failing(error)) == 1
    said = capsys.readouterr().err
    free = r"\([\d,.]+ MB free\)"
    folders = f"{re.escape(str(Path.cwd()))} {free} or {re.escape(str(tmp_path))} {free}"
    assert re.fullmatch(f"error: {folders}: {error.strerror}; fix this and rerun\n", said)


def test_without_any_folder_for_temporary_files_the_message_is_the_same(capsys, monkeypatch):
    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(entry, "gettempdir", none)
    assert entry.run(none) == 1
    assert capsys.readouterr().err.endswith(" MB free): No usable temporary directory found; fix this and rerun\n")


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyError("a bug"), SystemExit(2)])
def test_other_errors_are_not_caught(error, capsys):
    with pytest.raises(type(error)) as caught:
        entry.run(failing(error))
    assert caught.value is error


def test_the_committed_params_pass_every_check():
    assert entry.checked_params(COMMITTED).active[0] == "model_1"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"epochs": -1}, "models.model_1.epochs"),
        ({"architecture": "two_conw"}, "did you mean 'two_conv'"),
        ({"build": {"dense_unit": 1}}, "did you mean 'dense_units'"),
        ({"weights": "imagenet"}, "models.model_1.weights"),
    ],
)
def test_params_are_checked_in_full_before_any_work_and_the_file_is_named(change, expected, tmp_path):
    values = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
    values["models"]["model_1"] |= change
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(UserError) as caught:
        entry.checked_params(path)
    assert expected in str(caught.value)
    assert "params.yaml: " in str(caught.value)


def test_blocks_that_are_not_active_are_checked_too(tmp_path):
    values = yaml.safe_load(COMMITTED.read_text(encoding="utf-8"))
    values["models"]["variant"] = values["models"]["model_1"] | {"architecture": "unheard"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(UserError, match=r"models\.variant\.architecture"):
        entry.checked_params(tmp_path / "params.yaml")
