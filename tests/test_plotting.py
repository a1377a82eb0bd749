"""The style of all figures, and grids of images."""

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_checks import check_figure
from made_results import ROOT
from matplotlib import font_manager

from benchmarks import validation_gap
from tiny_imagenet import plotting
from tiny_imagenet.common.files import read_json

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
PAIRS = pd.DataFrame({"index_a": [0, 1], "index_b": [2, 1], "distance": [0, 3]})


def grid(path):
    captions = {"epoch 1": ["a", "b"]}
    plotting.image_grid({"original": IMAGES, "epoch 1": IMAGES[:2]}, path, "Some images", captions=captions)


def pairs(path):
    plotting.image_pairs(IMAGES, IMAGES, PAIRS, path)


@pytest.mark.parametrize("draw", [grid, pairs])
def test_images_are_drawn_completely_and_only_as_png(draw, tmp_path, drawn):
    check_figure(draw, tmp_path, drawn, photographs=True)


def test_without_pairs_the_picture_says_so(tmp_path, drawn):
    plotting.image_pairs(IMAGES, IMAGES, PAIRS[:0], tmp_path / "figure")
    assert "No image" in drawn[0].get_suptitle()


@pytest.fixture
def fonts(monkeypatch):
    """Return a function that lets only these fonts be installed."""

    def install(*names):
        installed = [font for font in font_manager.fontManager.ttflist if font.name in names]
        monkeypatch.setattr(font_manager.fontManager, "ttflist", installed)
        for known in (plotting._fonts, plotting._characters):
            known.cache_clear()

    yield install
    monkeypatch.undo()
    for known in (plotting._fonts, plotting._characters):
        known.cache_clear()


def test_only_characters_without_a_font_are_escaped(fonts):
    fonts("DejaVu Sans")
    assert plotting.drawable("goldfish, ß Ж Ω\nقط 😀") == "goldfish, ß Ж Ω\nقط 😀"
    assert plotting.drawable("猫 cat, 하, 🦊") == "\\u732b cat, \\ud558, \\U0001f98a"


def test_a_system_font_is_used_for_what_the_first_font_lacks(fonts, monkeypatch):
    only_stix = "\N{LATIN SMALL LETTER D WITH PALATAL HOOK}"
    fonts("DejaVu Sans", "STIXGeneral")
    assert plotting.drawable(only_stix) == "\\u1d81"
    monkeypatch.setattr(plotting, "_FONTS_OF_OTHER_SCRIPTS", ("STIXGeneral", "not installed"))
    fonts("DejaVu Sans", "STIXGeneral")
    assert plotting._fonts() == ["DejaVu Sans", "STIXGeneral"]
    assert plotting.drawable(only_stix) == only_stix


def test_names_in_any_script_are_drawn_without_a_missing_glyph(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plotting.image_grid({"金魚": IMAGES, "قط": IMAGES, "하 😀 🦊": IMAGES[:1]}, tmp_path / "figure", "Some images")
    assert (tmp_path / "figure.png").stat().st_size


def test_a_figure_that_fails_is_closed_and_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), plotting.new_figure(tmp_path / "figure", 4, 3):
        raise KeyError
    assert plt.get_fignums() == []
    assert list(tmp_path.iterdir()) == []


def test_looks_do_not_repeat_for_a_hundred_models():
    assert len({tuple(look.values()) for look in plotting.looks(100)}) == 100


@pytest.mark.parametrize(
    ("epochs", "words"),
    [([6, 6], ", 6 epochs"), (pd.Series([20, 15], dtype="Int64"), ", 15 to 20 epochs"), ([1], ", 1 epoch"), ([], "")],
)
def test_a_title_names_the_training_data(epochs, words):
    found = plotting.trained_on("digits", {"classes": 10, "train": 1400, "val": 200}, epochs)
    assert found == f"digits, 1,400 training and 200 validation images{words}"


def test_figures_of_the_validation_gap_name_the_training_data(tmp_path, drawn):
    kept = ROOT / validation_gap.DESTINATION
    epochs, by_missing = pd.read_csv(kept / "epochs.csv"), pd.read_csv(kept / "shift.csv")
    fits = read_json(kept / "fits.json")["fits"]
    images = {"train": 44_000, "val": 10_000}
    runs = {"model_1": {"images": images, "epochs": 15}, "model_2": {"images": images, "epochs": 12}}
    validation_gap.draw(tmp_path, epochs, by_missing, fits, 0.16, "tiny-imagenet-200", runs)
    about = "tiny-imagenet-200, 44,000 training and 10,000 validation images"
    titles = [figure.get_suptitle().splitlines()[1] for figure in drawn]
    assert titles == [f"ours: {about}, 12 to 15 epochs", f"{about}, 15 epochs"]
