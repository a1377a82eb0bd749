"""The audit against the paper: each figure of its two tables beside the authors' own logs and beside ours.

The claims of its text are in `claims`. No figure is judged where it is not of the same work.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.table import PUBLISHED, authors_logs, changes_of_recipe, paper_table
from tiny_imagenet.reporting.wording import comparability, comparable, count, markdown_table, percent

COLUMNS = [
    "where", "model", "quantity", "paper", "authors_log", "ours", "low", "high", "verdict", "reason", "deviations",
]  # fmt: skip
UNTESTED = "cannot be tested here"
PRETRAINED = "model_5"
LEGEND = (
    "Accuracy in percent. The authors' log is the last epoch of the log that they published. Ours is, in training, "
    "what the log of the kept epoch has; in validation, what came out under the paper's protocol, on augmented "
    "images, which is not the validation accuracy of the table of results. Beside it stands the 95 % interval "
    "(Wilson) for the number of images: an accuracy is reproduced where that holds the paper's, a number of "
    "parameters where it is the same. The interval knows nothing of other seeds, with which a figure may come out "
    "above or below by more: `replicates` in params.yaml adds them. What the authors did otherwise can be switched "
    "on, see docs/audit.md."
)
"""What the figures are."""
CLAIMS_LEGEND = (
    "± is half the 95 % interval, in points; where gaps of two models are compared, they are taken as measured on "
    "different images, which finds fewer differences real. Which model is more accurate is judged on validation "
    "images as they are. A claim's p is corrected for its own pairs alone, so that it may be smaller than in the "
    "table of all pairs."
)
_SLIPS = {
    "model_2": "20 epochs in the log, 15 in the text (`model_2_as_published`)",
    "model_3": "an epoch of the authors' was 390 batches, a quarter of the images (`model_3_as_published`)",
    "model_4": "learning rate 0.001 in their log, as in our default; their code meant 0.0001 (`model_4_as_intended`)",
    "model_5": "pixels scaled by 1/255, as in our default; the weights expect other ones (`model_5_caffe`)",
}
"""What the authors' runs did otherwise than their text, their code or the weights say, and the block that shows it."""
_EPOCHS = {"model_3": "model_3_last_epoch", "model_5": "model_5_best_epoch"}
"""The block that reports another epoch, where the paper's figure is not of the last one."""
_VALIDATED = "the authors found 9,950 of the 10,000 validation images"
_SHIFTED = {
    "model_1": "a third to two fifths of the classes probably had a number one too high (docs/validation-gap.md)",
    "model_5": "some of the classes may have had a number one too high (docs/validation-gap.md)",
}
"""Of the validation alone."""
_QUANTITIES = (
    ("training accuracy", "train_accuracy", "train_accuracy", "accuracy"),
    ("validation accuracy", "val_accuracy", "val_accuracy_paper_protocol", "val_accuracy"),
)
"""Quantity, the paper's column, our metric, the column of the authors' logs."""


def figures_audit(
    params: Params,
    table: pd.DataFrame,
    metrics: Mapping[str, Mapping[str, Any]],
    replicates: Mapping[str, Mapping[str, Any]] | None = None,
) -> pd.DataFrame:
    """Return COLUMNS, a row for each figure of the paper's tables (figures 9 and 10).

    Accuracies are fractions; our validation accuracy is under the paper's protocol. `reproduced` means that our 95 %
    interval (Wilson) holds the paper's figure. The interval is of the images that are drawn; seeds differ, too.

    Args:
        params: which models are active, and what the profile changes.
        table: of `comparison.results_table`.
        metrics: model -> metrics.json, of the models that have results.
        replicates: the same of the replicates.
    """
    rows = table.set_index("model")
    names = [name for model in paper_table().index for name in (model, f"{model}{PUBLISHED}")]
    names = [name for name in names if name in paper_table().index or name in rows.index]
    found = [_parameters(name, table) for name in names]
    for name in names:
        why_not = not_the_papers(name, params, table) if metrics.get(name) else why_untested(name, table)
        changed = changes_of_recipe(params, name, table) if name in params.active else []
        seeds = [of for replicate, of in (replicates or {}).items() if params.job(replicate).model == name]
        found += [_accuracy(name, quantity, changed, why_not, metrics.get(name), seeds) for quantity in _QUANTITIES]
    return pd.DataFrame(found, columns=COLUMNS)


def why_untested(model: str, table: pd.DataFrame) -> str:
    """Return why there is no figure of a model, in a line."""
    active = model in set(table["model"])
    return str(table.attrs.get("status", {}).get(model, "no results")) if active else "not in `active`"


def not_the_papers(model: str, params: Params, table: pd.DataFrame) -> str:
    """Return why our figures of a model are none that the paper's could be judged by; nothing where they are."""
    if not comparable(params):
        return "not the paper's images"
    if model.removesuffix(PUBLISHED) == PRETRAINED and table.set_index("model")["weights"].get(model) == "random":
        return f"{model} was trained from scratch here"
    if model in params.active and changes_of_recipe(params, model, table):
        return f"the recipe of {model} is not the paper's"
    return ""


def _parameters(name: str, table: pd.DataFrame) -> dict[str, Any]:
    published = int(paper_table()["parameters"][name.removesuffix(PUBLISHED)])
    row = {"where": "figure 9", "model": name, "quantity": "parameters", "paper": published, "deviations": ""}
    ours = table.set_index("model")["parameters_200_classes"].get(name)
    if ours is None or pd.isna(ours):
        return row | {"verdict": UNTESTED, "reason": why_untested(name, table)}
    verdict = "reproduced" if ours == published else "above" if ours > published else "below"
    reason = "the same number" if ours == published else "another number of parameters"
    return row | {"ours": int(ours), "verdict": verdict, "reason": f"{reason}, counted with 200 classes"}


def _accuracy(
    name: str,
    quantity: tuple[str, ...],
    changed: Sequence[str],
    why_not: str,
    metrics: Mapping[str, Any] | None,
    seeds: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    called, column, metric, logged = quantity
    base = name.removesuffix(PUBLISHED)
    published = float(paper_table()[column][base])
    logs = authors_logs()
    log = logs[logs["model"] == base].set_index("epoch")[logged]
    row = {
        "where": "figure 10",
        "model": name,
        "quantity": called,
        "paper": published,
        "authors_log": float(log.iloc[-1]),
        "deviations": "; ".join(_deviations(name, called, changed, published, log)),
    }
    if not metrics:
        return row | {"verdict": UNTESTED, "reason": why_not}
    low, high = metrics[f"{metric}_low"], metrics[f"{metric}_high"]
    row |= {"ours": metrics[metric], "low": low, "high": high}
    spread = ""
    if seeds:
        accuracies = pd.Series([metrics[metric], *(of[metric] for of in seeds)])
        spread = f"; {len(accuracies)} seeds: mean {percent(accuracies.mean())}, standard deviation "
        spread += percent(accuracies.std())
    if why_not:
        return row | {"verdict": UNTESTED, "reason": why_not + spread}
    if low <= published <= high:
        return row | {"verdict": "reproduced", "reason": f"the interval holds the paper's figure{spread}"}
    distance = 100 * (metrics[metric] - published)
    verdict = "above" if distance > 0 else "below"
    return row | {"verdict": verdict, "reason": f"{abs(distance):.2f} points {verdict} the paper's{spread}"}


def _deviations(name: str, quantity: str, changed: Sequence[str], published: float, log: pd.Series) -> list[str]:
    """Return what stands between the paper's figure and ours: the log, the authors' slips, another recipe."""
    lines = []
    base = name.removesuffix(PUBLISHED)
    switch = f" (`{_EPOCHS[base]}`)" if base in _EPOCHS else ""
    epochs = [int(epoch) for epoch in log.index[(log - published).abs() < 0.00005]]
    if not epochs:
        lines.append(
            f"in no epoch of the authors' log, whose highest is {percent(log.max())}, epoch {log.idxmax()}{switch}"
        )
    elif log.index[-1] not in epochs:
        lines.append(f"epoch {epochs[-1]} of the authors' log, which has {log.index[-1]}{switch}")
    slip = _SLIPS.get(base)
    if slip and not name.endswith(PUBLISHED):
        lines.append(slip)
    if quantity == "validation accuracy":
        lines += [_VALIDATED, *filter(None, [_SHIFTED.get(base)])]
    if changed:
        lines.append(f"here with another {', '.join(f'`{key}`' for key in changed)}")
    return lines


def audit_markdown(figures: pd.DataFrame, claims: pd.DataFrame, params: Params) -> str:
    """Return reports/audit.md: what holds, then every figure and every claim."""
    return "\n".join(
        [
            "# The audit against the paper",
            "",
            comparability(params),
            "",
            *(f"- {tally}" for tally in tallies(figures, claims)),
            "",
            "## Figures",
            "",
            LEGEND,
            "",
            *markdown_table(
                ["where", "model", "quantity", "paper", "authors' log", "ours", "verdict", "why", "deviations"],
                [
                    [
                        *(row[key] for key in ("where", "model", "quantity")),
                        _shown(row["paper"], row["quantity"]),
                        _shown(row["authors_log"], row["quantity"]),
                        _shown(row["ours"], row["quantity"]) + _interval(row),
                        *(row[key] for key in ("verdict", "reason", "deviations")),
                    ]
                    for row in figures.to_dict("records")
                ],
            ),
            "",
            "## Claims",
            "",
            CLAIMS_LEGEND,
            "",
            *markdown_table(
                ["claim", "where", "paper", "ours", "verdict", "why"],
                [
                    [row[key] for key in ("claim", "where", "paper", "ours", "verdict", "reason")]
                    for row in claims.to_dict("records")
                ],
            ),
            "",
        ]
    )


def tallies(figures: pd.DataFrame, claims: pd.DataFrame) -> list[str]:
    """Return how many figures, and how many claims, have which verdict: a line for each of the two that has any."""

    def line(of: str, frame: pd.DataFrame) -> str:
        return f"{of}: " + ", ".join(
            f"{number} {verdict}" for verdict, number in frame["verdict"].value_counts().items()
        )

    counted = {f"Figures 9 and 10, {len(figures)} values": figures, f"The text, {len(claims)} claims": claims}
    return [line(of, frame) for of, frame in counted.items() if not frame.empty]


def _shown(value: Any, quantity: str) -> str:
    return percent(value) if quantity != "parameters" or pd.isna(value) else count(int(value))


def _interval(row: Mapping[Any, Any]) -> str:
    return "" if pd.isna(row["low"]) else f" ({100 * row['low']:.1f}-{100 * row['high']:.1f})"
