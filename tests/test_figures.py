"""Figures: files made, the same bytes for the same figures, nothing left open."""

import warnings

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_results import made_params, make_results

from tiny_imagenet import comparison, figures

LOGS = comparison.authors_logs()
HISTORY = LOGS[LOGS["model"] == "model_2"][["epoch", "accuracy", "val_accuracy"]]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 64, 64, 3), np.uint8)
CONFUSION = RNG.integers(0, 9, (4, 4))


def curves(path, *, with_logs=True):
    histories = {"model_2": HISTORY, "model_9": HISTORY}
    figures.accuracy_curves(histories, LOGS, "val_accuracy", "Validation accuracy", path, with_logs=with_logs)


def parameters(path):
    root = path.parent / "made"
    if not root.exists():
        make_results(root, "model_1")
    table = comparison.results_table(made_params(), root / "models", root / "results")
    figures.parameter_counts(table, path)


def grid(path):
    figures.image_grid({"original": IMAGES, "epoch 1": IMAGES[:2]}, path, "Some images", captions=["a", "b", "c"])


def confusion(path):
    figures.confusion_matrix(CONFUSION, list("abcd"), "Confusion", path)


DRAWINGS = {"curves": curves, "parameters": parameters, "grid": grid, "confusion": confusion}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_png_and_svg_and_photographs_png_alone(name, tmp_path):
    DRAWINGS[name](tmp_path / "new" / "figure")
    made = {file.suffix: file.read_bytes() for file in (tmp_path / "new").iterdir() if file.is_file()}
    assert set(made) == ({".png"} if name == "grid" else {".png", ".svg"})
    pixels = plt.imread(tmp_path / "new" / "figure.png")
    assert min(pixels.shape[:2]) > 100
    assert pixels.std() > 0
    if ".svg" in made:
        assert b"<svg" in made[".svg"]


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_same_figures_give_the_same_bytes(name, tmp_path):
    for copy in ("one", "two"):
        DRAWINGS[name](tmp_path / copy)
    for suffix in (".png", ".svg"):
        one, two = (tmp_path / f"{copy}{suffix}" for copy in ("one", "two"))
        assert not one.exists() or one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", DRAWINGS)
def test_no_figure_stays_open_and_no_setting_changes(name, tmp_path):
    before = mpl.rcParams.copy()
    DRAWINGS[name](tmp_path / "figure")
    assert plt.get_fignums() == []
    assert mpl.rcParams == before


def test_a_figure_that_fails_is_closed_and_leaves_no_file(tmp_path):
    with pytest.raises(KeyError):
        figures.accuracy_curves({"model_1": HISTORY[["epoch"]]}, LOGS, "accuracy", "", tmp_path / "f", with_logs=False)
    assert plt.get_fignums() == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("with_logs", [True, False])
def test_the_authors_curves_are_drawn_where_they_may_be_compared(with_logs, tmp_path, monkeypatch):
    drawn = {}
    save = mpl.figure.Figure.savefig

    def spy(figure, *arguments, **options):
        drawn.update(
            {
                line.get_label(): (line.get_xdata(), line.get_linestyle())
                for line in figure.axes[0].lines
                if len(line.get_xdata())
            }
        )
        save(figure, *arguments, **options)

    monkeypatch.setattr(mpl.figure.Figure, "savefig", spy)
    curves(tmp_path / "figure", with_logs=with_logs)
    assert {"model_2", "model_9"} <= set(drawn)
    dashed = [len(epochs) for epochs, style in drawn.values() if style == "--"]
    assert dashed == ([20] if with_logs else [])  # model 2's log; there is none of a model 9


@pytest.mark.parametrize("with_logs", [True, False])
def test_without_any_history_there_is_still_a_figure(with_logs, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.accuracy_curves({}, LOGS, "accuracy", "Nothing yet", tmp_path / "figure", with_logs=with_logs)
    assert (tmp_path / "figure.png").exists()


def test_more_models_than_colours_are_drawn(tmp_path):
    histories = {f"model_{number}": HISTORY for number in range(len(figures.COLOURS) + 2)}
    figures.accuracy_curves(histories, LOGS, "accuracy", "Many", tmp_path / "figure", with_logs=False)
    assert (tmp_path / "figure.png").exists()


def test_parameters_of_no_model_are_an_empty_figure(tmp_path):
    table = comparison.results_table(made_params(), tmp_path / "models", tmp_path / "results")
    figures.parameter_counts(table, tmp_path / "figure")
    assert (tmp_path / "figure.png").exists()


def test_confusion_shows_shares_of_the_true_class_and_takes_an_empty_one(tmp_path, monkeypatch):
    shown = []
    save = mpl.figure.Figure.savefig

    def spy(figure, *arguments, **options):
        shown.append(np.asarray(figure.axes[0].images[0].get_array()))
        save(figure, *arguments, **options)

    monkeypatch.setattr(mpl.figure.Figure, "savefig", spy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.confusion_matrix(np.array([[3, 1], [0, 0]]), ["a", "b"], "", tmp_path / "figure")
    np.testing.assert_allclose(shown[0], [[0.75, 0.25], [0, 0]])


def test_two_hundred_classes_are_drawn_without_their_names(tmp_path):
    names = [f"class {number}" for number in range(200)]
    figures.confusion_matrix(np.eye(200, dtype=np.int64), names, "", tmp_path / "figure")
    assert b"class 7" not in (tmp_path / "figure.svg").read_bytes()
    figures.confusion_matrix(np.eye(9, dtype=np.int64), names[:9], "", tmp_path / "small")
    assert (tmp_path / "small.svg").stat().st_size > 0


def test_a_class_name_with_a_dollar_is_no_formula(tmp_path):
    figures.confusion_matrix(np.eye(2, dtype=np.int64), ["5$ note", r"\frac$"], "", tmp_path / "figure")
    frame = pd.DataFrame(HISTORY)
    figures.accuracy_curves({"a$b$c": frame}, LOGS, "accuracy", "", tmp_path / "curves", with_logs=False)
    assert (tmp_path / "figure.png").exists()
