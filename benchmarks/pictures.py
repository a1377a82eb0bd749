"""The pictures of README: the report, and MLflow's charts of all runs, as a browser shows them.

Needs Chromium with its driver, and the results of the demo. `make pictures` writes docs/pictures.
"""

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import Any
from urllib.request import urlopen

import typer

from tiny_imagenet import entry
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import load_params
from tiny_imagenet.tracking import store

DESTINATION = Path("docs/pictures")
_REPORT = Path("reports/results.html")
_WIDTH, _HEIGHT = 1280, 900
_SECONDS = 300
_CLOSE_ASSISTANT = """
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
"""
_SEARCH = "input[placeholder='Search metric charts']"
_HIDE_TOOLS = "document.querySelectorAll('.modebar').forEach(tools => tools.remove())"
"""Without a mouse, the tools of each chart cover its corner."""


def main() -> None:
    """Write docs/pictures/report.png and docs/pictures/compare.png."""
    from selenium.webdriver.common.by import By

    if not _REPORT.is_file():
        raise UserError(f"there is no {_REPORT}: run `dvc repro`")
    with store.connected(Path.cwd()):
        experiment = store.experiment_id(load_params().profile, Path.cwd())
    DESTINATION.mkdir(exist_ok=True)
    with _browser() as browser:
        browser.get(_REPORT.absolute().as_uri())
        browser.save_screenshot(str(DESTINATION / "report.png"))
        with _server() as address:
            browser.get(address)
            browser.execute_script(_CLOSE_ASSISTANT)
            browser.get(
                f"{address}/#/experiments/{experiment}/runs?compareRunsMode=CHART&workflowType=machine_learning"
            )
            browser.refresh()
            _wait(lambda: browser.find_elements(By.CSS_SELECTOR, _SEARCH))
            browser.find_element(By.CSS_SELECTOR, _SEARCH).send_keys("^(val_)?(accuracy|loss)$")
            _wait(lambda: len(browser.find_elements(By.CSS_SELECTOR, ".js-plotly-plot .modebar")) >= 3)
            time.sleep(3)  # the curves are drawn after their frames
            browser.execute_script(_HIDE_TOOLS)
            browser.save_screenshot(str(DESTINATION / "compare.png"))


@contextmanager
def _browser() -> Iterator[Any]:
    from selenium import webdriver

    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not chromium or not driver:
        raise UserError("no browser is installed: `apt-get install chromium chromium-driver`")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", f"--window-size={_WIDTH},{_HEIGHT}", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium refuses to run as root with one
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


@contextmanager
def _server() -> Iterator[str]:
    """Yield the address of `mlflow ui`, on a free port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with suppress(OSError), urlopen(f"{address}/health") as answer:  # noqa: S310 - our own address
            return bool(answer.status == 200)
        return False

    with Popen(["mlflow", "ui", "--port", str(port), "--workers", "1"], stdout=DEVNULL, stderr=DEVNULL) as server:
        try:
            _wait(answers)
            yield address
        finally:
            server.terminate()


def _wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _SECONDS
    while not condition():
        if time.monotonic() > end:
            raise UserError(f"the page did not show what was expected within {_SECONDS} seconds")
        time.sleep(0.5)


if __name__ == "__main__":
    sys.exit(entry.run(lambda: typer.run(main)))
