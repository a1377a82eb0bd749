"""Figures: files made, the same bytes for the same figures, nothing left open."""

import warnings
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_results import made_params, make_results

from tiny_imagenet import comparison, figures, metrics, result_figures

LOGS = comparison.authors_logs()
HISTORY = LOGS[LOGS["model"] == "model_2"][["epoch", "accuracy", "val_accuracy", "loss", "val_loss"]]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 64, 64, 3), np.uint8)
CONFUSION = RNG.integers(0, 9, (4, 4))


def curves(path, *, with_logs=True):
    histories = {"model_2": HISTORY, "model_9": HISTORY}
    figures.curves(histories, LOGS, "val_accuracy", "Validation accuracy", path, with_logs=with_logs)


def parameters(path):
    root = path.parent / "made"
    if not root.exists():
        make_results(root, "model_1")
    table = comparison.results_table(made_params(), root / "models", root / "results")
    figures.parameter_counts(table, path)


def grid(path):
    figures.image_grid({"original": IMAGES, "epoch 1": IMAGES[:2]}, path, "Some images", captions=["a", "b", "c"])


def confusion(path):
    result_figures.confusion_matrix(CONFUSION, list("abcd"), "Confusion", path)


def losses(path):
    figures.curves({"model_2": HISTORY}, LOGS, "val_loss", "Validation loss", path, with_logs=True)


def made_table(root: Path, models: list[str]) -> pd.DataFrame:
    for model in models:
        if not (root / "models" / model).exists():
            make_results(root, model)
    return comparison.results_table(made_params(), root / "models", root / "results")


def sizes(path, *, with_paper=True):
    table = made_table(path.parent / "made", ["model_1", "model_3", "model_4"])
    result_figures.accuracy_by_parameters(table, path, with_paper=with_paper)


def bars(path, *, with_paper=True):
    table = made_table(path.parent / "made", ["model_1", "model_3", "model_4"])
    result_figures.accuracy_bars(table, path, with_paper=with_paper)


def classes(path, number=30):
    random = np.random.default_rng(1)
    recall, support = random.uniform(size=number), random.integers(0, 50, number)
    frame = pd.DataFrame({"name": [f"class {place}" for place in range(number)], "recall": recall, "support": support})
    result_figures.best_and_worst_classes(frame, "Classes", path)


def calibration(path):
    confidence = np.linspace(0.2, 0.9, 200)
    table = metrics.calibration_table(confidence, np.arange(200) % 3 > 0)
    result_figures.calibration(table, "Calibration", path)


def predictions(right: int, wrong: int) -> pd.DataFrame:
    number = right + wrong
    labels = np.arange(number) % 3
    answers = np.where(np.arange(number) < right, labels, (labels + 1) % 3)
    return pd.DataFrame(
        {
            "image": np.arange(number),
            "label": labels,
            "label_1": answers,
            "probability_1": np.linspace(0.3, 0.9, number),
        }
    )


def gallery(path, right=9, wrong=11):
    images = np.random.default_rng(2).integers(0, 256, (20, 64, 64, 3), np.uint8)
    names = ["goldfish, Carassius auratus", "<script>$x$", "a name that is much longer than there is room for"]
    result_figures.gallery(images, predictions(right, wrong), names, "Gallery", path)


DRAWINGS = {
    "curves": curves,
    "losses": losses,
    "parameters": parameters,
    "sizes": sizes,
    "bars": bars,
    "classes": classes,
    "calibration": calibration,
    "grid": grid,
    "gallery": gallery,
    "confusion": confusion,
}
PHOTOGRAPHS = {"grid", "gallery"}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_figure_is_png_and_svg_and_photographs_png_alone(name, tmp_path):
    DRAWINGS[name](tmp_path / "new" / "figure")
    made = {file.suffix: file.read_bytes() for file in (tmp_path / "new").iterdir() if file.is_file()}
    assert set(made) == ({".png"} if name in PHOTOGRAPHS else {".png", ".svg"})
    pixels = plt.imread(tmp_path / "new" / "figure.png")
    assert min(pixels.shape[:2]) > 100
    assert pixels.std() > 0
    if ".svg" in made:
        assert b"<svg" in made[".svg"]


@pytest.fixture
def drawn(monkeypatch) -> list[mpl.figure.Figure]:
    """Return the list that every figure comes into when it is saved as a PNG."""
    figures_saved = []
    save = mpl.figure.Figure.savefig

    def spy(figure, *arguments, **options):
        save(figure, *arguments, **options)
        if options["format"] != "png":
            return
        figure.inked = figure.get_tightbbox()  # inches; another format measures its letters anew
        figures_saved.append(figure)

    monkeypatch.setattr(mpl.figure.Figure, "savefig", spy)
    return figures_saved


def long_confusion(path):
    result_figures.confusion_matrix(CONFUSION, ["Llanfairpwllgwyngyllgogerych"] * 4, "Confusion", path)


@pytest.mark.parametrize("draw", [*DRAWINGS.values(), long_confusion])
def test_nothing_is_cut_off_at_the_edge(draw, tmp_path, drawn):
    draw(tmp_path / "figure")
    inked = drawn[0].inked
    assert inked.x0 >= 0
    assert inked.y0 >= 0
    assert inked.x1 <= drawn[0].get_figwidth()
    assert inked.y1 <= drawn[0].get_figheight()


@pytest.mark.parametrize("draw", [curves, losses, sizes, bars])
def test_no_legend_covers_a_curve(draw, tmp_path, drawn):
    draw(tmp_path / "figure")
    (axis,) = drawn[0].axes
    assert axis.get_legend().get_window_extent().x0 >= axis.get_window_extent().x1


def test_losses_are_marked_with_plain_numbers(tmp_path, drawn):
    history = HISTORY.assign(val_loss=np.geomspace(2, 0.1, len(HISTORY)))
    figures.curves({"model_2": history}, LOGS, "val_loss", "Validation loss", tmp_path / "figure", with_logs=False)
    marks = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert {"0.2", "0.6", "1"} <= set(marks)


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
        figures.curves({"model_1": HISTORY[["epoch"]]}, LOGS, "accuracy", "", tmp_path / "f", with_logs=False)
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
        figures.curves({}, LOGS, "accuracy", "Nothing yet", tmp_path / "figure", with_logs=with_logs)
    assert (tmp_path / "figure.png").exists()


def test_more_models_than_colours_are_drawn(tmp_path):
    histories = {f"model_{number}": HISTORY for number in range(len(figures.COLOURS) + 2)}
    figures.curves(histories, LOGS, "accuracy", "Many", tmp_path / "figure", with_logs=False)
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
        result_figures.confusion_matrix(np.array([[3, 1], [0, 0]]), ["a", "b"], "", tmp_path / "figure")
    np.testing.assert_allclose(np.square(shown[0]), [[0.75, 0.25], [0, 0]])


def test_classes_that_are_confused_stand_together():
    pairs = np.array([0, 1, 2, 0, 1, 2])  # 0 and 3 are confused, 1 and 4, 2 and 5
    confusion = 90 * np.eye(6, dtype=np.int64) + 10 * (pairs[:, None] == pairs)
    order = result_figures.alike_first(confusion)
    assert sorted(order) == list(range(6))
    assert {tuple(sorted(order[place : place + 2])) for place in (0, 2, 4)} == {(0, 3), (1, 4), (2, 5)}


def test_two_hundred_classes_are_drawn_with_their_names(tmp_path):
    names = [f"class {number}, and another name" for number in range(200)]
    result_figures.confusion_matrix(np.eye(200, dtype=np.int64), names, "", tmp_path / "figure")
    assert plt.imread(tmp_path / "figure.png").shape[0] >= 200 * 14  # pixels for the name of each


@pytest.mark.parametrize(("right", "wrong"), [(0, 12), (12, 0), (2, 1), (0, 0)])
def test_a_gallery_of_few_or_no_images_is_whole(right, wrong, tmp_path):
    gallery(tmp_path / "figure", right, wrong)
    assert (tmp_path / "figure.png").exists()


@pytest.mark.parametrize("draw", [sizes, bars])
def test_the_papers_figures_are_drawn_only_where_they_may_be_compared(draw, tmp_path, monkeypatch):
    labels = []
    save = mpl.figure.Figure.savefig

    def spy(figure, *arguments, **options):
        labels.append(" ".join(figure.axes[0].get_legend_handles_labels()[1]))
        save(figure, *arguments, **options)

    monkeypatch.setattr(mpl.figure.Figure, "savefig", spy)
    draw(tmp_path / "with", with_paper=True)
    draw(tmp_path / "without", with_paper=False)
    assert "the paper" in labels[0]
    assert "the paper" not in labels[-1]


def test_without_any_result_there_are_still_figures(tmp_path):
    table = made_table(tmp_path / "made", [])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result_figures.accuracy_by_parameters(table, tmp_path / "one", with_paper=False)
        result_figures.accuracy_bars(table, tmp_path / "two", with_paper=False)
    assert {path.name for path in tmp_path.iterdir()} >= {"one.png", "two.png"}


def test_a_class_name_with_a_dollar_is_no_formula(tmp_path):
    result_figures.confusion_matrix(np.eye(2, dtype=np.int64), ["5$ note", r"\frac$"], "", tmp_path / "figure")
    frame = pd.DataFrame(HISTORY)
    figures.curves({"a$b$c": frame}, LOGS, "accuracy", "", tmp_path / "curves", with_logs=False)
    assert (tmp_path / "figure.png").exists()
