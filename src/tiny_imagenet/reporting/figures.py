"""Draw the figures of all models into reports/figures: curves, accuracies, parameters, pictures of the data."""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from tiny_imagenet.common.files import replaced
from tiny_imagenet.config.params import Params
from tiny_imagenet.plotting import COLOURS, beside, cycle, from_zero, looks, new_figure, trained_on
from tiny_imagenet.reporting.inputs import ReportInputs
from tiny_imagenet.reporting.paper import authors_logs, base_of, comparable
from tiny_imagenet.reporting.table import ResultsTable
from tiny_imagenet.repository.paths import OVERVIEW, REPORTS
from tiny_imagenet.repository.records import Metrics

FIGURES = REPORTS / "figures"
_BLUE, _ORANGE = COLOURS[:2]
_CURVES = {
    "training_accuracy": ("accuracy", "Training accuracy"),
    "validation_accuracy": ("val_accuracy", "Validation accuracy"),
    "training_loss": ("loss", "Training loss"),
    "validation_loss": ("val_loss", "Validation loss"),
}
"""Figure -> column of history.csv, caption."""
DRAWN = ("accuracy_beside_paper", *_CURVES, "parameters", "accuracy_by_parameters")
"""The figures without photographs."""
_PICTURES = {"classes": "Some classes", "augmentation": "The shared augmentation in params.yaml"}
"""Picture of data/overview -> caption."""
_OF_PAPER = {
    "accuracy_beside_paper": "figure 10", "training_accuracy": "figure 11", "validation_accuracy": "figure 12",
    "classes": "figures 1 to 4",
}  # fmt: skip


def draw(inputs: ReportInputs, root: Path = Path()) -> dict[str, str]:
    """Draw the figures into reports/figures below the root; return name of a figure -> caption."""
    params, table, folder = inputs.params, inputs.table, root / FIGURES
    with_paper, described = comparable(params), captions(params)
    about = trained_on(params.dataset.name, inputs.data.used, table.frame["epochs"].dropna())
    titles = {name: f"{caption}\n{about}" for name, caption in described.items()}
    for name, (column, _) in _CURVES.items():
        curves(inputs.histories, column, titles[name], folder / name, with_logs=with_paper)
    parameter_counts(table, folder / "parameters")
    for name, figure in (("accuracy_by_parameters", accuracy_by_parameters), ("accuracy_beside_paper", accuracy_bars)):
        figure(table, titles[name], folder / name, with_paper=with_paper)
    for name in _PICTURES:
        with replaced(folder / f"{name}.png") as partial:
            shutil.copyfile(root / OVERVIEW / f"{name}.png", partial)
    return described


def captions(params: Params) -> dict[str, str]:
    """Return name of a figure -> caption, which names the paper's figure if both have the same images."""
    others = [model for model in params.active if params.recipe(model).augmentation != params.shared_augmentation]
    described = {
        "accuracy_beside_paper": "Accuracy",
        **{name: title for name, (_, title) in _CURVES.items()},
        "parameters": "Parameters (the paper's figure 9)",
        "accuracy_by_parameters": "Accuracy and size",
        **_PICTURES,
    }
    if others:
        concerned = "all models" if len(others) == len(params.active) else ", ".join(others)
        described["augmentation"] += f" (another here: {concerned})"
    if not comparable(params):
        return described
    described |= {name: f"{described[name]} (the paper's {figure})" for name, figure in _OF_PAPER.items()}
    return described | {
        name: f"{described[name]}: ours on plain images, the authors' on augmented"
        for name in ("validation_accuracy", "validation_loss")
    }


def curves(histories: Mapping[str, pd.DataFrame], column: str, title: str, path: Path, *, with_logs: bool) -> None:
    """Draw a column of the histories by epoch for all models, as in the paper's figures 11 and 12.

    Accuracies start at 0. Losses, some with a penalty on weights, have a logarithmic axis. `with_logs` adds the
    authors' curves, dashed; a block `_as_published` has those of its model.
    """
    is_accuracy = column.endswith("accuracy")
    logs = dict(iter(authors_logs().groupby("model"))) if with_logs else {}
    with new_figure(path, 6.4, 4, title=title) as (_, axes):
        axis: Axes = axes[0, 0]
        for look, (model, history) in zip(looks(len(histories)), histories.items(), strict=True):
            axis.plot(history["epoch"], history[column], markersize=4, label=model, **look)
            if (log := logs.get(base_of(model))) is not None:
                dashed = look | {"linestyle": "--"}
                axis.plot(log["epoch"], log[column], linewidth=1, markersize=2, alpha=0.6, **dashed)
        if any(base_of(model) in logs for model in histories):
            axis.plot([], [], linestyle="--", color="gray", label="authors' logs")
        axis.set(xlabel="epoch", ylabel="accuracy" if is_accuracy else "loss")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if is_accuracy:
            from_zero(axis)
            axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        elif histories:
            axis.set_yscale("log")
            # The range may be less than one power of ten. The default writes powers as formulas.
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6), numticks=100))
            axis.yaxis.set_minor_locator(NullLocator())
            axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        if histories:
            beside(axis)


def parameter_counts(table: ResultsTable, path: Path) -> None:
    """Draw the parameters of each model with 200 classes, on a logarithmic axis, as in the paper's figure 9."""
    known = table.frame.dropna(subset=["parameters_200_classes"])
    counts = known["parameters_200_classes"].astype(float)
    with new_figure(path, 6.4, 0.6 + 0.45 * max(len(known), 1), title="Parameters with 200 classes") as (_, axes):
        axis: Axes = axes[0, 0]
        bars = axis.barh(known["model"], counts, color=cycle(len(known)))
        axis.bar_label(bars, labels=[f"{count:,.0f}" for count in counts], padding=3)
        axis.set(xscale="log", xlim=(1e5, 2e9))
        axis.xaxis.set_major_formatter(EngFormatter(sep=" "))  # the default writes powers as formulas
        axis.invert_yaxis()


def accuracy_by_parameters(table: ResultsTable, title: str, path: Path, *, with_paper: bool) -> None:
    """Draw each model's validation accuracy, with its 95 % interval, against its parameters with 200 classes.

    `with_paper` uses the accuracy under the paper's protocol and adds the paper's numbers as hollow markers.
    """
    column, protocol = ("val_accuracy_paper_protocol", ", paper protocol") if with_paper else ("val_accuracy", "")
    known = table.frame.dropna(subset=[column])
    with new_figure(path, 6.4, 4, title=title) as (_, axes):
        axis: Axes = axes[0, 0]
        for look, row in zip(looks(len(known)), known.to_dict("records"), strict=True):
            style = look | {"linestyle": "none"}
            beyond = _beyond(table.metrics, [row["model"]], column)
            parameters = float(row["parameters_200_classes"])
            axis.errorbar(parameters, row[column], yerr=beyond, capsize=3, label=row["model"], **style)
            if with_paper and not pd.isna(row["val_accuracy_paper"]):
                axis.plot(row["parameters_paper"], row["val_accuracy_paper"], markerfacecolor="none", **style)
        if with_paper:
            axis.plot([], [], "o", color="gray", markerfacecolor="none", label="the paper")
        axis.set(xscale="log", xlabel="parameters with 200 classes", ylabel=f"validation accuracy{protocol}")
        from_zero(axis)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.xaxis.set_minor_locator(NullLocator())
        if len(known):
            lowest, highest = known["parameters_200_classes"].min(), known["parameters_200_classes"].max()
            axis.set_xlim(lowest / 2, 2 * highest)
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=100))
            axis.xaxis.set_major_formatter(EngFormatter(sep=" "))
            beside(axis)


def accuracy_bars(table: ResultsTable, title: str, path: Path, *, with_paper: bool) -> None:
    """Draw each model's training and validation accuracy with 95 % intervals, beside the paper's if `with_paper`.

    Validation is on plain images and under the paper's protocol.
    """
    bars = {"train_accuracy": "train", "val_accuracy": "val", "val_accuracy_paper_protocol": "val, paper protocol"}
    if with_paper:
        bars = {"train_accuracy_paper": "the paper: train", "val_accuracy_paper": "the paper: val"} | bars
    colours = dict(zip(bars, ["#999999", "#000000", _ORANGE, _BLUE, "#56B4E9"][-len(bars) :], strict=True))
    frame = table.frame
    positions, width = np.arange(len(frame)), 0.8 / len(bars)
    with new_figure(path, max(6.4, 1.3 * len(frame)), 4, title=title) as (_, axes):
        axis: Axes = axes[0, 0]
        for number, (column, label) in enumerate(bars.items()):
            at = positions + (number - (len(bars) - 1) / 2) * width
            beyond = _beyond(table.metrics, frame["model"], column)
            axis.bar(at, frame[column].astype(float), width, yerr=beyond, capsize=2, color=colours[column], label=label)
        axis.set(ylabel="accuracy", xlim=(-0.5, len(frame) - 0.5), ylim=(0, None))  # a model may have no bars
        axis.set_xticks(positions, frame["model"], rotation=20 if len(frame) > 6 else 0)
        axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        beside(axis)


def _beyond(metrics: Mapping[str, Metrics], models: Iterable[str], column: str) -> NDArray[np.float64]:
    """Return the length of each model's interval below and above `column`: 2 x N, NaN if unknown."""
    keys = [column, f"{column}_low", f"{column}_high"]
    known = pd.DataFrame([metrics[model].as_dict() if model in metrics else {} for model in models]).reindex(
        columns=keys
    )
    value, low, high = known.to_numpy(dtype=float).T
    return np.abs([value - low, high - value])
