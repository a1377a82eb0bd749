"""The page that DVC runs: each stage lists the rooms that its code reaches, and nothing else."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest
import yaml

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "dvc.yaml").read_text()
STAGES = yaml.safe_load(TEXT)["stages"]  # PyYAML resolves `<<: *train`
UNTRACKED = {"common", "entry", "repository", "tracking"}
"""Rooms that only read, write or record. They change no result, so no stage lists them."""
PARTS = {"download": {"config", "dataset/digits.py"}, "architecture": {"architectures", "config", "models"}}
"""Stages that depend on less than their imports reach: `download` on one file of its room; `architecture` copies a
file that it does not import."""


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("tiny_imagenet", "stages", cache_dir=None)


def module(stage: str) -> str:
    return STAGES[stage]["cmd"].split()[2]


def room(name: str) -> str:
    return name.split(".")[1]


def rooms_reached(graph: grimp.ImportGraph, start: str) -> set[str]:
    """Return the rooms that a module reaches by imports, but not by those of untracked rooms."""
    reached, waiting = set(), [start]
    while waiting:
        for imported in graph.find_modules_directly_imported_by(waiting.pop()):
            if imported.startswith("tiny_imagenet.") and room(imported) not in UNTRACKED and imported not in reached:
                reached.add(imported)
                waiting.append(imported)
    return {room(name).replace("plotting", "plotting.py") for name in reached}


def rooms_listed(stage: str) -> set[str]:
    code = [path for path in STAGES[stage]["deps"] if path.startswith("src/tiny_imagenet/")]
    return {path.removeprefix("src/tiny_imagenet/") for path in code}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_rooms_that_it_imports(stage, graph):
    # Every stage reads params.yaml through `entry`.
    assert rooms_listed(stage) == PARTS.get(stage, rooms_reached(graph, module(stage)) | {"config"})


def test_download_reaches_no_more_of_its_room_than_it_lists(graph):
    reached = graph.find_modules_directly_imported_by("stages.download")
    assert {name for name in reached if room(name) == "dataset"} == {"tiny_imagenet.dataset.digits"}
    below = graph.find_downstream_modules("tiny_imagenet.dataset.digits")
    assert below <= {"stages.download"}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_what_it_does_and_depends_on_its_own_module(stage):
    assert len(STAGES[stage]["desc"]) > 20
    assert re.fullmatch(r"python -m stages\.[a-z]+( \$\{key\})?", STAGES[stage]["cmd"])
    assert f"{module(stage).replace('.', '/')}.py" in STAGES[stage]["deps"]
    for path in STAGES[stage]["deps"]:
        if path.startswith(("src/", "stages/", "docs/")):
            assert (ROOT / path).exists()


@pytest.mark.parametrize(("stage", "like"), [("replicate", "train"), ("evaluate_replicate", "evaluate")])
def test_a_replicate_differs_from_its_model_only_in_its_matrix_and_seed(stage, like):
    own, model = STAGES[stage], STAGES[like]
    assert {key for key in own if own[key] != model[key]} <= {"matrix", "desc", "params"}
    assert own["params"] == [name for name in model["params"] if name != "seed"]


def test_dvc_yaml_is_one_page_without_lists_of_models():
    assert TEXT.count("\n") <= 130
    assert "model_1" not in TEXT
    assert [stage["matrix"] for stage in STAGES.values() if "matrix" in stage and "seed" not in stage["matrix"]] == [
        {"model": "${active}"}
    ] * 3


def test_every_output_is_cached():
    assert "cache: false" not in TEXT


def test_a_stage_runs_the_code_beside_it_not_the_installed_package(tmp_path):
    """As in the copy of the repository that a queued experiment runs in."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    shutil.copytree(ROOT / "src", tmp_path / "src")
    script = "import stages, tiny_imagenet; print(tiny_imagenet.__file__)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    found = subprocess.check_output([sys.executable, "-c", script], cwd=tmp_path, env=environment, text=True)
    assert Path(found.strip()).is_relative_to(tmp_path)
