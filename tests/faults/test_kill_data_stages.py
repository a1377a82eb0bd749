"""SIGKILL at random moments of download, reorganize and cache: the next `dvc repro` comes right by itself."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from tiny_imagenet.common.files import md5
from tiny_imagenet.repository.dvc import remove_broken_lock

ROOT = Path(__file__).parents[2]
KILLS_PER_STAGE = 30
pytestmark = pytest.mark.faults


class SlowFiles(SimpleHTTPRequestHandler):
    """Serves a folder at some 20 MB/s, so that there is time to kill."""

    def copyfile(self, source, outputfile):
        while block := source.read(1 << 18):
            outputfile.write(block)
            time.sleep(0.01)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="module")
def repository(tmp_path_factory, make_archive):
    root = tmp_path_factory.mktemp("killed") / "repository"
    for name in ("src", "stages", "dvc.yaml", ".dvc/config", ".dvcignore"):
        source = ROOT / name
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, root / name) if source.is_dir() else shutil.copy(source, root / name)
    served = tmp_path_factory.mktemp("served")
    archive = make_archive(20, train=300, val=50).write(served / "own.zip")
    handler = partial(SlowFiles, directory=str(served))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["profile"] = "own"
    params["profiles"]["own"] = {
        "dataset": {
            "name": "own",
            "urls": [f"http://127.0.0.1:{server.server_port}/own.zip"],
            "md5": md5(archive),
            "bytes": archive.stat().st_size,
            "expect": {"classes": 20, "train": 300, "val": 50},
        },
        "training": {},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    (root / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    yield root
    server.shutdown()


def dvc(root: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(root / "src"),
    }
    return subprocess.Popen(
        ["dvc", *arguments], cwd=root, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def outputs(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): md5(path)
        for path in sorted((root / "data").rglob("*"))
        if path.is_file() and not path.name.endswith((".partial", ".tmp"))  # DVC leaves .tmp where it is killed
    }


@pytest.mark.parametrize("stage", ["download", "reorganize", "cache"])
def test_a_stage_killed_at_any_moment_succeeds_when_rerun(repository, stage):
    first = dvc(repository, "repro", "cache")
    printed, _ = first.communicate()
    assert first.returncode == 0, printed
    expected = outputs(repository)

    start = time.monotonic()
    dvc(repository, "repro", "--force", "--single-item", stage).communicate()
    whole = time.monotonic() - start
    moments = random.Random(stage)  # noqa: S311 - repeatable, not secret
    killed = 0
    while killed < KILLS_PER_STAGE:
        if stage == "download":  # else DVC's cache would stand in for the network
            digest = expected["data/raw/dataset.zip"]
            (repository / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]).unlink(missing_ok=True)
        process = dvc(repository, "repro", "--force", "--single-item", stage)
        time.sleep(moments.uniform(0, whole))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            killed += 1
        process.communicate()
        remove_broken_lock(repository)  # as `make repro` does first: DVC itself writes dvc.lock in place
        again = dvc(repository, "repro", "cache")
        printed, _ = again.communicate()
        assert again.returncode == 0, printed
        assert outputs(repository) == expected
