"""What end-to-end tests share: PostgreSQL, MLflow's server on it, a browser, and a repository that has made everything.

What is not installed skips the tests that need it; `make e2e` installs it where it may.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from repository_copy import Copy, copy_of_repository
from servers import HOST, Server, answers, free_port
from standin import small_models


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Copy:
    """Return a repository in which `dvc repro` has made everything; a test may read it, and changes nothing."""
    copy = copy_of_repository(tmp_path_factory.mktemp("made") / "repository")
    copy.edit(small_models)
    copy.commit()
    copy.succeed("dvc", "repro")
    return copy


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Start a PostgreSQL that is thrown away afterwards; yield its address."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not binaries:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    pytest.importorskip("psycopg2")
    folder_of_binaries, port = binaries[-1].parent, free_port()
    # It refuses to run as root. Its user may not enter pytest's folders, so it gets one of its own.
    user: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    with TemporaryDirectory(prefix="postgres") as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, user["user"], user["group"])
        subprocess.run(
            [folder_of_binaries / "initdb", "--pgdata=data", "--username=mlflow", "--auth=trust", "--encoding=UTF8",
             "--locale=C", "--no-sync"],
            cwd=folder, check=True, stdout=subprocess.DEVNULL, **user,
        )  # fmt: skip
        command = [binaries[-1], "-D", "data", "-h", HOST, "-p", port, "-k", "", "-F"]  # no sockets, no fsync
        is_ready = [folder_of_binaries / "pg_isready", "--quiet", f"--host={HOST}", f"--port={port}"]
        server = Server(
            [str(word) for word in command], port, lambda: subprocess.run(is_ready).returncode == 0,
            folder, folder / "log", user=user,
        )  # fmt: skip
        with server.running():
            yield f"postgresql+psycopg2://mlflow@{HOST}:{port}/postgres"


@pytest.fixture(scope="session")
def mlflow_server(postgres, tmp_path_factory) -> Iterator[Server]:
    """Start MLflow's server: PostgreSQL behind it, artifacts through it. A test that stops it starts it again."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "2",
        "--backend-store-uri", postgres, "--serve-artifacts", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    is_ready = partial(answers, f"http://{HOST}:{port}/health")
    with Server(command, port, is_ready, folder, folder / "log", environment).running() as server:
        yield server


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Start a Chromium without a window."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("no browser is installed: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--window-size=1600,1200", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # it refuses to run as root with one
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield chrome
    chrome.quit()
