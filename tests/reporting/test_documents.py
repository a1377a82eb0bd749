"""The documents of reports/, results.md and results.tex above all."""

import dataclasses
import re

import pandas as pd
import pytest
from made_results import VALUES, made_inputs, made_params, make_results

from tiny_imagenet.reporting import documents
from tiny_imagenet.reporting.table import results_table

MODELS = ("model_1", "model_2", "model_3", "model_4", "model_5")


@pytest.fixture
def inputs(tmp_path):
    """Return the inputs of a report of all five models on digits."""
    for model in MODELS:
        make_results(tmp_path, model)
    return made_inputs(made_params(), tmp_path)


@pytest.fixture
def on_the_papers_images(tmp_path):
    """Return the inputs of a report of all five models on all of Tiny ImageNet."""
    for model in MODELS:
        make_results(tmp_path / "paper", model)
    return made_inputs(made_params(profile="paper"), tmp_path / "paper")


def test_results_md_has_every_metric_of_every_model(inputs):
    text = documents.results_markdown(inputs, {"some": "Some caption"})
    for model in MODELS:
        rows = [line for line in text.splitlines() if line.startswith(f"| {model} |")]
        assert len(rows) == 3
        joined = " ".join(rows)
        for part in ("38.61 (37.7-39.6)", "35.14", "65.12", f"run of {model}", "tensorflow 2.21.0", "random"):
            assert part in joined
    assert "![Some caption](figures/some.png)" in text
    assert "nan" not in text
    assert text.endswith("\n")


def test_results_md_has_the_published_accuracies_with_two_decimals(on_the_papers_images):
    text = documents.results_markdown(on_the_papers_images, {})
    row = next(line for line in text.splitlines() if line.startswith("| model_3 |") and "29.50" in line)
    for accuracy in ("29.50", "31.15", "24.88", "22.41"):
        assert accuracy in row


def test_results_md_has_no_published_number_beside_other_images(inputs, on_the_papers_images):
    headings = ("parameters (paper)", "train (paper)", "train (authors' log)", "val (paper)", "val (authors' log)")
    text, with_paper = (documents.results_markdown(made, {}) for made in (inputs, on_the_papers_images))
    for heading in headings:
        assert heading not in text
        assert f"| {heading} |" in with_paper
    assert "24.88" not in text


def test_every_table_of_results_md_is_well_formed(inputs):
    lines = documents.results_markdown(inputs, {}).splitlines()
    tables = [block for block in "\n".join(lines).split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for block in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_results_md_lists_the_changes_of_the_profile_if_any(inputs):
    assert "## What the profile `demo` changes" in documents.results_markdown(inputs, {})
    unchanged = dataclasses.replace(inputs, params=made_params(profile="paper"))
    assert "## What the profile" not in documents.results_markdown(unchanged, {})


def test_results_md_without_results_is_complete(tmp_path):
    text = documents.results_markdown(made_inputs(made_params(), tmp_path), {})
    assert text.count("no results") == 5
    assert "nan" not in text
    assert "<NA>" not in text


def test_a_bar_in_a_value_does_not_break_the_table(tmp_path):
    make_results(tmp_path, "model_1", run={"device": "CPU a|b, 2 cores"})
    made = made_inputs(made_params(active=["model_1"]), tmp_path)
    assert r"CPU a\|b, 2 cores" in documents.results_markdown(made, {})


def test_nothing_in_results_md_is_read_as_a_tag(tmp_path):
    make_results(tmp_path, "model_1", run={"device": "<script>alert(1)</script>"})
    made = made_inputs(made_params(active=["model_1", "model_2"]), tmp_path)
    failed = dataclasses.replace(made.table, status={"model_2": "failed: put it into data/<name>.zip"})
    text = documents.results_markdown(dataclasses.replace(made, table=failed), {})
    assert "&lt;script>alert(1)&lt;/script>" in text
    assert "failed: put it into data/&lt;name>.zip" in text
    assert "<" not in text


def test_results_md_says_which_differences_are_significant(inputs):
    pair = {
        "model_a": "model_1", "model_b": "model_2", "accuracy_a": 0.5, "accuracy_b": 0.4, "difference": 0.1,
        "low": 0.05, "high": 0.15, "only_a": 30, "only_b": 10, "p": 0.002, "p_holm": 0.004, "real": True,
    }  # fmt: skip
    text = documents.results_markdown(dataclasses.replace(inputs, paired=pd.DataFrame([pair])), {})
    assert "| model_1 - model_2 | +10.00 | +5.00 to +15.00 | 0.004 | yes |" in text
    assert "Which differences" not in documents.results_markdown(inputs, {})


# --- all documents ---


def test_documents_are_those_of_reports_and_their_tables_have_all_models(tmp_path):
    for model in MODELS:
        make_results(tmp_path, model)
        confusion = f"actual,predicted,count\nNA,007,{MODELS.index(model)}\n"
        (tmp_path / "results" / model / "confusion.csv").write_text(confusion)
    made = documents.documents(made_inputs(made_params(), tmp_path), {}, tmp_path)
    assert set(made) == {
        "results.csv", "results.md", "results.tex", "results.html", "audit.csv", "audit.md", "differences.csv",
        "histories.csv", "confusion.csv", "summary.txt",
    }  # fmt: skip
    histories = made["histories.csv"].splitlines()
    assert histories[0] == "model,epoch,accuracy,val_accuracy,loss,val_loss,learning_rate"
    assert histories[1:3] == ["model_1,1,0.1,0.2,3.0,2.5,0.001", "model_1,2,0.4,0.3,2.0,2.1,0.001"]
    assert len(histories) == 11
    assert made["confusion.csv"].splitlines()[:3] == [
        "model,actual,predicted,count", "model_1,NA,007,0", "model_2,NA,007,1"
    ]  # fmt: skip


def test_without_results_the_tables_of_all_models_are_empty(tmp_path):
    made = documents.documents(made_inputs(made_params(), tmp_path), {}, tmp_path)
    assert made["histories.csv"] == made["confusion.csv"] == "model\n"
    assert len(made["results.csv"].splitlines()) == 6


# --- LaTeX ---


def test_latex_has_a_row_per_model_with_the_characters_of_latex_escaped(on_the_papers_images):
    lines = documents.results_latex(on_the_papers_images.table, on_the_papers_images.params).splitlines()
    assert lines[0] == r"\begin{table}[t]"
    row = next(line for line in lines if line.startswith(r"model\_4 "))
    assert row == r"model\_4 & 8,866,376 & 37.52 & 38.61 & 50.00 & 38.61 (37.7-39.6) & 35.14 & 65.12 \\"
    assert r"Val (95 \% interval)" in "".join(lines)
    assert {line.count("&") for line in lines if line.endswith(r"\\")} == {7}


def test_latex_has_no_published_number_beside_other_images(inputs):
    lines = documents.results_latex(inputs.table, inputs.params).splitlines()
    row = next(line for line in lines if line.startswith(r"model\_4 "))
    assert row == r"model\_4 & 8,866,376 & 50.00 & 38.61 (37.7-39.6) & 35.14 & 65.12 \\"
    assert r"\begin{tabular}{lrrrrr}" in lines


def test_latex_has_the_spread_of_seeds_in_its_caption(tmp_path):
    make_results(tmp_path, "model_1")
    make_results(tmp_path, "model_1-7")
    params = made_params(active=["model_1"], replicates={"models": ["model_1"], "seeds": [7]})
    text = documents.results_latex(results_table(params, tmp_path), params)
    assert "model\\_1: val 38.61 ± 0.00 over 2 seeds (mean, standard deviation)" in text


def test_latex_of_a_dataset_with_an_odd_name_is_escaped(tmp_path):
    demo = VALUES["profiles"]["demo"]
    profiles = VALUES["profiles"] | {
        "demo": demo | {"dataset": {"name": r"50%_of $x^2$ & \co{}#~", "archive": "some.zip"}}
    }
    params = made_params(profiles=profiles)
    text = documents.results_latex(results_table(params, tmp_path), params)
    caption = next(line for line in text.splitlines() if line.startswith(r"\caption"))
    assert r"50\%\_of \$x\textasciicircum{}2\$ \& \textbackslash{}co\{\}\#\textasciitilde{}" in caption


@pytest.fixture
def groups(tmp_path):
    """Return the inputs of a report of models of all three groups, not in the order of the report."""
    active = ["model_5_caffe", "resnet18", "model_1", "model_2"]
    for model in active:
        make_results(tmp_path, model, run={"weights": "imagenet"} if model == "model_5_caffe" else None)
    return made_inputs(made_params(active=active, profile="paper"), tmp_path)


def test_results_md_has_separate_tables_for_models_that_are_not_the_papers(groups):
    text = documents.results_markdown(groups, {})
    before, scratch, pretrained = re.split(r"^## (?:From scratch|Pretrained on ImageNet)$", text, flags=re.MULTILINE)
    pretrained = pretrained.split("\n## ")[0]
    found = [re.findall(r"^\| (\w+) \|", part, re.MULTILINE) for part in (before, scratch, pretrained)]
    assert found == [
        ["model", "model_1", "model_2"] * 2, ["model", "resnet18"] * 2, ["model", "model_5_caffe"] * 2
    ]  # fmt: skip
    assert "Do not compare them with models from scratch" in pretrained
    assert "resnet18: every validation metric uses the mean over an image and its mirror image" in text


def test_results_md_of_the_papers_models_has_no_other_table(inputs):
    text = documents.results_markdown(inputs, {})
    assert "From scratch" not in text
    assert "Pretrained" not in text


def test_results_tex_names_the_kinds_of_models_and_says_that_they_do_not_compete(groups):
    text = documents.results_latex(groups.table, groups.params)
    places = [
        text.index(part) for part in (r"model\_1 &", "From scratch &", "resnet18 &", "ImageNet &", r"model\_5\_caffe")
    ]
    assert places == sorted(places)
    assert "Do not compare them with models from scratch" in text
    assert {line.count("&") - line.count(r"\&") for line in text.splitlines() if line.endswith(r"\\")} == {7}
    assert "nan" not in text
