"""results.html in a browser, on a phone and on a desk: it shows everything, fetches nothing, and sorts."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_report import make_report, png, with_status

from tiny_imagenet.reporting.html import results_html

WIDTHS = {"phone": 390, "desk": 1280, "a4": 695}  # pixels of CSS; A4 between the page's margins
pytestmark = pytest.mark.e2e

NOTHING_OVERFLOWS = """
    const root = document.documentElement;
    const outside = [...document.querySelectorAll("body *")].filter((element) =>
        !element.closest(".scroll > *, svg") && element.getBoundingClientRect().right > root.clientWidth + 0.5);
    return [root.scrollWidth <= root.clientWidth, outside.map((element) => element.outerHTML.slice(0, 200))];
"""
IMAGES = "return [...document.images].map((image) => image.complete && image.naturalWidth > 0)"
FOLDED = """
    return [...document.querySelectorAll("details > :not(summary)")].map(
        (element) => element.getBoundingClientRect().height > 0);
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Return the page of four models with results and one without."""
    root = tmp_path_factory.mktemp("report")
    arguments = make_report(root, ["model_1", "model_2", "model_4", "model_5"])
    confusion = root / "results" / "model_1" / "figures" / "confusion.svg"
    confusion.unlink()
    confusion.with_suffix(".png").write_bytes(png(3900, 3810))  # as that of 200 classes is
    failed = {"model_3": "failed: NaN loss in epoch 3, see checkpoints/model_3.failed"}
    path = root / "results.html"
    path.write_text(results_html(**with_status(arguments, failed)), encoding="utf-8")
    return path


class Window:
    """The browser at the page, without a network."""

    def __init__(self, browser: Any, file: Path) -> None:
        self._browser = browser
        self._file = file

    def open(self, width: int, *, media: str = "", scheme: str = "light", script: bool = True) -> None:
        """Open the page anew; what the console said before is forgotten."""
        phone = width == WIDTHS["phone"]
        self.command("Network.enable")
        self.command(
            "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
        )
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=phone)
        self.command(
            "Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}]
        )
        self.command("Emulation.setScriptExecutionDisabled", value=not script)
        self._browser.get_log("browser")
        self._browser.get(self._file.as_uri())

    def command(self, name: str, **arguments: Any) -> dict[str, Any]:
        found: dict[str, Any] = self._browser.execute_cdp_cmd(name, arguments)
        return found

    def run(self, script: str, *arguments: Any) -> Any:
        return self._browser.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return list(self._browser.find_elements("css selector", selector))

    def console(self) -> list[str]:
        return [entry["message"] for entry in self._browser.get_log("browser")]

    def keep(self, path: Path) -> None:
        """Write a picture of the first screens, to look at."""
        clip = {"x": 0, "y": 0, "width": self.run("return innerWidth"), "height": 3000, "scale": 1}
        taken = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(taken["data"]))


@pytest.fixture
def window(browser, file) -> Iterator[Window]:
    """Yield the page's window, and leave the browser as it was for others."""
    window = Window(browser, file)
    yield window
    window.command("Emulation.setScriptExecutionDisabled", value=False)
    window.command("Emulation.clearDeviceMetricsOverride")
    window.command("Emulation.setEmulatedMedia", media="", features=[])
    window.command("Network.disable")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDTHS["phone"], WIDTHS["desk"]])
def test_the_page_fits_shows_each_image_and_has_no_error(window, tmp_path, width, scheme):
    window.open(width, scheme=scheme)
    assert window.run("return innerWidth") == width
    assert window.run(NOTHING_OVERFLOWS) == [True, []]
    images = window.run(IMAGES)
    assert len(images) == 9 + 4 * 4
    assert all(images)
    assert window.console() == []
    window.keep(tmp_path / "page.png")


@pytest.mark.parametrize("width", [WIDTHS["phone"], WIDTHS["desk"]])
def test_the_page_fits_if_everything_is_unfolded(window, width):
    window.open(width)
    window.run("for (const part of document.querySelectorAll('details')) part.open = true")
    assert all(window.run(FOLDED))
    assert window.run(NOTHING_OVERFLOWS) == [True, []]


@pytest.mark.parametrize("width", [WIDTHS["phone"], WIDTHS["desk"]])
def test_a_large_confusion_matrix_keeps_its_size_and_scrolls_in_its_frame(window, width):
    window.open(width)
    frame, image = window.all("#model-model_1 .confusion .scroll")[0], window.all("#model-model_1 .confusion img")[0]
    assert image.size["width"] == 2496  # as large as it was drawn
    for side in ("Width", "Height"):
        assert window.run(f"return arguments[0].scroll{side} > arguments[0].client{side}", frame)
    assert frame.size["height"] <= 900


def test_a_phone_shows_the_audit_as_cards_that_fit(window):
    window.open(WIDTHS["phone"])
    for frame in window.all(".scroll:has(.audit)"):
        assert window.run("return arguments[0].scrollWidth <= arguments[0].clientWidth", frame)
    rows = window.all(".audit tbody tr")
    assert max(row.size["height"] for row in rows) < 300
    for word in ("model_1", "reproduced", "13,070,472", "the interval contains the paper's"):
        assert word in rows[0].text
    headings = "return [...arguments[0].cells].map((cell) => getComputedStyle(cell, '::before').content).join()"
    for word in ("ours", "paper", "log"):
        assert word in window.run(headings, rows[0])


def test_the_page_follows_the_light_or_dark_scheme(window):
    brightness = []
    for scheme in ("light", "dark"):
        window.open(WIDTHS["desk"], scheme=scheme)
        colour = window.run("return getComputedStyle(document.body).backgroundColor")
        brightness.append(sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")))
    assert brightness[0] > 3 * 200
    assert brightness[1] < 3 * 60


def column(window: Window, place: int) -> list[str]:
    return [cell.text.splitlines()[0] for cell in window.all(f".results tbody tr > :nth-child({place})")]


def test_a_click_on_a_heading_sorts_by_number_with_missing_values_last(window):
    window.open(WIDTHS["desk"])
    names = [heading.text.splitlines()[0] for heading in window.all(".results thead th")]
    place = names.index("parameters") + 1
    assert len(window.all(".results thead th button")) == len(names)
    button = window.all(".results thead th button")[place - 1]
    button.click()
    assert column(window, place) == ["25,890,888", "13,070,472", "8,866,376", "2,555,656", "\N{EN DASH}"]
    button.click()
    assert column(window, place) == ["2,555,656", "8,866,376", "13,070,472", "25,890,888", "\N{EN DASH}"]
    orders = [heading.get_attribute("aria-sort") for heading in window.all(".results thead th")]
    assert [order for order in orders if order] == ["ascending"]
    assert orders[place - 1] == "ascending"
    window.all(".results thead th button")[0].click()
    assert column(window, 1) == ["model_1", "model_2", "model_3", "model_4", "model_5"]
    assert window.console() == []


def test_p_values_sort_by_their_values(window):
    window.open(WIDTHS["desk"])
    next(button for button in window.all(".paired thead button") if button.text.startswith("p")).click()
    shown = [cell.text for cell in window.all(".paired tbody tr > :nth-child(8)")]
    assert shown == ["0.4000"] * shown.count("0.4000") + ["< 0.0001"] * shown.count("< 0.0001")
    assert len(set(shown)) == 2


def test_without_a_script_only_the_sorting_is_missing(window):
    window.open(WIDTHS["phone"], script=False)
    assert window.all("th button") == []
    text = window.all("body")[0].text
    for part in ("Models side by side", "38.61", "failed: NaN loss in epoch 3", "McNemar", "Provenance"):
        assert part in text
    folded = window.all("#model-model_1 details:not([open])")[0]
    folded.find_element("css selector", "summary").click()
    assert folded.get_attribute("open") is not None


def test_on_paper_everything_is_unfolded_and_nothing_is_cut_off(window, tmp_path):
    window.open(WIDTHS["a4"], media="print", scheme="dark")
    assert window.all("details:not([open])")
    assert all(window.run(FOLDED))
    assert window.run("return document.documentElement.scrollWidth") <= WIDTHS["a4"]
    assert not window.all("nav")[0].is_displayed()
    assert window.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    printed = window.command("Page.printToPDF", preferCSSPageSize=True, printBackground=True)
    (tmp_path / "page.pdf").write_bytes(base64.b64decode(printed["data"]))


def test_the_page_fetches_nothing(window):
    window.open(WIDTHS["desk"])
    fetched = window.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert [name for name in fetched if not name.startswith("data:")] == []
