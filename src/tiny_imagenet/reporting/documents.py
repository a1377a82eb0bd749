"""Write the files of reports/: CSV tables, results.md for a code host, results.tex for a paper, and others."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting import audit, claims, html
from tiny_imagenet.reporting.columns import columns, markdown_rows
from tiny_imagenet.reporting.formats import code, markdown, markdown_table, points
from tiny_imagenet.reporting.inputs import ReportInputs
from tiny_imagenet.reporting.table import ResultsTable, concatenated
from tiny_imagenet.reporting.wording import (
    NOTES,
    comparability,
    flip_lines,
    group_lines,
    missing_lines,
    override_lines,
    spread_lines,
    terminal_table,
)
from tiny_imagenet.repository.paths import MODELS, RESULTS

_MOST_PAIRS = 45
"""Ten models in pairs."""
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
)
"""LaTeX's special characters, escaped."""


def documents(inputs: ReportInputs, captions: Mapping[str, str], root: Path = Path()) -> dict[str, str]:
    """Return the documents of reports/: name -> text. `captions` has the captions of reports/figures by name."""
    params, table = inputs.params, inputs.table
    tables_audited, claims_audited = audit.audit_of_tables(inputs), claims.claims_audit(inputs)
    return {
        "results.csv": table.frame.to_csv(index=False),
        "differences.csv": inputs.paired.to_csv(index=False),
        "histories.csv": concatenated(root / MODELS, table.with_results, "history.csv").to_csv(index=False),
        "confusion.csv": concatenated(root / RESULTS, table.with_results, "confusion.csv").to_csv(index=False),
        "results.tex": results_latex(table, params),
        "results.md": results_markdown(inputs, captions),
        "audit.csv": tables_audited.to_csv(index=False),
        "audit.md": audit.audit_markdown(tables_audited, claims_audited, params),
        "results.html": html.results_html(inputs, tables_audited, claims_audited, captions, root),
        "summary.txt": terminal_table(table, params) + "\n",
    }


def results_markdown(inputs: ReportInputs, captions: Mapping[str, str]) -> str:
    """Return results.md: purpose, tables, changes from the recipes, figures, provenance.

    The figures are those of `captions` (name -> caption), as PNG in the folder `figures` beside the file.
    """
    params, table = inputs.params, inputs.table
    notes = [
        *(markdown(line) for line in [*flip_lines(params), *missing_lines(table), *spread_lines(table)]),
        "**train**: from the training log, on augmented images, at the epoch whose weights are kept.",
        "**val**: on the plain validation images. Trust this one.",
        "**val (paper protocol)**: on augmented validation images, as the authors measured it.",
        *(["**authors' log**: the last epoch of the authors' published log."] if table.comparable else []),
    ]
    rows = [row | {"determinism": inputs.determinism.get(row["model"])} for row in table.rows]
    blocks = [
        "# Results",
        f"Profile {code(params.profile)}, dataset {code(params.dataset.name)}. {comparability(params)}",
        "Accuracy is in percent, with its 95 % interval (Wilson) for the number of validation images in brackets. "
        "[audit.md](audit.md) compares with the paper. `results.html` shows everything, with a page per model.",
        *_grouped_tables(table),
        "\n".join(f"- {note}" for note in notes),
        *([] if inputs.paired.empty else _paired_blocks(inputs.paired)),
    ]
    if changed := override_lines(params, table.without_batch_normalization):
        blocks.append(f"## What the profile {code(params.profile)} changes in the recipes")
        blocks.append("\n".join(f"- {markdown(change)}" for change in changed))
    blocks += [
        *(f"![{caption}](figures/{name}.png)" for name, caption in captions.items()),
        "## Where it comes from",
        markdown_rows(columns("model", "run_id", "seed", "device", "backend", "determinism"), rows),
        "**the same bits twice**: the result of `tiny-imagenet verify --determinism MODEL`, which trains "
        "briefly in two new processes.",
    ]
    return "\n\n".join(blocks) + "\n"


def _grouped_tables(table: ResultsTable) -> list[str]:
    """Return two tables for each group of models, with a heading for groups that are not the paper's."""
    models = columns("model", "architecture", "parameters", "parameters_paper", "weights", with_paper=table.comparable)
    metrics = columns(
        "model", "train_paper", "train_log", "train", "val_paper", "val_log", "val", "val_protocol", "val_top5",
        "epochs", "best_epoch", "seconds", "images_per_second", with_paper=table.comparable,
    )  # fmt: skip
    blocks: list[str] = []
    for group, rows in table.groups().items():
        blocks += [f"## {group}", NOTES[group]] if group in NOTES else []
        blocks += [markdown_rows(models, rows), markdown_rows(metrics, rows)]
    return blocks


def _paired_blocks(paired: pd.DataFrame) -> list[str]:
    pairs = paired.head(_MOST_PAIRS).to_dict("records")
    return [
        "## Which differences are statistically significant",
        "McNemar's exact test compares each pair of models on the same validation images; p has Holm's correction for "
        "the number of pairs. The test is about these trained models. Add `replicates` to params.yaml to see how much "
        "a model varies from seed to seed.",
        markdown_table(
            ["models", "difference, points", "95 % interval", "p (Holm)", "significant"],
            [
                [
                    f"{row['model_a']} - {row['model_b']}",
                    points(row["difference"]),
                    f"{points(row['low'])} to {points(row['high'])}",
                    f"{row['p_holm']:.2g}",
                    "yes" if row["real"] else "not shown",
                ]
                for row in pairs
            ],
        ),
    ]


def results_latex(table: ResultsTable, params: Params) -> str:
    """Return the table for a paper. Needs LaTeX's package booktabs and, if the table is wide, adjustbox."""
    shown = columns(
        "model", "parameters", "train_paper", "val_paper", "train", "val", "val_protocol", "val_top5",
        with_paper=table.comparable,
    )  # fmt: skip
    rows: list[dict[str, Any]] = []
    for group, members in table.groups().items():
        rows += [{"Model": group}] if group in NOTES else []
        rows += [{column.title.capitalize(): column.text(row) for column in shown} for row in members]
    styler = pd.DataFrame(rows).fillna("").style.format(escape="latex").format_index(axis="columns", escape="latex")
    notes = "".join(f" {line}." for line in [*group_lines(table), *flip_lines(params), *spread_lines(table)])
    caption = f"Accuracy in percent. {comparability(params).replace('`', '')}{notes}".translate(_LATEX)
    layout = "l" + "r" * (len(shown) - 1)
    latex: str = styler.hide().to_latex(
        column_format=layout, hrules=True, position="t", caption=caption, label="tab:tiny-imagenet"
    )
    return latex
