"""docs/results, and the section of README that is made from it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from made_results import METRICS, VALUES, make_results

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.tables import parse_csv
from tiny_imagenet.config.params import parse_params
from tiny_imagenet.reporting import kept_results
from tiny_imagenet.reporting.figures import DRAWN
from tiny_imagenet.reporting.table import results_table

README = f"# Title\n\n{kept_results.BEGIN}\nold\n{kept_results.END}\n\nafter\n"
RUN = {
    "weights": "/home/someone/weights.h5",
    "versions": {"keras": "3.15.1"},
    "threads": "2 cores",
    "params": {"seed": 1, "weights": "/home/someone/weights.h5"},
    "git": {"commit": "0123456789abcdef", "dirty": False, "diff": "secret"},
    "images": {"classes": 200, "train": 44_000, "val": 10_000},
    "profile": "part",
    "dataset": "tiny-imagenet-200",
}
ACTIVE = ["model_1", "model_2"]
PART = {
    "dataset": {
        "name": "tiny-imagenet-200",
        "archive": "/home/someone/part.zip",
        "urls": ["file:///home/someone/part.zip"],
        "expect": {"classes": 200, "train": 220, "val": 50},
    },
    "training": {"epochs": 2},
}
PARAMS = VALUES | {"profile": "part", "profiles": VALUES["profiles"] | {"part": PART}, "active": ACTIVE}


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    params = parse_params(PARAMS)
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    for model in ACTIVE:
        make_model(model, params.job(model).fingerprint)
    write_reports()
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "raw" / "dataset.zip").write_bytes(b"zip")
    return tmp_path


def make_model(model: str, fingerprint: str, **run: Any) -> None:
    make_results(Path(), model, run=RUN | {"hashes": {"data": "fingerprint", "params": fingerprint}} | run)
    Path("results", model, "per_class.csv").write_text(f"wnid,name,recall\nn1,NA,0.{len(model)}\n")


def write_reports(**changes: Any) -> None:
    """Write what `compare` writes for these params."""
    figures = Path("reports/figures")
    figures.mkdir(parents=True, exist_ok=True)
    results_table(parse_params(PARAMS | changes)).frame.to_csv("reports/results.csv", index=False)
    Path("reports/audit.csv").write_text("model,quantity,verdict,reason\nmodel_2,parameters,below,of /home/someone/x\n")
    Path("reports/differences.csv").write_text("model_a,model_b,p\nmodel_1,model_2,0.5\n")
    Path("reports/audit.md").write_text("no file `/home/someone/weights.h5`, see docs/audit.md\n")
    for name in (*DRAWN, "classes", "augmentation"):
        (figures / f"{name}.svg").write_text(f"<svg>{name}</svg>")
        (figures / f"{name}.png").write_bytes(b"png")


def keep(name: str = "part", about: str = "On a part.", **changes) -> Path:
    params = parse_params(PARAMS | changes)
    return kept_results.keep(name, about, params, results_table(params))


def row_of(section: str, model: str) -> dict[str, str]:
    """Return heading -> cell of a model's row."""
    headings, row = (
        next(line for line in section.splitlines() if line.startswith(f"| {first} |")).strip("|").split("|")
        for first in ("model", model)
    )
    return {heading.strip(): cell.strip() for heading, cell in zip(headings, row, strict=True)}


def test_readme_has_each_figure_of_a_model_under_its_heading(repository):
    keep()
    assert row_of(kept_results.readme_section(), "model_2") == {
        "model": "model_2", "train": "50.00", "val (paper protocol)": "35.14",
        "val (95 % interval)": "38.61 (37.7-39.6)", "val (top-5)": "65.12", "epochs": "15", "kept epoch": "12",
        "images/s": "426", "minutes": "0.1",
    }  # fmt: skip


def test_beside_the_papers_images_readme_has_the_papers_numbers_the_authors_log_and_the_verdicts(repository):
    folder = keep()
    provenance = json.loads((folder / "provenance.json").read_text())
    (folder / "provenance.json").write_text(json.dumps(provenance | {"comparable_with_the_paper": True}))
    verdicts = {"training": "below", "validation": "reproduced"}
    lines = ["model,quantity,verdict", "model_2,parameters,reproduced"]
    lines += [f"model_2,{split} accuracy,{verdict}" for split, verdict in verdicts.items()]
    lines += [f"model_1,{split} accuracy,cannot be tested here" for split in verdicts]
    (folder / "audit.csv").write_text("\n".join(lines))
    first, second = (row_of(kept_results.readme_section(), model) for model in ACTIVE)
    assert second == {
        "model": "model_2", "train (paper)": "20.17", "train (authors' log)": "20.17", "train": "50.00",
        "val (paper)": "22.72", "val (authors' log)": "22.72", "val (paper protocol)": "35.14",
        "verdict": "train below, val reproduced", "val (95 % interval)": "38.61 (37.7-39.6)", "val (top-5)": "65.12",
        "epochs": "15", "kept epoch": "12",
    }  # fmt: skip
    assert first["verdict"] == "-"


def test_the_kept_results_are_the_table_all_epochs_and_their_origin(repository):
    folder = keep()
    assert folder == Path("docs/results/part")
    kept, table = pd.read_csv(folder / "results.csv"), pd.read_csv("reports/results.csv")
    pd.testing.assert_frame_equal(kept, table.drop(columns="run_id").assign(weights=["weights.h5", "weights.h5"]))
    assert json.loads((folder / "metrics.json").read_text()) == dict.fromkeys(ACTIVE, METRICS)
    assert (folder / "per_class.csv").read_text() == ("model,wnid,name,recall\nmodel_1,n1,NA,0.7\nmodel_2,n1,NA,0.7\n")
    assert (folder / "audit.md").read_text() == "no file `weights.h5`, see docs/audit.md\n"
    assert {path.name for path in (folder / "figures").iterdir()} == {f"{name}.svg" for name in DRAWN}
    assert (folder / "differences.csv").read_text() == Path("reports/differences.csv").read_text()
    histories = pd.read_csv(folder / "histories.csv")
    assert histories.groupby("model")["epoch"].apply(list).to_dict() == {"model_1": [1, 2], "model_2": [1, 2]}
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["archive_md5"] == "adcdbd79a8d84175c229b192aadc02f2"  # of the three letters, by md5sum
    assert provenance["models"]["model_2"]["commit"] == "0123456789abcdef"
    everything = "".join(path.read_text() for path in folder.rglob("*") if path.is_file())
    assert "secret" not in everything
    assert "/home/someone" not in everything
    assert "sqlite" not in everything


def test_the_kept_results_include_their_params(repository):
    kept = yaml.safe_load((keep() / "params.yaml").read_text())
    assert list(kept["profiles"]) == ["part"]
    assert list(kept["models"]) == kept["active"] == ACTIVE
    dataset = kept["profiles"]["part"]["dataset"]
    assert (dataset["archive"], dataset["urls"]) == ("part.zip", ["part.zip"])
    dataset["urls"] = []
    again = parse_params(kept | {"champion": {"metric": "val_accuracy", "profiles": []}})
    for model in ACTIVE:
        assert again.job(model).fingerprint == parse_params(PARAMS).job(model).fingerprint


def test_replicates_are_kept_with_their_epochs_metrics_and_origin(repository):
    asked = {"replicates": {"models": ["model_2"], "seeds": [7, 8]}}
    make_model("model_2-7", parse_params(PARAMS | asked).job("model_2-7").fingerprint, seed=7)
    write_reports(**asked)
    folder = keep(**asked)
    assert set(json.loads((folder / "metrics.json").read_text())) == {*ACTIVE, "model_2-7"}
    for name in ("histories.csv", "per_class.csv"):
        assert set(pd.read_csv(folder / name)["model"]) == {*ACTIVE, "model_2-7"}
    provenance = json.loads((folder / "provenance.json").read_text())
    assert list(provenance["models"]) == ACTIVE
    assert list(provenance["replicates"]) == ["model_2-7"]
    assert "seed 1;" in kept_results.readme_section()


@pytest.mark.parametrize("model", ["nan", "na", "null", "none", "inf", "true", "false"])
def test_a_model_keeps_a_name_that_looks_like_a_value(repository, model):
    changes = {"active": ["model_1", model], "models": VALUES["models"] | {model: VALUES["models"]["model_2"]}}
    make_model(model, parse_params(PARAMS | changes).job(model).fingerprint, weights="1e5")
    write_reports(**changes)
    folder = keep(**changes)
    kept = parse_csv((folder / "results.csv").read_text(), {"model": str, "weights": str})
    assert kept["model"].tolist() == ["model_1", model]
    assert kept["weights"].tolist() == ["weights.h5", "1e5"]
    assert f"| {model} | " in kept_results.readme_section()


def test_a_model_without_results_keeps_its_row_and_the_reason(repository):
    Path("checkpoints").mkdir()
    Path("checkpoints/model_3.failed").write_text("no weights in /home/someone/<name>.h5\n")
    three = {"active": [*ACTIVE, "model_3"]}
    write_reports(**three)
    folder = keep(**three)
    kept = pd.read_csv(folder / "results.csv", dtype=str, keep_default_na=False).set_index("model")
    assert list(kept.index) == [*ACTIVE, "model_3"]
    assert (kept.loc["model_3", "val_accuracy"], kept.loc["model_3", "val_accuracy_paper"]) == ("", "0.2488")
    assert kept.loc["model_1", "epochs"] == "15"  # also beside a missing one
    provenance = json.loads((folder / "provenance.json").read_text())
    assert provenance["status"] == {"model_3": "failed: no weights in <name>.h5"}
    assert list(provenance["models"]) == ACTIVE
    section = kept_results.readme_section()
    assert "| model_3 | - | - | no results | - | - | - | - | - |" in section
    assert "**Not finished.** model_3: failed: no weights in &lt;name>.h5.\n" in section
    provenance["status"] = {"model_3": "not trained yet", "model_4": "not trained yet", "model_5": "failed"}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    assert "**Not finished.** model_3, model_4: not trained yet. model_5: failed.\n" in kept_results.readme_section()
    make_model("model_3", parse_params(PARAMS | three).job("model_3").fingerprint)
    with pytest.raises(UserError, match=r"^model_3: .* run `dvc repro` first"):
        keep(**three)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("no file /home/some/x.h5: put it there", "no file x.h5: put it there"),
        ("/srv/some one/x.h5", "x.h5"),
        ("~other/x.h5", "x.h5"),
        (["file:///a/b.zip", {"c": "~/d e/f.zip"}], ["b.zip", {"c": "f.zip"}]),
        ("'/srv/some one/x.h5' and `~/a/b.zip`, file:///x/y.zip", "'x.h5' and `b.zip`, y.zip"),
        ("docs/audit.md, 1/255, https://x.org/a/b, images/s", "docs/audit.md, 1/255, https://x.org/a/b, images/s"),
    ],
)
def test_paths_of_the_machine_are_reduced_to_names(text, kept):
    assert kept_results._without_folders(text) == kept


@pytest.mark.parametrize(
    "change", [{"run_id": "another"}, {"profile": "demo"}, {"hashes": {"data": "", "params": "other"}}]
)
def test_a_table_of_other_trainings_is_not_kept(repository, change):
    path = Path("models/model_2/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=r"^model_2: .* run `dvc repro` first"):
        keep()
    assert not Path("docs").exists()


def test_incomplete_kept_results_are_not_shown(repository, monkeypatch):
    keep()
    before = kept_results.readme_section()
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda *_, **__: pytest.fail("stopped"))
    with pytest.raises(pytest.fail.Exception, match="stopped"):
        keep(about="Again.")
    assert kept_results.readme_section() == "None are kept yet.\n"
    monkeypatch.undo()
    monkeypatch.chdir(repository)
    Path("docs/results/part/results.csv.partial").write_text("half")
    keep()
    assert kept_results.readme_section() == before


def test_a_folder_of_other_files_is_refused_and_kept_results_are_overwritten(repository):
    other = Path("docs/results/benchmark/fits.json")
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    with pytest.raises(UserError, match=r"benchmark has files that `keep` did not make \(fits\.json\)"):
        keep("benchmark")
    assert list(other.parent.iterdir()) == [other]
    for about in ("First.", "Second."):
        folder = keep(about=about)
    assert json.loads((folder / "provenance.json").read_text())["about"] == "Second."


@pytest.mark.parametrize("text", ["", "model,epochs\nmodel_1,2\n"])
def test_a_kept_table_that_cannot_be_read_is_named_with_a_remedy(repository, text):
    (keep() / "results.csv").write_text(text)
    with pytest.raises(UserError, match=r"results\.csv cannot be read .* `git checkout docs/results/part`"):
        kept_results.readme_section()


def test_readme_marks_results_of_uncommitted_code(repository):
    path = Path("models/model_1/run.json")
    run = json.loads(path.read_text())
    diff = "diff --git a/params.yaml b/params.yaml\n-profile: demo\n+profile: part\n# new file: notes.txt\n"
    quoted = 'diff --git "a/\\303\\251.py" "b/\\303\\251.py"\n-1\n+2\n'
    too_long = "# 200,000 characters of difference: left out\n# new file: notes.txt\n"
    many = "".join(f"# new file: {number}\n" for number in range(1234))
    for known, where in [
        (many, " to 0, 1, 2, 1,231 more"),
        (diff, " to params.yaml, notes.txt"),
        (quoted, r" to \303\251.py"),
        (too_long, ""),
    ]:
        path.write_text(json.dumps(run | {"git": run["git"] | {"dirty": True, "diff": known}}))
        keep()
        commits = f"commit 0123456789ab with uncommitted changes{where} / 0123456789ab; 2026"
        assert commits in kept_results.readme_section()


@pytest.mark.parametrize("name", ["", ".", "../part", "/part", "a b", "a/b"])
def test_kept_results_stay_within_their_folder(name, repository):
    with pytest.raises(UserError, match="cannot be the name of a folder"):
        keep(name)
    assert not Path("docs").exists()


def test_without_any_results_there_is_nothing_to_keep(repository):
    three = {"active": ["model_3"]}
    write_reports(**three)
    with pytest.raises(UserError, match="no model has results to keep"):
        keep(**three)
    assert not Path("docs").exists()


def test_the_section_of_readme_is_made_from_kept_results_and_nothing_else_changes(repository):
    keep()
    text = kept_results.updated(README)
    assert text.startswith("# Title\n\n")
    assert text.endswith(f"{kept_results.END}\n\nafter\n")
    assert "old" not in text
    assert "\n\nOn a part.\n" in text
    [row] = [line for line in text.splitlines() if line.startswith("| model_2 |")]
    assert row == "| model_2 | 50.00 | 35.14 | 38.61 (37.7-39.6) | 65.12 | 15 | 12 | 426 | 0.1 |"
    assert "44,000 training and 10,000 validation images of 200 classes; seed 1;" in text
    assert "Keras 3.15.1 on tensorflow 2.21.0; commit 0123456789ab; 2026-01-02" in text
    assert kept_results.updated(text) == text


def test_pretrained_models_and_mirror_images_are_named_beside_the_metrics(repository):
    """model_1 and model_2 have a file of weights, and are the paper's; the other is not."""
    name = "resnet18_pretrained"
    active = [*ACTIVE, name]
    models = VALUES["models"] | {name: VALUES["models"]["model_5"] | {"flip_at_test": True}}
    params = parse_params(PARAMS | {"models": models})
    make_model(name, params.job(name).fingerprint, params={"seed": 1, "flip_at_test": True})
    write_reports(active=active, models=models)
    keep(active=active, models=models)
    section = kept_results.readme_section()
    own, other = section.split("**Pretrained on ImageNet.** Their weights have seen these classes")
    assert [f"| {model} |" in own for model in (*ACTIVE, name)] == [True, True, False]
    assert f"| {name} |" in other
    assert (
        f"{name}: every validation metric uses the mean over an image and its mirror image. Accuracy in percent."
        in other
    )


@pytest.mark.parametrize("comparable", [True, False])
def test_the_papers_numbers_are_shown_only_if_they_are_comparable(repository, comparable):
    dataset = VALUES["profiles"]["paper" if comparable else "demo"]["dataset"]
    changed = {"profiles": PARAMS["profiles"] | {"part": PART | {"dataset": dataset}}}
    write_reports(**changed)
    keep(**changed)
    assert ("22.72" in kept_results.readme_section()) == comparable


def test_readme_shows_the_papers_images_once_they_are_kept_and_until_then_the_most_images(repository):
    keep("a", "On few.")
    more = keep("b", "On more.") / "provenance.json"
    more.write_text(more.read_text().replace('"train": 44000', '"train": 45000'))
    section = kept_results.readme_section()
    assert section.startswith("No results on all of the paper's images are kept yet (docs/results/paper).")
    assert "On more." in section
    assert "On few." not in section
    Path("docs/results/a").rename("docs/results/paper")
    section = kept_results.readme_section()
    assert section.startswith("On few.\n")
    assert "On more." not in section
    assert "Everything else: [docs/results/paper](docs/results/paper)." in section


def test_the_page_of_docs_results_has_every_folder_with_links_from_there(repository):
    keep("a", "On few.")
    keep("b", "On more.")
    page = kept_results.index()
    assert page.index("## a\n\nOn few.\n") < page.index("## b\n\nOn more.\n")
    assert "Everything else: [b](b)." in page
    assert "](b/figures/accuracy_beside_paper.svg)" in page


def test_the_figures_of_a_table_are_those_that_are_kept(repository):
    folder = keep()
    section = kept_results.readme_section()
    for name in ("accuracy_beside_paper", "validation_accuracy"):
        assert f"](docs/results/part/figures/{name}.svg)" in section
        (folder / "figures" / f"{name}.svg").unlink()
    assert "![" not in kept_results.readme_section()


def test_without_marks_there_is_nothing_to_update(repository):
    with pytest.raises(UserError, match=r"README\.md lacks"):
        kept_results.updated("# Title\n")


def test_the_committed_readme_matches_docs_results(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    text = Path("README.md").read_text()
    assert kept_results.updated(text) == text
