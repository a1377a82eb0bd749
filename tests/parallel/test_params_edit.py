"""Edits of params.yaml: the new lines are right, and no other line changes."""

import difflib
import shutil
from pathlib import Path

import pytest
import yaml

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import load_params
from tiny_imagenet.parallel.params_edit import add_block, refuse_known_block, set_replicates

COMMITTED = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def path(tmp_path) -> Path:
    return Path(shutil.copy(COMMITTED, tmp_path / "params.yaml"))


def changed_lines(path: Path) -> tuple[list[str], list[str]]:
    """Return the lines that went, and those that came."""
    lines = list(difflib.ndiff(COMMITTED.read_text().splitlines(), path.read_text().splitlines()))
    return [line[2:] for line in lines if line[0] == "-"], [line[2:] for line in lines if line[0] == "+"]


def test_a_block_is_appended_and_nothing_else_changes(path):
    block = load_params(path).models["model_2"].model_dump(mode="json", exclude_unset=True)
    block["optimizer"]["learning_rate"] = 1.25e-05
    add_block(path, "model_2_swept", block, "trial 3 of the sweep rates")
    assert load_params(path).models["model_2_swept"].model_dump(mode="json", exclude_unset=True) == block
    gone, come = changed_lines(path)
    assert gone == []
    assert come[0].split() == ["model_2_swept:", "#", *["trial", "3", "of", "the", "sweep", "rates"]]
    assert [each for each in path.parent.iterdir() if each.is_file()] == [path]


def test_a_block_goes_before_what_follows_the_models(path):
    head, models = path.read_text().split("\nmodels:\n")
    path.write_text(f"models:\n{models}\n{head}\n")
    block = load_params(path).models["model_1"].model_dump(mode="json", exclude_unset=True)
    add_block(path, "another", block, "a test")
    assert list(load_params(path).models)[-1] == "another"
    assert path.read_text().endswith(head + "\n")


@pytest.mark.parametrize("name", ["model_2", "Model", "2_model", "model-2", "", "modèle"])
def test_an_existing_or_invalid_name_is_refused(name, path):
    before = path.read_text()
    with pytest.raises(UserError):
        refuse_known_block(path, name)
    with pytest.raises(UserError):
        add_block(path, name, {"architecture": "two_conv"}, "a test")
    assert path.read_text() == before


def test_a_block_that_params_refuse_is_not_written(path):
    before = path.read_text()
    with pytest.raises(UserError, match=r"models\.bad\.optimizer"):
        add_block(path, "bad", {"architecture": "two_conv", "optimizer": {"name": "adam"}}, "a test")
    assert path.read_text() == before
    assert [each for each in path.parent.iterdir() if each.is_file()] == [path]


def replicates(path):
    return {job.name for job in load_params(path).jobs if job.is_replicate}


def test_replicates_are_replaced_in_their_place(path):
    set_replicates(path, ["model_1", "model_2"], [2, 3])
    assert replicates(path) == {"model_1-2", "model_1-3", "model_2-2", "model_2-3"}
    assert changed_lines(path) == (
        ["  models: []", "  seeds: []"], ["  models: [model_1, model_2]", "  seeds: [2, 3]"]
    )  # fmt: skip


def test_replicates_are_added_if_there_are_none(path):
    text = path.read_text()
    start = text.index("replicates:")
    path.write_text(text[:start] + text[text.index("\n\n", start) + 2 :])
    set_replicates(path, ["model_1"], [2])
    assert replicates(path) == {"model_1-2"}


@pytest.mark.parametrize("has_replicates", [True, False])
def test_line_ends_stay_what_they_are(has_replicates, path):
    text = path.read_text()
    if not has_replicates:
        start = text.index("replicates:")
        text = text[:start] + text[text.index("\n\n", start) + 2 :]
    path.write_text(text.removesuffix("\n"), newline="\r\n")
    set_replicates(path, ["model_1"], [2])
    add_block(
        path, "another", load_params(path).models["model_1"].model_dump(mode="json", exclude_unset=True), "a test"
    )
    assert "another" in load_params(path).models
    content = path.read_bytes()
    assert content.count(b"\n") == content.count(b"\r\n") == content.count(b"\r")


def test_a_link_stays_a_link_and_the_mode_what_it_was(path):
    link, file = path, path.with_name("elsewhere.yaml")
    link.rename(file)
    link.symlink_to(file.name)
    file.chmod(0o664)
    set_replicates(link, ["model_1"], [2])
    assert link.is_symlink()
    assert replicates(file) == {"model_1-2"}
    assert file.stat().st_mode & 0o777 == 0o664


@pytest.mark.parametrize("style", ["flow", "joined", "comment"])
def test_a_file_with_another_layout_is_not_changed(style, path):
    values = yaml.safe_load(path.read_text())
    if style == "flow":
        path.write_text(yaml.safe_dump(values, default_flow_style=True))
    elif style == "comment":
        text = path.read_text()
        path.write_text(text.replace("  models: []\n  seeds: []\n", "  models: []   # mine\n  seeds: []\n"))
    else:
        text = path.read_text()
        path.write_text(text.replace("  models: []\n  seeds: []\n", "  {models: [], seeds: []}\n"))
    before = path.read_text()
    with pytest.raises(UserError, match=r"params\.yaml"):
        set_replicates(path, ["model_1"], [2])
    assert path.read_text() == before
