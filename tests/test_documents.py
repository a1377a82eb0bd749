"""README and docs/: commands parse, params load, links lead somewhere, and the reference names every key and column."""

import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from PIL import Image

from tiny_imagenet.cli import app
from tiny_imagenet.config.dataset import Dataset, ImagesPerClass
from tiny_imagenet.config.params import Params, parse_params
from tiny_imagenet.config.recipe import ModelParams
from tiny_imagenet.dataset.layout import reorganize
from tiny_imagenet.models import registry
from tiny_imagenet.reporting import significance, table
from tiny_imagenet.repository import records

ROOT = Path(__file__).parents[1]
GENERATED = [*(ROOT / "docs" / "reference").glob("[pc]*.md"), ROOT / "docs" / "results" / "README.md"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
HISTORY = (ROOT / "docs" / "results" / "demo" / "histories.csv").read_text(encoding="utf-8").partition("\n")[0]
COMMANDS = typer.main.get_command(app.app).commands


def fences(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands() -> Iterator[tuple[str, str]]:
    """Yield page and command line of each `tiny-imagenet ...` of a page, in a block or in a sentence."""
    for page in PAGES:
        if page in GENERATED:
            continue
        text = page.read_text(encoding="utf-8")
        typed = re.findall(r"^ {4,}(?:\$ )?(tiny-imagenet [^#\n]*)", text, flags=re.M)
        written = re.findall(r"`(tiny-imagenet [a-z]+ [^`\n]*)`", text)  # a name alone only speaks of the command
        for line in [*typed, *written]:
            yield page.relative_to(ROOT).as_posix(), line.strip()


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.M)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)|&lt;|[`*]", lambda match: match[1] or "", heading) for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in plain}


def merged(base: Any, change: Any) -> Any:
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        return {**base, **{key: merged(base.get(key), value) for key, value in change.items()}}
    return change


def edited(edit: Mapping[str, Any]) -> dict[str, Any]:
    """Return params.yaml with the keys of an example: of the file, of a model's block, or of a dataset."""
    for section, where in (
        (Params, ()),
        (ModelParams, ("models", "model_5")),
        (Dataset, ("profiles", "paper", "dataset")),
    ):
        if edit.keys() <= section.model_fields.keys():
            for key in reversed(where):
                edit = {key: edit}
            return merged(PARAMS, edit)
    raise AssertionError(f"no place in params.yaml for {list(edit)}")


@pytest.mark.parametrize(("page", "line"), list(dict.fromkeys(commands())))
def test_each_command_in_a_page_parses(page, line):
    _, *words = shlex.split(line)
    name, *arguments = words
    assert name in COMMANDS
    COMMANDS[name].make_context(name, arguments)


@pytest.mark.parametrize(
    ("page", "text"),
    [(page.relative_to(ROOT).as_posix(), text) for page in PAGES for text in fences(page, "yaml")],
)
def test_each_example_of_params_yaml_loads(page, text):
    parse_params(edited(yaml.safe_load(text)), source=page)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_leads_to_a_file_and_a_heading(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        path, _, anchor = target.partition("#")
        if path.startswith(("http://", "https://")):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_each_page_can_be_reached_from_the_index():
    pages = {page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "decisions"}
    reached, following = set(), [ROOT / "docs" / "README.md"]
    while following:
        page = following.pop()
        if page.is_dir():  # GitHub lists its files
            following += [file for file in page.glob("*.md") if file not in reached]
        elif page.suffix == ".md" and page not in reached:
            reached.add(page)
            links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
            targets = {(page.parent / link.partition("#")[0]).resolve() for link in links}
            following += [target for target in targets if target.exists() and (ROOT / "docs") in target.parents]
    assert pages - reached == set()


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 180


@pytest.mark.parametrize(
    "names",
    [
        *(
            pytest.param(list(record.model_fields), id=record.__name__)
            for record in (records.RunRecord, records.Metrics, records.Architecture, records.DataReport)
        ),
        pytest.param([*table.COLUMNS, *table.SPREAD], id="results.csv"),
        pytest.param(HISTORY.split(",")[1:], id="history.csv"),
        pytest.param(significance.COLUMNS, id="differences.csv"),
    ],
)
def test_the_page_of_files_names_each_key_and_column(names):
    page = (ROOT / "docs" / "reference" / "files.md").read_text(encoding="utf-8")
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_new_model_of_its_page_is_accepted(monkeypatch, tmp_path):
    """Its source, with the types of its arguments, and its block of params.yaml."""
    page = ROOT / "docs" / "how-to" / "new-model.md"
    [source], [block] = fences(page, "python"), fences(page, "yaml")
    for file in registry._FOLDER.glob("*.py"):
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(registry, "_FOLDER", tmp_path)
    params = parse_params(edited(yaml.safe_load(block)))
    architecture = params.models["model_6"].architecture
    (tmp_path / f"{architecture}.py").write_text(source, encoding="utf-8")
    registry.check_models(params)
    compile(source, page, "exec")


def test_the_script_for_serving_writes_the_pixels_of_a_photo(monkeypatch, tmp_path):
    [script] = fences(ROOT / "docs" / "how-to" / "serving.md", "python")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "request.py").write_text(script, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["request.py", "photo.png"])
    runpy.run_path("request.py", run_name="__main__")
    inputs = json.loads((tmp_path / "request.json").read_text())["inputs"]
    assert np.array_equal(inputs, pixels[np.newaxis])


def test_the_script_for_own_images_makes_an_archive_that_the_pipeline_takes(monkeypatch, tmp_path, capsys):
    page = ROOT / "docs" / "how-to" / "own-images.md"
    [script], [example] = fences(page, "python"), fences(page, "yaml")
    script_path = tmp_path / "folders_to_zip.py"
    script_path.write_text(script, encoding="utf-8")
    for name in ("circle", "square", "triangle"):
        folder = tmp_path / "folders" / name
        folder.mkdir(parents=True)
        for number in range(10):
            pixels = np.random.default_rng(number).integers(0, 256, (50, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    monkeypatch.setattr(sys, "argv", [str(script_path), str(tmp_path / "folders"), str(tmp_path / "shapes.zip")])
    runpy.run_path(str(script_path), run_name="__main__")
    assert "\ncircle: train 8, val 2\nsquare: train 8, val 2\n" in f"\n{capsys.readouterr().out}"
    dataset = parse_params(edited(yaml.safe_load(example))).dataset
    expect = dataset.expect.model_copy(update={"train": 8, "val": 2})  # ten pictures here instead of a hundred
    fewer = dataset.model_copy(update={"expect": expect, "images_per_class": ImagesPerClass()})
    reorganize(tmp_path / "shapes.zip", tmp_path / "images", fewer)
    assert (
        tmp_path / "images" / "classes.csv"
    ).read_text() == "label,wnid,name\n0,c0,circle\n1,c1,square\n2,c2,triangle\n"
