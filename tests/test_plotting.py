"""Figures: files made, the same bytes for the same figures, nothing left open."""

import warnings
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from made_results import METRICS, ROOT, made_params, make_results

from benchmarks import validation_gap
from stages import compare
from tiny_imagenet import plotting
from tiny_imagenet.common.files import read_json
from tiny_imagenet.evaluation import figures as result_figures
from tiny_imagenet.evaluation import metrics
from tiny_imagenet.reporting import table as comparison

LOGS = comparison.authors_logs()
HISTORY = LOGS[LOGS["model"] == "model_2"][["epoch", "accuracy", "val_accuracy", "loss", "val_loss"]]
RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (3, 64, 64, 3), np.uint8)
TITLE = "Accuracy\n" + plotting.trained_on("tiny-imagenet-200", {"train": 100_000, "val": 10_000}, [15, 20])
CONFUSION = RNG.integers(0, 9, (4, 4))


def curves(path, *, with_logs=True):
    histories = {"model_2": HISTORY, "model_9": HISTORY}
    plotting.curves(histories, LOGS, "val_accuracy", TITLE, path, with_logs=with_logs)


def parameters(path):
    root = path.parent / "made"
    if not root.exists():
        make_results(root, "model_1")
    table = comparison.results_table(made_params(), root / "models", root / "results")
    plotting.parameter_counts(table, path)


def grid(path):
    captions = {"epoch 1": ["a", "b"]}
    plotting.image_grid({"original": IMAGES, "epoch 1": IMAGES[:2]}, path, TITLE, captions=captions)


def confusion(path):
    result_figures.confusion_matrix(CONFUSION, list("abcd"), TITLE, path)


def losses(path):
    plotting.curves({"model_2": HISTORY}, LOGS, "val_loss", "Validation loss", path, with_logs=True)


def made_table(root: Path, models: list[str]) -> pd.DataFrame:
    for model in models:
        if not (root / "models" / model).exists():
            make_results(root, model)
    return comparison.results_table(made_params(), root / "models", root / "results")


def made_metrics(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    return dict.fromkeys(table.dropna(subset="val_accuracy")["model"], METRICS)


def sizes(path, *, with_paper=True):
    table = made_table(path.parent / "made", ["model_1", "model_3", "model_4"])
    result_figures.accuracy_by_parameters(table, made_metrics(table), TITLE, path, with_paper=with_paper)


def bars(path, *, with_paper=True):
    table = made_table(path.parent / "made", ["model_1", "model_3", "model_4"])
    result_figures.accuracy_bars(table, made_metrics(table), TITLE, path, with_paper=with_paper)


def classes(path, number=30):
    random = np.random.default_rng(1)
    recall, support = random.uniform(size=number), random.integers(0, 50, number)
    frame = pd.DataFrame({"name": [f"class {place}" for place in range(number)], "recall": recall, "support": support})
    result_figures.best_and_worst_classes(frame, TITLE, path)


def calibration(path):
    confidence = np.linspace(0.2, 0.9, 200)
    table = metrics.calibration_table(confidence, np.arange(200) % 3 > 0)
    result_figures.calibration(table, TITLE, path)


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
    result_figures.gallery(images, predictions(right, wrong), names, TITLE, path)


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


def close_curves(path):
    frame = pd.DataFrame({"epoch": [1, 2, 3], "val_accuracy": [0.80, 0.82, 0.83]})
    plotting.curves({"model_1": frame}, LOGS, "val_accuracy", "", path, with_logs=False)


def close_sizes(path):
    table = made_table(path.parent / "made", ["model_1", "model_2"])
    table["val_accuracy"] = table["model"].map({"model_1": 0.80, "model_2": 0.81})
    result_figures.accuracy_by_parameters(table, {}, "", path, with_paper=False)


@pytest.mark.parametrize("draw", [close_curves, close_sizes])
def test_no_marker_is_cut_off_at_the_top(draw, tmp_path, drawn):
    draw(tmp_path / "figure")
    (axis,) = drawn[0].axes
    assert axis.get_ylim()[0] == 0
    highest = max(np.max(line.get_ydata()) for line in axis.lines if len(line.get_ydata()))
    half = axis.lines[0].get_markersize() / 2 / 72 * drawn[0].dpi
    assert axis.transData.transform((0, highest))[1] + half < axis.get_window_extent().y1


def test_a_model_without_results_has_as_much_room_as_the_others(tmp_path, drawn):
    bars(tmp_path / "figure")  # of model_1, model_3 and model_4; model_5, the last, has none
    (axis,) = drawn[0].axes
    assert [text.get_text() for text in axis.get_xticklabels()] == [f"model_{number}" for number in range(1, 6)]
    assert axis.get_xlim() == (-0.5, 4.5)


def test_losses_are_marked_with_plain_numbers(tmp_path, drawn):
    history = HISTORY.assign(val_loss=np.geomspace(2, 0.1, len(HISTORY)))
    plotting.curves({"model_2": history}, LOGS, "val_loss", "Validation loss", tmp_path / "figure", with_logs=False)
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
        plotting.curves({"model_1": HISTORY[["epoch"]]}, LOGS, "accuracy", "", tmp_path / "f", with_logs=False)
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
        plotting.curves({}, LOGS, "accuracy", "Nothing yet", tmp_path / "figure", with_logs=with_logs)
    assert (tmp_path / "figure.png").exists()


def test_more_models_than_colours_can_be_told_apart(tmp_path, drawn):
    histories = {f"model_{number}": HISTORY for number in range(len(plotting.COLOURS) + 2)}
    plotting.curves(histories, LOGS, "accuracy", "Many", tmp_path / "figure", with_logs=False)
    lines = drawn[0].axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(histories)
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(histories)


def test_looks_do_not_repeat_for_a_hundred_models():
    assert len({tuple(look.values()) for look in plotting.looks(100)}) == 100


def test_the_log_of_a_model_as_published_is_that_of_its_base(tmp_path, drawn):
    histories = {"model_2_as_published": HISTORY}
    logs = compare._logs(histories)
    plotting.curves(histories, logs, "val_accuracy", "", tmp_path / "figure", with_logs=True)
    (dashed,) = [line for line in drawn[0].axes[0].lines if line.get_linestyle() == "--" and len(line.get_xdata())]
    base = LOGS[LOGS["model"] == "model_2"]
    np.testing.assert_array_equal(dashed.get_ydata(), base["val_accuracy"])
    assert len(logs) == len(LOGS) + len(base)


def test_the_legend_names_logs_only_where_one_is_drawn(tmp_path, drawn):
    for model in ("resnet18", "model_2"):
        plotting.curves({model: HISTORY}, LOGS, "accuracy", "", tmp_path / model, with_logs=True)
    legends = [figure.axes[0].get_legend_handles_labels()[1] for figure in drawn]
    assert legends == [["resnet18"], ["model_2", "authors' logs"]]


@pytest.mark.parametrize(
    ("epochs", "words"),
    [([6, 6], ", 6 epochs"), (pd.Series([20, 15], dtype="Int64"), ", 15 to 20 epochs"), ([1], ", 1 epoch"), ([], "")],
)
def test_a_title_says_what_was_trained_on(epochs, words):
    found = plotting.trained_on("digits", {"classes": 10, "train": 1400, "val": 200}, epochs)
    assert found == f"digits, 1,400 training and 200 validation images{words}"


def test_figures_of_the_validation_gap_say_what_was_trained_on(tmp_path, drawn):
    kept = ROOT / validation_gap.DESTINATION
    epochs, by_missing = pd.read_csv(kept / "epochs.csv"), pd.read_csv(kept / "shift.csv")
    fits = read_json(kept / "fits.json")["fits"]
    images = {"train": 44_000, "val": 10_000}
    runs = {"model_1": {"images": images, "epochs": 15}, "model_2": {"images": images, "epochs": 12}}
    validation_gap.draw(tmp_path, epochs, by_missing, fits, 0.16, "tiny-imagenet-200", runs)
    about = "tiny-imagenet-200, 44,000 training and 10,000 validation images"
    titles = [figure.get_suptitle().splitlines()[1] for figure in drawn]
    assert titles == [f"ours: {about}, 12 to 15 epochs", f"{about}, 15 epochs"]


@pytest.mark.parametrize(("profile", "names_the_paper"), [("paper", True), ("demo", False)])
def test_captions_name_the_papers_figures_where_the_images_are_the_papers(profile, names_the_paper):
    captions = compare._captions(made_params(profile=profile))
    assert ("the paper's figure 11" in captions["training_accuracy"]) == names_the_paper
    assert ("the paper's figure 10" in captions["accuracy_beside_paper"]) == names_the_paper
    assert "the paper's figure 9" in captions["parameters"]  # parameters are counted with 200 classes everywhere
    assert ("another here: all models" in captions["augmentation"]) != names_the_paper


def test_every_accuracy_that_has_an_interval_has_an_error_bar(tmp_path, drawn):
    bars(tmp_path / "figure")
    axis = drawn[0].axes[0]
    tops = [segment for each in axis.collections for segment in each.get_segments() if len(segment)]
    ends = {tuple(np.round(segment[:, 1], 4)) for segment in tops}
    keys = ("train_accuracy", "val_accuracy", "val_accuracy_paper_protocol")
    assert {(METRICS[f"{key}_low"], METRICS[f"{key}_high"]) for key in keys} <= ends


def test_beside_the_paper_stands_our_accuracy_under_its_protocol(tmp_path, drawn):
    for name, with_paper in (("with", True), ("without", False)):
        sizes(tmp_path / name, with_paper=with_paper)
    for figure, key in zip(drawn, ("val_accuracy_paper_protocol", "val_accuracy"), strict=True):
        axis = figure.axes[0]
        assert axis.containers[0].lines[0].get_ydata() == [METRICS[key]]
        (segment,) = axis.containers[0].lines[2][0].get_segments()
        np.testing.assert_allclose(segment[:, 1], [METRICS[f"{key}_low"], METRICS[f"{key}_high"]])
        assert axis.get_ylabel().endswith("paper protocol") == (key != "val_accuracy")


def test_the_colour_of_a_class_goes_by_the_mean_of_all(tmp_path, drawn):
    frame = pd.DataFrame({"name": list("abcdef"), "recall": [0.9, 0.2, 0.2, 0.2, 0.2, 0.1], "support": 50})
    result_figures.best_and_worst_classes(frame, "", tmp_path / "one", number=2)  # a, b and e, f are drawn
    result_figures.best_and_worst_classes(frame.assign(recall=0.7), "", tmp_path / "two")
    one, two = ([text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn)
    assert one == ["mean of all classes, 30.0%", "at or above the mean", "below it"]
    assert two == ["mean of all classes, 70.0%", "at or above the mean"]
    assert [len(container) for container in drawn[0].axes[0].containers if hasattr(container, "patches")] == [1, 3]


def test_a_figure_of_classes_without_images_is_empty(tmp_path):
    frame = pd.DataFrame({"name": ["a"], "recall": [0.0], "support": [0]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result_figures.best_and_worst_classes(frame, "", tmp_path / "figure")
    assert (tmp_path / "figure.png").exists()


def test_parameters_of_no_model_are_an_empty_figure(tmp_path):
    table = comparison.results_table(made_params(), tmp_path / "models", tmp_path / "results")
    plotting.parameter_counts(table, tmp_path / "figure")
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


def test_two_hundred_classes_are_drawn_with_their_names(tmp_path, drawn):
    names = [f"class {number}, and another name" for number in range(200)]
    result_figures.confusion_matrix(np.eye(200, dtype=np.int64), names, "", tmp_path / "figure")
    assert plt.imread(tmp_path / "figure.png").shape[0] >= 200 * 14  # pixels for the name of each
    (label,) = [text for text in drawn[0].axes[0].get_yticklabels() if text.get_text() == "class 7"]
    assert label.get_fontsize() * 96 / 72 > 9  # pixels on the page


@pytest.mark.parametrize(("right", "wrong"), [(0, 12), (12, 0), (2, 1), (0, 0)])
def test_a_gallery_of_few_or_no_images_is_whole(right, wrong, tmp_path, drawn):
    gallery(tmp_path / "figure", right, wrong)
    empty = [axis.get_ylabel() for axis in drawn[0].axes if [text.get_text() for text in axis.texts] == ["none"]]
    assert empty == ["right"] * (not right) + ["wrong", "wrong,\nmost sure"] * (not wrong)


def test_captions_of_a_gallery_do_not_touch(tmp_path, drawn):
    images = np.zeros((8, 64, 64, 3), np.uint8)
    names = ["Chesapeake Bay retriever", "American alligator", "standard poodle"]
    result_figures.gallery(images, predictions(0, 8), names, "", tmp_path / "figure")
    for row in (1, 2):
        shown = [axis.xaxis.label.get_window_extent() for axis in drawn[0].axes[8 * row : 8 * row + 8]]
        assert all(left.x1 < right.x0 for left, right in pairwise(shown))


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
        result_figures.accuracy_by_parameters(table, {}, "", tmp_path / "one", with_paper=False)
        result_figures.accuracy_bars(table, {}, "", tmp_path / "two", with_paper=False)
    assert {path.name for path in tmp_path.iterdir()} >= {"one.png", "two.png"}


def test_a_class_name_with_a_dollar_is_no_formula(tmp_path):
    result_figures.confusion_matrix(np.eye(2, dtype=np.int64), ["5$ note", r"\frac$"], "", tmp_path / "figure")
    frame = pd.DataFrame(HISTORY)
    plotting.curves({"a$b$c": frame}, LOGS, "accuracy", "", tmp_path / "curves", with_logs=False)
    assert (tmp_path / "figure.png").exists()
