"""The results as files: results.md for a code host, results.tex for a paper."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.wording import (
    NOTES,
    by_group,
    code,
    comparability,
    count,
    flip_lines,
    group_lines,
    interval,
    markdown,
    markdown_table,
    missing_lines,
    override_lines,
    percent,
    plain,
    spread_lines,
    unconcerned,
)

_MOST_PAIRS = 45
"""Ten models in pairs."""
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
"""What stands for the characters that mean something to LaTeX."""


def results_markdown(
    table: pd.DataFrame,
    params: Params,
    figures: Mapping[str, str],
    determinism: Mapping[str, str] | None = None,
    paired: pd.DataFrame | None = None,
) -> str:
    """Return results.md: what it is for, the table, what differs from the paper, the figures, where it comes from.

    Args:
        table: of `comparison.results_table`.
        params: params.yaml.
        figures: name of a PNG in the folder `figures` beside the file -> caption.
        determinism: model -> what a double run showed.
        paired: of `significance.paired_tests`.
    """
    rows = table.to_dict("records")
    lines = [
        "# Results",
        "",
        f"Profile {code(params.profile)}, dataset {code(params.dataset.name)}. {comparability(params)}",
        "",
        "Accuracy in percent; in brackets the 95 % interval (Wilson) for the number of validation images. The audit "
        "against the paper, figure by figure and claim by claim, is in [audit.md](audit.md); all of it, with a page "
        "per model, in `results.html`.",
        "",
        *_grouped_tables(table),
        *(f"- {markdown(line)}" for line in [*flip_lines(params), *missing_lines(table), *spread_lines(table)]),
        "- **train**: as the training log has it, on augmented images, at the epoch whose weights are kept.",
        "- **val**: on the validation images as they are: the one to believe.",
        "- **val, paper protocol**: on augmented validation images, as the authors measured it.",
        "- **authors' log**: the last epoch of the log that the authors published.",
        "",
    ]  # fmt: skip
    if paired is not None and not paired.empty:
        lines += _paired_lines(paired)
    changed = override_lines(params, unconcerned(table))
    if changed:
        lines += [f"## What the profile {code(params.profile)} changes in the recipes", ""]
        lines += [f"- {markdown(change)}" for change in changed] + [""]
    for name, caption in figures.items():
        lines += [f"![{caption}](figures/{name}.png)", ""]
    lines += [
        "## Where it comes from",
        "",
        *markdown_table(
            ["model", "MLflow run", "seed", "device", "backend", "the same bits twice"],
            [
                [
                    row["model"],
                    *(plain(row[key]) for key in ("run_id", "seed", "device", "backend")),
                    plain((determinism or {}).get(row["model"])),
                ]
                for row in rows
            ],
        ),
        "",
        "**the same bits twice**: what `tiny-imagenet verify --determinism MODEL` found, a short training in two fresh "
        "processes.",
        "",
    ]
    return "\n".join(lines)


def _grouped_tables(table: pd.DataFrame) -> list[str]:
    """Return the two tables of the paper's models, then those of other models, under headings of their own."""
    lines: list[str] = []
    for group, rows in by_group(table).items():
        lines += [f"## {group}", "", NOTES[group], ""] if group in NOTES else []
        lines += [
            *markdown_table(
                ["model", "architecture", "parameters (200 classes)", "paper", "weights"],
                [
                    [
                        row["model"],
                        row["architecture"],
                        count(row["parameters_200_classes"]),
                        count(row["parameters_paper"]),
                        plain(row["weights"]),
                    ]
                    for row in rows
                ],
            ),
            "",
            *markdown_table(
                ["model", "train, paper", "train, authors' log", "train", "val, paper", "val, authors' log", "val",
                 "val, paper protocol", "val, top 5", "epochs", "best epoch", "seconds", "images/s"],
                [
                    [
                        row["model"],
                        percent(row["train_accuracy_paper"]),
                        percent(row["train_accuracy_authors_log"]),
                        percent(row["train_accuracy"]),
                        percent(row["val_accuracy_paper"]),
                        percent(row["val_accuracy_authors_log"]),
                        interval(row),
                        percent(row["val_accuracy_paper_protocol"]),
                        percent(row["val_top5_accuracy"]),
                        count(row["epochs"]),
                        count(row["best_epoch"]),
                        plain(row["seconds"]),
                        plain(row["images_per_second"]),
                    ]
                    for row in rows
                ],
            ),
            "",
        ]  # fmt: skip
    return lines


def _paired_lines(paired: pd.DataFrame) -> list[str]:
    pairs = paired.head(_MOST_PAIRS).to_dict("records")
    return [
        "## Which differences are real",
        "",
        "Each pair of models on the same validation images: McNemar's exact test, with Holm's correction for the "
        "number of pairs. It speaks of these trained models on such images; how much a model varies from seed to "
        "seed, `replicates` in params.yaml shows.",
        "",
        *markdown_table(
            ["models", "difference, points", "95 % interval", "p (Holm)", "real"],
            [
                [
                    f"{row['model_a']} - {row['model_b']}",
                    f"{100 * row['difference']:+.2f}",
                    f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}",
                    f"{row['p_holm']:.2g}",
                    "yes" if row["real"] else "not shown",
                ]
                for row in pairs
            ],
        ),
        "",
    ]


def results_latex(table: pd.DataFrame, params: Params) -> str:
    """Return the table for a paper, for LaTeX's packages booktabs and, where it is wide, adjustbox."""
    rows: list[dict[str, Any]] = []
    for group, members in by_group(table).items():
        rows += [{"Model": group}] if group in NOTES else []
        rows += [_latex_row(row) for row in members]
    styler = pd.DataFrame(rows).fillna("").style.format(escape="latex").format_index(axis="columns", escape="latex")
    notes = "".join(f" {line}." for line in [*group_lines(table), *flip_lines(params), *spread_lines(table)])
    caption = f"Accuracy in percent. {comparability(params).replace('`', '')}{notes}".translate(_LATEX)
    latex: str = styler.hide().to_latex(
        column_format="lrrrrrrr", hrules=True, position="t", caption=caption, label="tab:tiny-imagenet"
    )
    return latex


def _latex_row(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        "Model": row["model"],
        "Parameters": count(row["parameters_200_classes"]),
        "Train, paper": percent(row["train_accuracy_paper"]),
        "Val, paper": percent(row["val_accuracy_paper"]),
        "Train": percent(row["train_accuracy"]),
        "Val (95 % interval)": interval(row),
        "Paper protocol": percent(row["val_accuracy_paper_protocol"]),
        "Top 5": percent(row["val_top5_accuracy"]),
    }
