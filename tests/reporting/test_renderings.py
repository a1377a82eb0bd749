"""A whole row of the results, by its headings, in each document that shows it: no figure is under another's heading."""

import csv
import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
from made_results import made_inputs, made_params, make_results

from tiny_imagenet.reporting import documents, wording

MODEL = "model_3"
SAME = "yes, 2 epochs of 3 batches on CPU"
# Written out: no two are alike. Of the paper, figures 9 and 10; of the authors' log, its last epoch.
ROW = {
    "model": MODEL,
    "architecture": "deep_conv",
    "weights": "random",
    "parameters (200 classes)": "123,456,789",
    "parameters (paper)": "140,382,728",
    "train": "51.01",
    "train (paper)": "29.50",
    "train (authors' log)": "31.15",
    "val (95 % interval)": "40.12 (39.2-41.1)",
    "val (paper)": "24.88",
    "val (authors' log)": "22.41",
    "val (paper protocol)": "36.07",
    "val (top-5)": "68.13",
    "epochs": "14",
    "kept epoch": "9",
    "epochs (kept)": "14 (9)",
    "seconds": "120.5",
    "images/s": "1,234",
    "MLflow run": "0f3d",
    "seed": "5",
    "device": "CPU of a test",
    "backend": "keras of a test",
    "the same bits twice": SAME,
}
METRICS = {
    "train_accuracy": 0.5101, "val_accuracy": 0.4012, "val_accuracy_low": 0.3916, "val_accuracy_high": 0.4109,
    "val_accuracy_paper_protocol": 0.3607, "val_top5_accuracy": 0.6813, "epochs": 14, "best_epoch": 9,
}  # fmt: skip
RUN = {
    "run_id": "0f3d", "epoch_seconds": [70.0, 50.5], "images_per_second": 1234.4, "seed": 5, "device": "CPU of a test",
    "backend": "keras of a test",
}  # fmt: skip


@pytest.fixture
def inputs(tmp_path):
    """Return the inputs of a report of the one model, and of others without results."""
    make_results(tmp_path, MODEL, metrics=METRICS, run=RUN)
    path = tmp_path / "results" / MODEL / "architecture.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"parameters_200_classes": 123_456_789}))
    (tmp_path / "results" / MODEL / "confusion.csv").write_text("actual,predicted,count\na,a,1\n")
    return dataclasses.replace(made_inputs(made_params(profile="paper"), tmp_path), determinism={MODEL: SAME})


@pytest.fixture
def made(inputs, tmp_path) -> dict[str, str]:
    return documents.documents(inputs, {}, tmp_path)


def markdown_rows(text: str) -> list[dict[str, str]]:
    """Return the model's row of each table in Markdown: heading -> cell."""
    rows = []
    headings: list[str] = []
    for line, following in zip(text.splitlines(), [*text.splitlines()[1:], ""], strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if following.startswith("| ---"):
            headings = cells
        elif line.startswith(f"| {MODEL} |"):
            rows.append(dict(zip(headings, cells, strict=True)))
    return rows


def expected(headings: Mapping[str, Any]) -> dict[str, str]:
    return {heading: ROW[heading] for heading in headings}


def test_the_row_is_all_different():
    assert len(set(ROW.values())) == len(ROW)


def test_results_md(made):
    rows = markdown_rows(made["results.md"])
    assert [len(row) for row in rows] == [5, 13, 6]
    for row in rows:
        assert row == expected(row)
    assert {heading for row in rows for heading in row} == ROW.keys() - {"epochs (kept)"}


def test_mlflows_experiment(inputs):
    [row] = markdown_rows(wording.experiment_description(inputs.table, inputs.params))
    assert row == expected(row)
    assert len(row) == 7


def test_mlflows_run(inputs):
    assert wording.run_descriptions(inputs.table, inputs.params)[MODEL].startswith(
        "val **40.12 (39.2-41.1)** %, paper protocol 36.07 %, train 51.01 %, 14 epochs. The paper: val 24.88 %, train "
        "29.50 %.\n"
    )


def test_results_tex(made):
    lines = [line.removesuffix(r" \\") for line in made["results.tex"].splitlines() if line.endswith(r"\\")]
    headings, *rows = [[re.sub(r"\\(.)", r"\1", cell) for cell in line.split(" & ")] for line in lines]
    row = dict(zip(headings, next(row for row in rows if row[0] == MODEL), strict=True))
    by_capital = {heading.capitalize(): text for heading, text in ROW.items()}
    assert row == {heading: by_capital[heading] for heading in row}
    assert len(row) == 8


def test_the_terminals_table(made):
    """A column is as wide as its widest cell, and all but the first are flush right."""
    lines = made["summary.txt"].splitlines()
    rule = next(number for number, line in enumerate(lines) if "─" in line)
    shown = next(line for line in lines if line.split()[:1] == [MODEL])
    row, begin = {}, 0
    for cell in re.finditer(r"\S+(?: \S+)*", shown):
        words = " ".join(line[begin : cell.end()].strip() for line in lines[1:rule]).split()
        row[" ".join(words)] = cell.group()
        begin = cell.end()
    plain = {re.sub("[()]", "", heading): text for heading, text in ROW.items()}
    assert row == {heading: plain[heading] for heading in row}
    assert len(row) == 10


def test_results_html(made):
    table = re.search(r'<table class="sortable results">(.*?)</table>', made["results.html"], re.DOTALL)
    assert table

    def cells(text: str) -> list[str]:
        found = re.findall(r"<t([hd])\b[^>]*>(.*?)</t\1>", text, re.DOTALL)
        texts = [re.sub(r"\s*<small>(.*?)</small>", r" (\1)", cell) for _, cell in found]
        return [re.sub(r"<[^>]*>", "", text).replace("\N{EN DASH}", "-").strip() for text in texts]

    head, body = table[1].split("</thead>")
    shown = next(row for row in body.split("<tr>") if f'data-value="{MODEL}"' in row)
    row = dict(zip(cells(head), cells(shown), strict=True))
    assert row.pop("model") == f"{MODEL} (deep_conv)"
    assert row == expected(row)
    assert len(row) == 10


def test_results_csv(made):
    heading, *rows = csv.reader(made["results.csv"].splitlines())
    row = dict(zip(heading, next(row for row in rows if row[0] == MODEL), strict=True))
    plain = {**METRICS, **{key: value for key, value in RUN.items() if key != "epoch_seconds"}, "seconds": 120.5,
             "parameters_200_classes": 123_456_789, "parameters_paper": 140_382_728, "train_accuracy_paper": 0.295,
             "val_accuracy_paper": 0.2488, "train_accuracy_authors_log": 0.3115,
             "val_accuracy_authors_log": 0.2241}  # fmt: skip
    assert {key: row[key] for key in plain} == {key: str(value) for key, value in plain.items()}
