"""The audit of the paper's tables (its figures 9 and 10): each number beside the authors' log and ours.

A number gets a verdict only if ours has the same images and the same recipe. `claims` audits the paper's text.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.formats import limits, markdown_table, percent, quantity
from tiny_imagenet.reporting.inputs import ReportInputs
from tiny_imagenet.reporting.paper import (
    PUBLISHED,
    authors_logs,
    base_of,
    changes_of_recipe,
    comparable,
    paper_table,
)
from tiny_imagenet.reporting.significance import interval_for_another
from tiny_imagenet.reporting.table import ResultsTable
from tiny_imagenet.reporting.wording import comparability
from tiny_imagenet.repository.records import Metrics

COLUMNS = [
    "where", "model", "quantity", "paper", "authors_log", "ours", "low", "high", "verdict", "reason", "deviations",
]  # fmt: skip
UNTESTED = "cannot be tested here"
PRETRAINED = "model_5"
LEGEND = (
    "Accuracy is in percent. The authors' log is the last epoch of their published log. Our training accuracy is from "
    "our log, at the epoch whose weights are kept. Our validation accuracy follows the paper's protocol, on augmented "
    "images: it is not the 'val' of the table of results. An accuracy is reproduced if our 95 % interval contains the "
    "paper's; a number of parameters, if it is the same. With three seeds or more, the interval is where one more "
    "training is expected (mean ± t s √(1 + 1/n)), joined to Wilson's for the number of images. With fewer seeds it is "
    "Wilson's alone, which does not cover other seeds: add `replicates` to params.yaml to train them. Our number is "
    "that of the seed of params.yaml. docs/audit.md lists what the authors did differently, and the switch for each."
)
"""How to read the audit of the tables."""
CLAIMS_LEGEND = (
    "± is half the 95 % interval, in points. Gaps of two models are compared as if measured on different images: fewer "
    "differences are significant then. Accuracies are compared on plain validation images. p is corrected for the "
    "pairs of the claim alone, so it may be smaller than in the table of all pairs."
)
"""How to read the audit of the claims."""
_SLIPS = {
    "model_2": "20 epochs in the log, 15 in the text (`model_2_as_published`)",
    "model_3": "an epoch of the authors' was 390 batches, a quarter of the images (`model_3_as_published`)",
    "model_4": "learning rate 0.001 in their log, as in our default; their code meant 0.0001 (`model_4_as_intended`)",
    "model_5": "pixels scaled by 1/255, as in our default; the weights expect other ones (`model_5_caffe`)",
}
"""How the authors' runs differ from their text, their code or what the weights expect, with the block that shows it."""
_EPOCHS = {"model_3": "model_3_last_epoch", "model_5": "model_5_best_epoch"}
"""The block that reports another epoch, if the paper's number is not from the last one."""
_VALIDATED = "the authors found 9,950 of the 10,000 validation images"
_SHIFTED = {
    "model_1": "a third to two fifths of the classes probably had a number one too high (docs/validation-gap.md)",
    "model_5": "some of the classes may have had a number one too high (docs/validation-gap.md)",
}
"""Likely errors in the authors' validation labels."""
_ENOUGH_SEEDS = 3
"""With two, Student's t is 12.7, and nearly any number would be reproduced."""
_QUANTITIES = (
    ("training accuracy", "train_accuracy", "train_accuracy", "accuracy"),
    ("validation accuracy", "val_accuracy", "val_accuracy_paper_protocol", "val_accuracy"),
)
"""Quantity, the paper's column, our metric, the column of the authors' logs."""


def audit_of_tables(inputs: ReportInputs) -> pd.DataFrame:
    """Return a row with COLUMNS for each number of the paper's tables (figures 9 and 10).

    Accuracies are fractions; our validation accuracy follows the paper's protocol. `reproduced` means that our 95 %
    interval contains the paper's accuracy. The interval covers the choice of images (Wilson), and from three seeds on
    the choice of the seed (`interval_for_another`).
    """
    params, table, metrics = inputs.params, inputs.table, inputs.table.metrics
    blocks = [name for model in paper_table().index for name in (model, f"{model}{PUBLISHED}")]
    names = [name for name in blocks if name in paper_table().index or name in params.active]
    rows = [_parameters(name, table) for name in names]
    for name in names:
        why_not = not_the_papers(name, params, table) if name in metrics else why_untested(name, table)
        changed = changes_of_recipe(params, name, table.unconcerned(name)) if name in params.active else []
        jobs = params.replicates_of(name) if name in params.active else []
        seeds = [metrics[job.name] for job in jobs if job.name in metrics]
        rows += [_accuracy(name, kind, changed, why_not, metrics.get(name), seeds) for kind in _QUANTITIES]
    return pd.DataFrame(rows, columns=COLUMNS)


def why_untested(model: str, table: ResultsTable) -> str:
    """Return why a model has no results, in a line."""
    return table.status.get(model, "no results") if model in table.group else "not in `active`"


def not_the_papers(model: str, params: Params, table: ResultsTable) -> str:
    """Return why a model's metrics cannot be compared with the paper's; empty if they can."""
    if not comparable(params):
        return "not the paper's images"
    if base_of(model) == PRETRAINED and table.value(model, "weights") == "random":
        return f"{model} was trained from scratch here"
    if model in params.active and changes_of_recipe(params, model, table.unconcerned(model)):
        return f"the recipe of {model} is not the paper's"
    return ""


def _parameters(name: str, table: ResultsTable) -> dict[str, Any]:
    published = int(paper_table()["parameters"][base_of(name)])
    row = {"where": "figure 9", "model": name, "quantity": "parameters", "paper": published, "deviations": ""}
    ours = table.value(name, "parameters_200_classes")
    if pd.isna(ours):
        return row | {"verdict": UNTESTED, "reason": why_untested(name, table)}
    verdict = "reproduced" if ours == published else "above" if ours > published else "below"
    reason = "the same number" if ours == published else "another number of parameters"
    return row | {"ours": int(ours), "verdict": verdict, "reason": f"{reason}, counted with 200 classes"}


def _accuracy(
    name: str,
    kind: tuple[str, ...],
    changed: Sequence[str],
    why_not: str,
    metrics: Metrics | None,
    seeds: Sequence[Metrics],
) -> dict[str, Any]:
    called, column, metric, logged = kind
    base = base_of(name)
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
    if metrics is None:
        return row | {"verdict": UNTESTED, "reason": why_not}
    ours, low, high = (getattr(metrics, f"{metric}{end}") for end in ("", "_low", "_high"))
    spread = ""
    if seeds:
        accuracies = pd.Series([ours, *(getattr(replicate, metric) for replicate in seeds)])
        spread = f"; {len(accuracies)} seeds: mean {percent(accuracies.mean())}, standard deviation "
        spread += percent(accuracies.std())
        if len(accuracies) >= _ENOUGH_SEEDS:
            lowest, highest = interval_for_another(accuracies.tolist())
            low, high = max(0.0, min(low, lowest)), min(1.0, max(high, highest))
    row |= {"ours": ours, "low": low, "high": high}
    if why_not:
        return row | {"verdict": UNTESTED, "reason": why_not + spread}
    if low <= published <= high:
        return row | {"verdict": "reproduced", "reason": f"the interval contains the paper's{spread}"}
    distance = 100 * (ours - published)
    verdict = "above" if distance > 0 else "below"
    return row | {"verdict": verdict, "reason": f"{abs(distance):.2f} points {verdict} the paper's{spread}"}


def _deviations(name: str, quantity: str, changed: Sequence[str], published: float, log: pd.Series) -> list[str]:
    """Return reasons why the paper's number and ours may differ: the log, the authors' slips, another recipe."""
    lines = []
    base = base_of(name)
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


def not_audited(tables: pd.DataFrame, params: Params) -> str:
    """Return one sentence instead of the audit if the images are not the paper's; empty if they are.

    `tables` is `audit_of_tables`. Numbers of parameters do not depend on the images.
    """
    if comparable(params):
        return ""
    counts = tables[(tables["quantity"] == "parameters") & tables["ours"].notna()]
    same = int((counts["verdict"] == "reproduced").sum())
    return (
        "The audit compares accuracies and claims with the paper's. It needs the profile `paper` on all of Tiny "
        f"ImageNet. Of the numbers of parameters here, {same} of {len(counts)} are the paper's."
    )


def audit_markdown(tables: pd.DataFrame, claims: pd.DataFrame, params: Params) -> str:
    """Return reports/audit.md: the tallies, every number and every claim; for other images one sentence."""
    if sentence := not_audited(tables, params):
        return f"# The audit against the paper\n\n{sentence}\n"
    numbers = [
        [
            *(row[key] for key in ("where", "model", "quantity")),
            *(quantity(row[key], row["quantity"]) for key in ("paper", "authors_log")),
            quantity(row["ours"], row["quantity"]) + _interval(limits(row["low"], row["high"])),
            *(row[key] for key in ("verdict", "reason", "deviations")),
        ]
        for row in tables.to_dict("records")
    ]
    headings = ["where", "model", "quantity", "paper", "authors' log", "ours", "verdict", "why", "deviations"]
    blocks = [
        "# The audit against the paper",
        comparability(params),
        "\n".join(f"- {tally}" for tally in tallies(tables, claims)),
        "## The paper's tables",
        LEGEND,
        markdown_table(headings, numbers),
        "## Claims",
        CLAIMS_LEGEND,
        markdown_table(
            ["claim", "where", "paper", "ours", "verdict", "why"],
            claims[["claim", "where", "paper", "ours", "verdict", "reason"]].to_numpy().tolist(),
        ),
    ]
    return "\n\n".join(blocks) + "\n"


def tallies(tables: pd.DataFrame, claims: pd.DataFrame) -> list[str]:
    """Return the number of each verdict: one line for the tables, one for the claims."""
    counted = {f"Figures 9 and 10, {len(tables)} values": tables, f"The text, {len(claims)} claims": claims}
    return [
        f"{heading}: " + ", ".join(f"{number} {verdict}" for verdict, number in frame["verdict"].value_counts().items())
        for heading, frame in counted.items()
        if not frame.empty
    ]


def _interval(interval: str) -> str:
    return f" ({interval})" if interval else ""
