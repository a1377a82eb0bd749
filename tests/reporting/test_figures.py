"""Figures of all models together."""

import dataclasses
import warnings
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from figure_checks import check_figure
from made_results import METRICS, made_inputs, made_params, make_results

from tiny_imagenet import plotting
from tiny_imagenet.reporting import figures
from tiny_imagenet.reporting.paper import authors_logs
from tiny_imagenet.reporting.table import ResultsTable, results_table

LOGS = authors_logs()
HISTORY = LOGS[LOGS["model"] == "model_2"][["epoch", "accuracy", "val_accuracy", "loss", "val_loss"]]
TITLE = "Accuracy\n" + plotting.trained_on("tiny-imagenet-200", {"train": 100_000, "val": 10_000}, [15, 20])


def curves(path, *, with_logs=True):
    histories = {"model_2": HISTORY, "model_9": HISTORY}
    figures.curves(histories, "val_accuracy", TITLE, path, with_logs=with_logs)


def parameters(path):
    root = path.parent / "made"
    if not root.exists():
        make_results(root, "model_1")
    table = results_table(made_params(), root)
    figures.parameter_counts(table, path)


def losses(path):
    figures.curves({"model_2": HISTORY}, "val_loss", "Validation loss", path, with_logs=True)


def made_table(root: Path, models: list[str]) -> ResultsTable:
    for model in models:
        if not (root / "models" / model).exists():
            make_results(root, model)
    return results_table(made_params(), root)


def sizes(path, *, with_paper=True):
    table = made_table(path.parent / "made", ["model_1", "model_3", "model_4"])
    figures.accuracy_by_parameters(table, TITLE, path, with_paper=with_paper)


def bars(path, *, with_paper=True):
    table = made_table(path.parent / "made", ["model_1", "model_3", "model_4"])
    figures.accuracy_bars(table, TITLE, path, with_paper=with_paper)


DRAWINGS = [curves, losses, parameters, sizes, bars]


@pytest.mark.parametrize("draw", DRAWINGS)
def test_a_figure_is_complete_as_png_and_svg(draw, tmp_path, drawn):
    check_figure(draw, tmp_path, drawn)


def test_all_figures_of_a_report_are_drawn_and_have_captions(tmp_path):
    make_results(tmp_path, "model_1")
    inputs = made_inputs(made_params(active=["model_1", "model_2"]), tmp_path)
    for name in ("classes", "augmentation"):
        (tmp_path / "data" / "overview" / f"{name}.png").write_bytes(b"png")
    captions = figures.draw(inputs, tmp_path)
    assert set(captions) == {*figures.DRAWN, "classes", "augmentation"}
    files = {path.name for path in (tmp_path / "reports" / "figures").iterdir()}
    assert files == {f"{name}.png" for name in captions} | {f"{name}.svg" for name in figures.DRAWN}


@pytest.mark.parametrize("draw", [curves, losses, sizes, bars])
def test_no_legend_covers_a_curve(draw, tmp_path, drawn):
    draw(tmp_path / "figure")
    (axis,) = drawn[0].axes
    assert axis.get_legend().get_window_extent().x0 >= axis.get_window_extent().x1


def close_curves(path):
    frame = pd.DataFrame({"epoch": [1, 2, 3], "val_accuracy": [0.80, 0.82, 0.83]})
    figures.curves({"model_1": frame}, "val_accuracy", "", path, with_logs=False)


def close_sizes(path):
    table = made_table(path.parent / "made", ["model_1", "model_2"])
    accuracies = table.frame["model"].map({"model_1": 0.80, "model_2": 0.81})
    table = dataclasses.replace(table, frame=table.frame.assign(val_accuracy=accuracies), metrics={})
    figures.accuracy_by_parameters(table, "", path, with_paper=False)


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
    figures.curves({"model_2": history}, "val_loss", "Validation loss", tmp_path / "figure", with_logs=False)
    marks = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert {"0.2", "0.6", "1"} <= set(marks)


@pytest.mark.parametrize("with_logs", [True, False])
def test_the_authors_curves_are_drawn_if_they_are_comparable(with_logs, tmp_path, monkeypatch):
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
        figures.curves({}, "accuracy", "Nothing yet", tmp_path / "figure", with_logs=with_logs)
    assert (tmp_path / "figure.png").exists()


def test_more_models_than_colours_can_be_told_apart(tmp_path, drawn):
    histories = {f"model_{number}": HISTORY for number in range(len(plotting.COLOURS) + 2)}
    figures.curves(histories, "accuracy", "Many", tmp_path / "figure", with_logs=False)
    lines = drawn[0].axes[0].lines
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(histories)
    assert len({(line.get_color(), line.get_linestyle()) for line in lines}) == len(histories)


def test_the_log_of_a_model_as_published_is_that_of_its_base(tmp_path, drawn):
    histories = {"model_2_as_published": HISTORY}
    figures.curves(histories, "val_accuracy", "", tmp_path / "figure", with_logs=True)
    (dashed,) = [line for line in drawn[0].axes[0].lines if line.get_linestyle() == "--" and len(line.get_xdata())]
    base = LOGS[LOGS["model"] == "model_2"]
    np.testing.assert_array_equal(dashed.get_ydata(), base["val_accuracy"])


def test_the_legend_names_logs_only_where_one_is_drawn(tmp_path, drawn):
    for model in ("resnet18", "model_2"):
        figures.curves({model: HISTORY}, "accuracy", "", tmp_path / model, with_logs=True)
    legends = [figure.axes[0].get_legend_handles_labels()[1] for figure in drawn]
    assert legends == [["resnet18"], ["model_2", "authors' logs"]]


@pytest.mark.parametrize(("profile", "names_the_paper"), [("paper", True), ("demo", False)])
def test_captions_name_the_papers_figures_if_the_images_are_the_papers(profile, names_the_paper):
    captions = figures.captions(made_params(profile=profile))
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


def test_our_accuracy_under_the_papers_protocol_is_beside_the_papers(tmp_path, drawn):
    for name, with_paper in (("with", True), ("without", False)):
        sizes(tmp_path / name, with_paper=with_paper)
    for figure, key in zip(drawn, ("val_accuracy_paper_protocol", "val_accuracy"), strict=True):
        axis = figure.axes[0]
        assert axis.containers[0].lines[0].get_ydata() == [METRICS[key]]
        (segment,) = axis.containers[0].lines[2][0].get_segments()
        np.testing.assert_allclose(segment[:, 1], [METRICS[f"{key}_low"], METRICS[f"{key}_high"]])
        assert axis.get_ylabel().endswith("paper protocol") == (key != "val_accuracy")


def test_without_models_the_figure_of_parameters_is_empty(tmp_path):
    table = results_table(made_params(), tmp_path)
    figures.parameter_counts(table, tmp_path / "figure")
    assert (tmp_path / "figure.png").exists()


@pytest.mark.parametrize("draw", [sizes, bars])
def test_the_papers_numbers_are_drawn_only_if_they_are_comparable(draw, tmp_path, monkeypatch):
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
        figures.accuracy_by_parameters(table, "", tmp_path / "one", with_paper=False)
        figures.accuracy_bars(table, "", tmp_path / "two", with_paper=False)
    assert {path.name for path in tmp_path.iterdir()} >= {"one.png", "two.png"}


def test_a_name_with_a_dollar_is_not_a_formula(tmp_path):
    figures.curves({"a$b$c": HISTORY}, "accuracy", "", tmp_path / "curves", with_logs=False)
    assert (tmp_path / "curves.png").exists()
