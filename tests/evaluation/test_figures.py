"""Figures of one model."""

import warnings
from itertools import pairwise, product
from types import SimpleNamespace

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from figure_checks import assert_nothing_is_cut_off, check_figure
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from scipy.stats import binomtest
from standin import packed_digits

from tiny_imagenet.evaluation import figures, metrics

TITLE = "model_1, clean validation images\ntiny-imagenet-200, 100,000 training and 10,000 validation images, 15 epochs"
CONFUSION = np.random.default_rng(0).integers(0, 9, (4, 4))


def confusion(path):
    figures.confusion_matrix(CONFUSION, list("abcd"), TITLE, path)


def classes(path, number=30):
    random = np.random.default_rng(1)
    recall, support = random.uniform(size=number), random.integers(0, 50, number)
    frame = pd.DataFrame({"name": [f"class {place}" for place in range(number)], "recall": recall, "support": support})
    figures.best_and_worst_classes(frame, TITLE, path)


def calibration(path):
    confidence = np.linspace(0.2, 0.9, 200)
    table = metrics.calibration_table(confidence, np.arange(200) % 3 > 0)
    figures.calibration(table, TITLE, path)


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
    figures.gallery(images, predictions(right, wrong), names, TITLE, path)


@pytest.mark.parametrize("draw", [confusion, classes, calibration, gallery])
def test_a_figure_is_complete_as_png_and_svg_and_photographs_only_as_png(draw, tmp_path, drawn):
    check_figure(draw, tmp_path, drawn, photographs=draw is gallery)


def test_an_evaluation_has_four_figures(tmp_path):
    frame = pd.DataFrame({"name": list("abc"), "recall": [0.5, 0.2, 0.9], "support": 10})
    table = metrics.calibration_table(np.linspace(0.2, 0.9, 20), np.arange(20) % 3 > 0)
    measured = SimpleNamespace(
        confusion=np.eye(10, dtype=np.int64), per_class=frame, calibration=table, predictions=predictions(12, 8)
    )
    figures.draw(measured, packed_digits(20, 20), TITLE, tmp_path / "figures")
    names = sorted(file.name for file in (tmp_path / "figures").iterdir())
    both = [f"{name}.{form}" for name in ("calibration", "classes", "confusion") for form in ("png", "svg")]
    assert names == [*both, "gallery.png"]


def test_classes_are_bars_of_recall_with_wilsons_interval_the_best_on_top(tmp_path, drawn):
    frame = pd.DataFrame(
        {"name": ["b, another", "c", "a", "none"], "recall": [0.9, 0.1, 0.9, 0], "support": [50, 30, 10, 0]}
    )
    figures.best_and_worst_classes(frame, "", tmp_path / "figure")
    (axis,) = drawn[0].axes
    assert axis.yaxis_inverted()
    assert [text.get_text() for text in axis.get_yticklabels()] == ["a", "b", "c"]
    bars = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axis.patches}
    assert bars == pytest.approx({0: 0.9, 1: 0.9, 2: 0.1})
    drawn_intervals = [path.vertices[:, 0] for lines in axis.collections for path in lines.get_paths()]
    expected = [
        binomtest(right, images).proportion_ci(method="wilson") for right, images in ((9, 10), (45, 50), (3, 30))
    ]
    np.testing.assert_allclose(drawn_intervals, expected)


def test_calibration_shows_accuracy_by_confidence_and_the_images_of_each_bin(tmp_path, drawn):
    table = pd.DataFrame(
        {
            "low": [0, 0.25, 0.5, 0.75],
            "high": [0.25, 0.5, 0.75, 1],
            "count": [3, 0, 5, 2],
            "confidence": [0.2, np.nan, 0.6, 0.8],
            "accuracy": [0, np.nan, 0.4, 1],
        }
    )
    figures.calibration(table, "", tmp_path / "figure")
    above, below = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in above.lines}
    assert lines == {"as sure as right": [[0, 0], [1, 1]], "the model": [[0.2, 0], [0.6, 0.4], [0.8, 1]]}
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in below.patches]
    assert bars == [(0, 0.25, 3), (0.25, 0.25, 0), (0.5, 0.25, 5), (0.75, 0.25, 2)]
    assert above.get_xlim() == above.get_ylim() == below.get_xlim() == (0, 1)


def test_long_names_of_classes_are_not_cut_off(tmp_path, drawn):
    names = ["Llanfairpwllgwyngyllgogerych"] * 4
    figures.confusion_matrix(CONFUSION, names, "Confusion", tmp_path / "figure")
    assert_nothing_is_cut_off(drawn[0])


def test_the_colour_of_a_class_depends_on_the_mean_of_all(tmp_path, drawn):
    frame = pd.DataFrame({"name": list("abcdef"), "recall": [0.9, 0.2, 0.2, 0.2, 0.2, 0.1], "support": 50})
    figures.best_and_worst_classes(frame, "", tmp_path / "one", number=2)  # a, b and e, f are drawn
    figures.best_and_worst_classes(frame.assign(recall=0.7), "", tmp_path / "two")
    one, two = ([text.get_text() for text in figure.legends[0].get_texts()] for figure in drawn)
    assert one == ["mean of all classes, 30.0%", "at or above the mean", "below it"]
    assert two == ["mean of all classes, 70.0%", "at or above the mean"]
    assert [len(container) for container in drawn[0].axes[0].containers if hasattr(container, "patches")] == [1, 3]


def test_a_figure_of_classes_without_images_is_empty(tmp_path):
    frame = pd.DataFrame({"name": ["a"], "recall": [0.0], "support": [0]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.best_and_worst_classes(frame, "", tmp_path / "figure")
    assert (tmp_path / "figure.png").exists()


def test_confusion_shows_shares_of_the_true_class_and_accepts_an_empty_one(tmp_path, monkeypatch):
    shown = []
    save = mpl.figure.Figure.savefig

    def spy(figure, *arguments, **options):
        shown.append(np.asarray(figure.axes[0].images[0].get_array()))
        save(figure, *arguments, **options)

    monkeypatch.setattr(mpl.figure.Figure, "savefig", spy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures.confusion_matrix(np.array([[3, 1], [0, 0]]), ["a", "b"], "", tmp_path / "figure")
    np.testing.assert_allclose(np.square(shown[0]), [[0.75, 0.25], [0, 0]])


def test_confused_classes_are_neighbours():
    pairs = np.array([0, 1, 2, 0, 1, 2])  # 0 and 3 are confused, 1 and 4, 2 and 5
    confusion = 90 * np.eye(6, dtype=np.int64) + 10 * (pairs[:, None] == pairs)
    order = figures.alike_first(confusion)
    assert sorted(order) == list(range(6))
    assert {tuple(sorted(order[place : place + 2])) for place in (0, 2, 4)} == {(0, 3), (1, 4), (2, 5)}


def test_no_turn_of_a_branch_brings_confused_classes_nearer():
    confusion = np.random.default_rng(1).integers(0, 20, (8, 8))
    shares = confusion / confusion.sum(1, keepdims=True)
    distance = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distance, 0)
    orders = {label: [[label]] for label in range(8)}  # of each node: all that its branches allow
    for node, (left, right) in enumerate(linkage(squareform(distance), "average")[:, :2].astype(int), start=8):
        pairs = list(product(orders[left], orders[right]))
        orders[node] = [one + other for one, other in pairs] + [other + one for one, other in pairs]
    sums = {tuple(order): distance[order[:-1], order[1:]].sum() for order in orders[14]}
    assert len(sums) == 2**7
    assert sums[tuple(figures.alike_first(confusion).tolist())] == pytest.approx(min(sums.values()))


def test_two_hundred_classes_are_drawn_with_their_names(tmp_path, drawn):
    names = [f"class {number}, and another name" for number in range(200)]
    figures.confusion_matrix(np.eye(200, dtype=np.int64), names, "", tmp_path / "figure")
    assert plt.imread(tmp_path / "figure.png").shape[0] >= 200 * 14  # pixels for the name of each
    (label,) = [text for text in drawn[0].axes[0].get_yticklabels() if text.get_text() == "class 7"]
    assert label.get_fontsize() * 96 / 72 > 9  # pixels on the page


@pytest.mark.parametrize(("right", "wrong"), [(0, 12), (12, 0), (2, 1), (0, 0)])
def test_a_gallery_of_few_or_no_images_is_complete(right, wrong, tmp_path, drawn):
    gallery(tmp_path / "figure", right, wrong)
    empty = [axis.get_ylabel() for axis in drawn[0].axes if [text.get_text() for text in axis.texts] == ["none"]]
    assert empty == ["right"] * (not right) + ["wrong", "wrong,\nmost sure"] * (not wrong)


def test_a_gallery_shows_each_image_with_its_answer_the_most_confident_mistakes_last(tmp_path, drawn):
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 64, 3), np.uint8)
    answers = pd.DataFrame(
        {
            "image": [0, 1, 2, 3, 4, 5],
            "label": [0, 1, 0, 1, 0, 1],
            "label_1": [0, 1, 1, 0, 1, 0],
            "probability_1": [0.301, 0.4, 0.5, 0.8, 0.6, 0.7],
        }
    )
    figures.gallery(images, answers, ["cat, Felis catus", "dog"], "", tmp_path / "figure")
    shown = [
        (int(axis.images[0].get_array()[0, 0, 0]), axis.get_xlabel()) for axis in drawn[0].axes if axis.get_xlabel()
    ]
    right = [(0, "cat 30%"), (1, "dog 40%")]
    wrong = [
        (2, "dog 50%\nreally cat"),
        (3, "cat 80%\nreally dog"),
        (4, "dog 60%\nreally cat"),
        (5, "cat 70%\nreally dog"),
    ]
    assert shown == right + wrong + [wrong[place] for place in (1, 3, 2, 0)]


def test_captions_of_a_gallery_do_not_touch(tmp_path, drawn):
    images = np.zeros((8, 64, 64, 3), np.uint8)
    names = ["Chesapeake Bay retriever", "American alligator", "standard poodle"]
    figures.gallery(images, predictions(0, 8), names, "", tmp_path / "figure")
    for row in (1, 2):
        shown = [axis.xaxis.label.get_window_extent() for axis in drawn[0].axes[8 * row : 8 * row + 8]]
        assert all(left.x1 < right.x0 for left, right in pairwise(shown))


def test_a_class_name_with_a_dollar_is_not_a_formula(tmp_path):
    figures.confusion_matrix(np.eye(2, dtype=np.int64), ["5$ note", r"\frac$"], "", tmp_path / "figure")
    assert (tmp_path / "figure.png").exists()
