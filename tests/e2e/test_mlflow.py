"""What a user has of MLflow after `dvc repro`: its pages in a browser (`mlflow ui`), and a model that it serves.

Served, plain pixels get the same probabilities as from `model.keras`. Both look at one repository: it is long to make.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
from repository_copy import Copy
from servers import HOST, Server, answers, free_port
from standin import STANDINS

MODELS = list(STANDINS)
SERVED = "model_2"
SECONDS_TO_SHOW = 60
pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def ui(made: Copy, tmp_path_factory) -> Iterator[Server]:
    port, log = free_port(), tmp_path_factory.mktemp("ui") / "log"
    is_ready = partial(answers, f"http://{HOST}:{port}/health")
    command = ["mlflow", "ui", "--port", str(port)]
    with Server(command, port, is_ready, made.root, log, made.environment()).running() as server:
        yield server


class Page:
    """What the browser shows; its parts appear one after another, and are drawn anew at any moment."""

    def __init__(self, browser: Any, pictures: Path) -> None:
        self._browser = browser
        self._pictures = pictures

    def wait_for(self, what: Callable[[], Any]) -> Any:
        """Return what `what` returns as soon as that is something."""
        from selenium.common.exceptions import WebDriverException

        end = time.monotonic() + SECONDS_TO_SHOW
        while time.monotonic() < end:
            with suppress(WebDriverException):  # it has just been replaced, or is covered
                if found := what():
                    return found
            time.sleep(0.2)
        self.keep("missing")
        raise AssertionError(f"waited in vain; the page says:\n{self.text()}")

    def all(self, selector: str, text: str = "") -> list[Any]:
        found = self._browser.find_elements("css selector", selector)
        return [element for element in found if not text or element.text == text]

    def click(self, selector: str, text: str = "") -> None:
        self.wait_for(lambda: [element.click() or True for element in self.all(selector, text)[:1]])

    def text(self) -> str:
        return self.all("body")[0].text

    def table(self) -> pd.DataFrame:
        """Return the first table in Markdown that is shown, by its first column."""
        rows = self.wait_for(lambda: [row for row in self.all("table tr") if row.is_displayed() and row.text])
        cells = [[cell.text for cell in row.find_elements("css selector", "th, td")] for row in rows]
        return pd.DataFrame(cells[1:], columns=cells[0]).set_index(cells[0][0])

    def keep(self, name: str) -> None:
        """Write a picture beside the test's other files, to look at."""
        self._browser.save_screenshot(str(self._pictures / f"{name}.png"))


@pytest.fixture
def page(browser, ui, tmp_path) -> Iterator[Page]:
    """Go to the runs of the experiment `demo`, and in the end keep a picture of what the test has come to."""
    browser.get("about:blank")
    browser.get(ui.url)
    page = Page(browser, tmp_path)
    page.click("a", "Experiments")
    page.click("[role=button]", "Model training")
    page.click("a", "demo")
    page.wait_for(lambda: page.all("a[href*='/runs/']"))
    yield page
    page.keep("page")


def test_the_experiment_lists_a_run_per_model(page):
    assert sorted(link.text for link in page.all("a[href*='/runs/']")) == MODELS
    assert "5 matching runs" in page.text()


def test_the_five_are_compared_on_one_page(page):
    page.click("input[aria-label='Select all runs']")
    page.click("button", "Compare")
    page.wait_for(lambda: "Comparing 5 Runs from 1 Experiment" in page.text())
    page.wait_for(lambda: page.all(".parcoords"))
    rows = [line for line in page.text().splitlines() if line.startswith("architecture ")]
    assert sorted(rows[0].split()[1:]) == sorted(
        ["two_conv", "three_conv", "deep_conv", "deep_conv_dropout", "resnet50"]
    )


def test_a_run_shows_its_validation_accuracy_epoch_by_epoch(page):
    page.click("a", "model_2")
    page.click("[role=tab]", "Model metrics")
    page.wait_for(lambda: page.all("input[placeholder='Search metric charts']"))[0].send_keys("^val_accuracy$")
    chart = "[data-testid=experiment-view-compare-runs-card]"
    page.wait_for(lambda: [card.text.splitlines()[0] for card in page.all(chart)] == ["val_accuracy"])
    assert len(page.wait_for(lambda: page.all(f"{chart} .scatterlayer .point"))) == 2  # epochs


def percents(made: Copy) -> dict[str, str]:
    table = pd.read_csv(made.root / "reports" / "results.csv").set_index("model")
    return {model: f"{100 * accuracy:.2f}" for model, accuracy in table["val_accuracy"].items()}


def test_the_experiment_is_described_by_the_table_of_results(page, made):
    page.click("[data-component-id='mlflow.experiment.metadata_editor.expand_button']")
    shown = page.table()["val (95 % interval)"].str.split().str[0]
    assert shown.to_dict() == percents(made)


def test_a_run_is_described_by_its_row_of_the_table(page, made):
    page.click("a", "model_2")
    page.wait_for(lambda: "About this run" in page.text())
    page.wait_for(lambda: f"val {percents(made)['model_2']} (" in page.text())


# --- served ---


@pytest.fixture(scope="module")
def served(made, tmp_path_factory):
    run = json.loads((made.root / "models" / SERVED / "run.json").read_text())["run_id"]
    port, log = free_port(), tmp_path_factory.mktemp("served") / "log"
    command = ["mlflow", "models", "serve", "-m", f"runs:/{run}/model", "--env-manager", "local", "--port", str(port)]
    is_ready = partial(answers, f"http://{HOST}:{port}/ping")
    with Server(command, port, is_ready, made.root, log, made.environment()).running() as server:
        yield server


def test_images_as_json_get_the_probabilities_of_the_kept_model(served, made, keras):
    images = np.load(made.root / "data" / "cache" / "val_images.npy")[:2]
    answer = requests.post(f"{served.url}/invocations", json={"inputs": images.tolist()}, timeout=60)
    assert answer.status_code == 200, answer.text
    kept = keras.models.load_model(made.root / "models" / SERVED / "model.keras", compile=False)
    expected = kept.predict(images, verbose=0)
    np.testing.assert_allclose(answer.json()["predictions"], expected, rtol=0, atol=1e-6)
    assert expected.shape == (2, 10)
    assert np.ptp(expected, axis=0).max() > 1e-4  # the two are not answered alike


def test_images_of_another_size_are_refused(served, made):
    images = np.load(made.root / "data" / "cache" / "val_images.npy")[:2, :32]
    answer = requests.post(f"{served.url}/invocations", json={"inputs": images.tolist()}, timeout=60)
    assert answer.status_code == 400
    assert "(-1, 64, 64, 3)" in answer.text
