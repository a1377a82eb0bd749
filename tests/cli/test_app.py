"""The command `tiny-imagenet`: its answers and its exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from made_results import VALUES

from tiny_imagenet.backend import processor
from tiny_imagenet.cli import app
from tiny_imagenet.reporting import kept_results

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Work in a folder below the root of a repository with the committed params.yaml."""
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "docs").mkdir()
    monkeypatch.chdir(tmp_path / "docs")
    return tmp_path


@pytest.fixture
def command(monkeypatch, capsys):
    """Run the command and return its exit code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tiny-imagenet", *arguments])
        with pytest.raises(SystemExit) as caught:
            app.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return run


def test_help_names_the_commands_and_needs_no_repository(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output, _ = command("--help")
    assert code == 0
    for name in ("results", "check"):
        assert f" {name} " in output


def test_help_does_not_wait_for_what_the_commands_import():
    script = """
import sys
from tiny_imagenet.cli import app
sys.argv = ["tiny-imagenet", "check", "--help"]
try: app.main()
except SystemExit as end: assert not end.code
assert not {"keras", "numpy", "pandas", "scipy"} & sys.modules.keys()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_unknown_command_is_refused(command):
    code, output, errors = command("resluts")
    assert code == 2
    assert "resluts" in output + errors


def test_the_committed_pages_match_the_code_and_docs_results(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert command("readme", "--check") == (0, "5 generated pages are up to date\n", "")


def test_readme_writes_pages_that_are_out_of_date_and_check_only_names_them(command, repository):
    (repository / "README.md").write_text(f"# Title\n\n{kept_results.BEGIN}\nold\n{kept_results.END}\n")
    reference = repository / "docs" / "reference"
    code, _, errors = command("readme", "--check")
    assert code == 1
    assert "README.md, docs/results/README.md, docs/reference/params.md, docs/reference/params.schema.json" in errors
    assert "old" in (repository / "README.md").read_text()
    assert not reference.exists()
    assert command("readme")[0] == 0
    assert "None are kept yet." in (repository / "README.md").read_text()
    assert "| `batch_size` |" in (reference / "params.md").read_text()
    assert command("readme", "--check")[0] == 0
    page = reference / "commands.md"
    page.write_text(page.read_text() + "by hand\n")
    code, _, errors = command("readme", "--check")
    assert (code, errors) == (1, "error: docs/reference/commands.md: out of date; run `tiny-imagenet readme`\n")


def test_check_lists_the_stages_that_would_run(command, repository):
    code, output, errors = command("check")
    assert (code, errors) == (0, "")
    for part in ("profile demo", "digits", "embedded", "model_1, model_2, model_3, model_4, model_5"):
        assert part in output
    assert "the profile changes their recipes:\n  epochs: 15 -> 6 (all models)\n" in output


def test_check_remarks_on_a_sweep_that_cannot_run_and_does_not_fail(command, repository):
    path = repository / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    dataset = params["profiles"][params["profile"]]["dataset"]
    dataset["images_per_class"] = {"train": params["sweeps"]["rates"]["holdout_per_class"]}
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    code, output, errors = command("check")
    assert (code, errors) == (0, "")
    assert "warning: `dvc repro` will work, but `tiny-imagenet sweep rates` would fail: params.yaml" in output
    assert "sweeps.rates.search, trial 1" in output


def test_check_says_that_bfloat16_will_be_slow_and_why(command, repository, monkeypatch, tmp_path):
    path = repository / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["models"]["model_2"]["precision"] = "mixed_bfloat16"
    path.write_text(yaml.safe_dump(params), encoding="utf-8")
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr(processor, "_CPUINFO", cpuinfo)
    cpuinfo.write_text("model name\t: Old CPU\nflags\t\t: avx avx2\n")
    warnings = [line for line in command("check")[1].splitlines() if "bfloat16" in line]
    assert warnings == [
        "warning: without a GPU, model_2 in mixed_bfloat16 will be slow: Old CPU has no bfloat16 "
        "instructions and emulates them in float32"
    ]
    cpuinfo.write_text("model name\t: New CPU\nflags\t\t: avx avx2 avx512_bf16\n")
    assert "bfloat16" not in command("check")[1]


def test_check_names_the_addresses_of_a_dataset(command, repository, monkeypatch):
    monkeypatch.setattr("tiny_imagenet.models.weights.weights_file", lambda *_: None)
    (repository / "params.yaml").write_text(yaml.safe_dump(VALUES | {"profile": "paper"}))
    _, output, _ = command("check")
    assert "https://cs231n.stanford.edu/tiny-imagenet-200.zip" in output


@pytest.mark.parametrize(
    ("change", "expected"),
    [({"profile": "dmo"}, "did you mean 'demo'"), ({"models": VALUES["models"] | {"model_1": {}}}, "models.model_1")],
)
def test_check_refuses_bad_params_with_one_message(change, expected, command, repository):
    (repository / "params.yaml").write_text(yaml.safe_dump(VALUES | change))
    code, output, errors = command("check")
    assert (code, output) == (1, "")
    assert errors.startswith("error: ")
    assert expected in errors
    assert "Traceback" not in errors


def test_results_prints_the_table_as_compare_printed_it(command, repository):
    (repository / "reports").mkdir()
    (repository / "reports" / "summary.txt").write_text("profile demo\nmodel_2  38.61 (37.7-39.6)\n")
    (repository / "params.yaml").write_text(yaml.safe_dump(VALUES | {"profile": "paper"}))  # not what was run
    assert command("results") == (0, "profile demo\nmodel_2  38.61 (37.7-39.6)\n", "")


def test_check_finds_missing_weights_before_anything_runs(command, repository):
    models = VALUES["models"] | {"model_5": VALUES["models"]["model_5"] | {"weights": "nowhere.h5"}}
    (repository / "params.yaml").write_text(yaml.safe_dump(VALUES | {"profile": "paper", "models": models}))
    code, _, errors = command("check")
    assert code == 1
    assert "nowhere.h5" in errors


def test_without_results_the_error_says_what_to_do(command, repository):
    code, output, errors = command("results")
    assert (code, output) == (1, "")
    assert "dvc repro" in errors


@pytest.mark.parametrize("name", ["check", "results"])
def test_outside_of_a_repository_a_command_is_refused(name, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output, errors = command(name)
    assert (code, output) == (1, "")
    assert "dvc.yaml" in errors
    assert "Traceback" not in errors
