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
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
# They open doors, print, and record; nothing that they do changes what a stage computes.
RECORDERS = {
    "cores", "entry", "errors", "files", "finished", "lineage", "progress", "section", "sweep_params", "sync",
    "tracking",
}  # fmt: skip
# What `pretrained` fetches is pinned by its MD5: a change in how it is fetched retrains nothing.
PINNED = {("tiny_imagenet.models.weights", "tiny_imagenet.common.download")}


def definition(stage: str) -> dict:
    return STAGES[stage].get("do", STAGES[stage])


def imported_modules(module: str) -> set[str]:
    """Modules that `module` imports, directly or through others, but not through those that only record."""
    graph = grimp.build_graph("tiny_imagenet", "stages", cache_dir=None)
    found: set[str] = set()
    waiting = [module]
    while waiting:
        importer = waiting.pop()
        for imported in graph.find_modules_directly_imported_by(importer):
            if (importer, imported) in PINNED:
                continue
            if imported.removeprefix("tiny_imagenet.") not in RECORDERS and imported not in found:
                found.add(imported)
                waiting.append(imported)
    return found


def source_file(module: str) -> str:
    path = ROOT / "src" / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file.relative_to(ROOT).as_posix()


# A replicate is another run of the same module.
MODULES = {stage: stage for stage in STAGES} | {"replicate": "train", "evaluate_replicate": "evaluate"}


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_says_what_it_does_and_runs_its_own_module(stage):
    assert len(definition(stage)["desc"]) > 20
    item = r"\$\{item\}|\$\{item\.model\}-\$\{item\.seed\}"
    assert re.match(rf"python -m stages\.{MODULES[stage]}( ({item}))?$", definition(stage)["cmd"])


@pytest.mark.parametrize(("stage", "like"), [("replicate", "train"), ("evaluate_replicate", "evaluate")])
def test_a_replicate_depends_on_what_its_model_depends_on(stage, like):
    def with_item(path: str) -> str:
        return path.replace("${item.model}-${item.seed}", "${item}").replace("${item.model}", "${item}")

    for key in ("deps", "outs"):
        assert [with_item(path) for path in definition(stage)[key]] == definition(like)[key]
    without_seed = [name for name in definition(like)["params"] if name != "seed"]
    assert [with_item(name) for name in definition(stage)["params"]] == without_seed


@pytest.mark.parametrize("stage", STAGES)
def test_the_code_that_a_stage_imports_is_among_its_dependencies(stage):
    declared = [path for path in definition(stage)["deps"] if path.startswith(("src/", "stages/"))]
    needed = {source_file(module) for module in imported_modules(f"stages.{MODULES[stage]}")} | {
        f"stages/{MODULES[stage]}.py"
    }
    needed = {file for file in needed if (ROOT / file).read_text().count("\n") > 1}  # a docstring alone does nothing
    missing = {file for file in needed if not any(file == path or file.startswith(f"{path}/") for path in declared)}
    assert missing == set()


@pytest.mark.parametrize("stage", STAGES)
def test_every_code_dependency_exists_and_is_used(stage):
    needed = {source_file(module) for module in imported_modules(f"stages.{MODULES[stage]}")} | {
        f"stages/{MODULES[stage]}.py"
    }
    for path in definition(stage)["deps"]:
        if path.startswith(("src/", "stages/")):
            assert (ROOT / path).exists(), path
            assert any(file == path or file.startswith(f"{path}/") for file in needed) or path.endswith(
                # data; imported by name; the folder that is copied from; read through `entry` by every stage
                (
                    "/reference",
                    "/_blocks.py",
                    "/_transfer.py",
                    "/models",
                    "/dataset_params.py",
                    "/params.py",
                    "/recipe.py",
                )
            ), path


def test_no_output_is_kept_out_of_the_cache():
    assert "cache: false" not in (ROOT / "dvc.yaml").read_text()


def test_a_stage_runs_the_code_beside_it_and_not_that_of_the_installed_package(tmp_path):
    """As in the copy of the repository that a queued experiment runs in."""
    shutil.copytree(ROOT / "stages", tmp_path / "stages")
    shutil.copytree(ROOT / "src", tmp_path / "src")
    script = "import stages, tiny_imagenet; print(tiny_imagenet.__file__)"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    found = subprocess.check_output([sys.executable, "-c", script], cwd=tmp_path, env=environment, text=True)
    assert Path(found.strip()).is_relative_to(tmp_path)
