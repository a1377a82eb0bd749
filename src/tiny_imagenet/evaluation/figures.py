"""Figures of one model: confusions, recall of the classes, calibration, and images with predictions."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from tiny_imagenet.evaluation.metrics import wilson_interval
from tiny_imagenet.input_pipeline.packed import PackedDataset
from tiny_imagenet.plotting import COLOURS, drawable, image_grid, new_figure

if TYPE_CHECKING:  # it imports Keras, which takes 10 s
    from tiny_imagenet.evaluation.evaluate import Evaluation

_LONGEST_NAME, _LONGEST_CAPTION = 24, 15
_BLUE, _ORANGE, _GREEN = COLOURS[:3]


def alike_first(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return an order of the classes in which confused classes are neighbours.

    It is the optimal order of leaves (Bar-Joseph et al. 2001, https://doi.org/10.1093/bioinformatics/17.suppl_1.S22) of
    an average linkage by the share of confused images, in either direction.
    """
    if len(confusion) < 3:
        return np.arange(len(confusion))
    shares = confusion / np.maximum(confusion.sum(1, keepdims=True), 1)
    distance = 1 - (shares + shares.T) / 2
    np.fill_diagonal(distance, 0)
    order: NDArray[np.int64] = leaves_list(linkage(squareform(distance), "average", optimal_ordering=True))
    return order


def draw(measured: "Evaluation", packed: PackedDataset, title: str, folder: Path) -> None:
    """Draw all figures of an evaluation into a folder."""
    names = packed.class_names
    confusion_matrix(measured.confusion, names, title, folder / "confusion")
    best_and_worst_classes(measured.per_class, title, folder / "classes")
    calibration(measured.calibration, title, folder / "calibration")
    gallery(packed.val.images, measured.predictions, names, title, folder / "gallery")


def confusion_matrix(confusion: NDArray[np.int64], names: list[str], title: str, path: Path) -> None:
    """Draw the share of each true class (row) that was predicted as each class (column); similar classes are adjacent.

    Colours show the square root of the share, to make rare confusions visible beside frequent correct predictions.
    """
    order = alike_first(confusion)
    shares = (confusion / np.maximum(confusion.sum(1, keepdims=True), 1))[order][:, order]
    shown = [_short(names[label]) for label in order]
    side = max(5.4, 1.4 + 0.12 * len(names))  # inches: large enough to read 200 names
    with new_figure(path, 1.11 * side, side, title=title) as (figure, axes):
        figure.set_layout_engine("compressed")  # the default cuts off the label beside square axes
        axis: Axes = axes[0, 0]
        axis.grid(visible=False)
        image = axis.imshow(np.sqrt(shares), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        bar = figure.colorbar(image, ax=axis, label="of the true class", fraction=0.04)
        ticks = np.array([0, 0.01, 0.05, 0.2, 0.5, 1])
        bar.set_ticks(list(np.sqrt(ticks)), labels=[f"{100 * tick:.0f}%" for tick in ticks])
        axis.set(xlabel="predicted", ylabel="true")
        axis.set_xticks(range(len(names)), shown, rotation=90, fontsize=8)
        axis.set_yticks(range(len(names)), shown, fontsize=8)
        axis.tick_params(length=0)


def best_and_worst_classes(per_class: pd.DataFrame, title: str, path: Path, *, number: int = 10) -> None:
    """Draw the classes with the highest and lowest recall, with 95 % intervals (Wilson), and the mean of all classes.

    `per_class` has `name`, `recall`, `support`.
    """
    known = per_class[per_class["support"] > 0].sort_values(["recall", "name"], ascending=[False, True])
    recalls = known["recall"].to_numpy()
    if len(known) > 2 * number:
        known = pd.concat([known.head(number), known.tail(number)])
    recall, support = known["recall"].to_numpy(), known["support"].to_numpy()
    intervals = np.array(
        [wilson_interval(round(share * count), int(count)) for share, count in zip(recall, support, strict=True)]
    ).reshape(-1, 2)
    errors = np.abs(intervals.T - recall)
    positions, mean = np.arange(len(known)), recalls.mean() if len(known) else 0
    with new_figure(path, 6.4, 1.2 + 0.24 * max(len(known), 3), title=title) as (figure, axes):
        axis: Axes = axes[0, 0]
        for colour, label, mask in (
            (_GREEN, "at or above the mean", recall >= mean - 1e-9),
            (_ORANGE, "below it", recall < mean - 1e-9),
        ):
            if mask.any():
                bars = {"xerr": errors[:, mask], "color": colour, "capsize": 2, "label": label}
                axis.barh(positions[mask], recall[mask], **bars)
        axis.axvline(mean, color="black", linewidth=0.8, label=f"mean of all classes, {mean:.1%}")
        axis.set_yticks(positions, [_short(name) for name in known["name"]])
        axis.set(xlabel="recall: the share of a class's images that are found", xlim=(0, 1.02))
        axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axis.invert_yaxis()
        figure.legend(loc="outside lower center", ncols=3)


def calibration(table: pd.DataFrame, title: str, path: Path) -> None:
    """Draw accuracy against confidence, and the number of images in each bin of `metrics.calibration_table`."""
    filled = table[table["count"] > 0]
    with new_figure(path, 5.4, 4.8, rows=2, title=title) as (_, axes):
        above, below = axes[0, 0], axes[1, 0]
        above.get_gridspec().set_height_ratios([3, 1])
        above.plot([0, 1], [0, 1], "--", color="gray", linewidth=1, label="as sure as right")
        above.plot(filled["confidence"], filled["accuracy"], "o-", color=_BLUE, label="the model", clip_on=False)
        above.set(ylabel="answers that are right", xlim=(0, 1), ylim=(0, 1))
        above.legend(loc="best")  # away from the curve
        below.bar(table["low"], table["count"], table["high"] - table["low"], align="edge", color=_BLUE, alpha=0.6)
        below.set(xlabel="probability of the answer", ylabel="images", xlim=(0, 1))
        for axis in (above.xaxis, above.yaxis, below.xaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))


def gallery(
    images: NDArray[np.uint8], predictions: pd.DataFrame, names: list[str], title: str, path: Path, *, columns: int = 8
) -> None:
    """Draw validation images with their names: predicted right, predicted wrong, and wrong with the highest confidence.

    `images` are N x H x W x 3, RGB; `predictions` has `image`, `label`, `label_1`, `probability_1`. The first two rows
    are random samples with a fixed seed.
    """
    is_right = predictions["label"] == predictions["label_1"]
    random = np.random.default_rng(0)
    wrong = predictions[~is_right]
    rows = {
        "right": _some(predictions[is_right], columns, random),
        "wrong": _some(wrong, columns, random),
        "wrong,\nmost sure": wrong.sort_values("probability_1", ascending=False, kind="stable").head(columns),
    }
    captions = {kind: [_caption(row, names) for row in frame.to_dict("records")] for kind, frame in rows.items()}
    shown = {kind: images[frame["image"].to_numpy()] for kind, frame in rows.items()}
    image_grid(shown, path, title, captions=captions, cell=(1.25, 1.63))


def _some(predictions: pd.DataFrame, number: int, random: np.random.Generator) -> pd.DataFrame:
    return predictions.iloc[np.sort(random.permutation(len(predictions))[:number])]


def _caption(row: Mapping[Any, Any], names: list[str]) -> str:
    predicted, true = (_short(names[int(row[key])], _LONGEST_CAPTION) for key in ("label_1", "label"))
    is_right = row["label"] == row["label_1"]
    return f"{predicted} {100 * row['probability_1']:.0f}%" + ("" if is_right else f"\nreally {true}")


def _short(name: str, longest: int = _LONGEST_NAME) -> str:
    """Return the first name of a class ("goldfish, Carassius auratus"), shortened to `longest` characters."""
    first = drawable(name.split(",")[0])
    return first if len(first) <= longest else f"{first[: longest - 1]}…"
