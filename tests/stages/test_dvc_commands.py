"""DVC's own commands, typed as in docs/how-to: metrics, params, plots, experiments, queues, and a remote."""

import json
import shlex
import shutil
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
import yaml
from made_results import make_results
from repository_copy import ROOT, Copy, copy_of_repository, stages_run, tiny

from tiny_imagenet.plotting import COLOURS

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text())
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())
MODELS = PARAMS["active"]
MODEL = "model_2"
RATE = f"models.{MODEL}.optimizer.learning_rate"
CURVES = ["Training accuracy", "Validation accuracy"]
CONFUSION = "Confusion on clean validation images"
pytestmark = pytest.mark.e2e


def type_in(copy: Copy, command: str) -> str:
    """Run a command as it is typed, and return what it prints; errors and warnings go elsewhere."""
    done = copy.run(*shlex.split(command))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(copy: Copy) -> None:
    copy.commit()  # `git init` changes nothing where there is a repository
    assert not copy.succeed("git", "status", "--porcelain")


def plots(copy: Copy, command: str = "dvc plots show") -> dict[str, dict]:
    """Return title -> the filled Vega-Lite specification."""
    found = json.loads(type_in(copy, f"{command} --json"))["data"]
    assert all(len(figures) == 1 for figures in found.values())
    return {title: figures[0]["content"] for title, figures in found.items()}


def rows(figure: dict) -> pd.DataFrame:
    return pd.DataFrame(figure["data"]["values"])


# --- what dvc.yaml and the templates say ---


def test_the_plots_are_of_files_with_a_column_for_the_model():
    definitions = {title: plot for entry in PIPELINE["plots"] for title, plot in entry.items()}
    assert list(definitions) == [*CURVES, CONFUSION]
    for title in CURVES:
        assert list(definitions[title]["y"]) == ["reports/histories.csv"]
    assert list(definitions[CONFUSION]["y"]) == ["reports/confusion.csv"]
    for plot in definitions.values():
        assert (ROOT / ".dvc" / "plots" / f"{plot['template']}.json").is_file()


@pytest.fixture(scope="module")
def five(tmp_path_factory) -> Copy:
    """Return a repository that has results of all five models, which nobody trained."""
    copy = copy_of_repository(tmp_path_factory.mktemp("five") / "repository")
    for model in MODELS:
        make_results(copy.root, model)
        (copy.root / "results" / model / "confusion.csv").write_text(
            'actual,predicted,count\ncrane (n1),crane (n1),3\n"a ""b""",...,0\ncrane (n1),"a ""b""",1\n'
        )
    for folder, one, all_models in [
        ("models", "history.csv", "histories.csv"),
        ("results", "confusion.csv", "confusion.csv"),
    ]:
        frames = [pd.read_csv(copy.root / folder / model / one).assign(model=model) for model in MODELS]
        (copy.root / "reports").mkdir(exist_ok=True)
        pd.concat(frames).to_csv(copy.root / "reports" / all_models, index=False)
    commit(copy)
    return copy


def test_metrics_show_has_a_row_for_each_model(five):
    printed = type_in(five, "dvc metrics show")
    for model in MODELS:
        assert f"results/{model}/metrics.json" in printed
    assert printed.count("0.6512") == len(MODELS)


def test_the_five_curves_are_one_figure_in_distinguishable_colours(five):
    figures = plots(five)
    for title, column in zip(CURVES, ["accuracy", "val_accuracy"], strict=True):
        figure = figures[title]
        encoding = figure["encoding"]
        assert figure["title"]["text"] == title
        assert encoding["x"]["field"] == encoding["x"]["title"] == "epoch"
        assert encoding["y"]["field"] == column
        assert encoding["y"]["title"] == title.lower()
        assert encoding["color"]["scale"]["range"] == list(COLOURS)
        assert encoding["strokeDash"]["field"] == "rev"
        found = rows(figure)
        assert {"epoch", column, "rev"} < set(found.columns)
        assert found["model"].unique().tolist() == list(MODELS)
        assert encoding["color"]["field"] == "model"


def test_no_placeholder_is_left_in_a_figure_and_the_page_has_all_figures(five):
    figures = plots(five)
    assert "<DVC_METRIC" not in json.dumps(figures)
    address = type_in(five, "dvc plots show").strip()
    assert address == (five.root / "dvc_plots" / "index.html").as_uri()
    page = (five.root / "dvc_plots" / "index.html").read_text()
    assert page.count("vegaEmbed(") == len(figures) == 3


# --- one small model, for real ---


def one_small_model(params: dict) -> None:
    tiny(params)
    params["active"] = [MODEL]
    params["models"][MODEL]["build"] |= {"filters": [4, 4, 4], "dense_units": 16}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Copy:
    """Return a repository whose pipeline has run, all of it committed."""
    copy = copy_of_repository(tmp_path_factory.mktemp("commands") / "repository")
    copy.edit(one_small_model)
    commit(copy)
    copy.succeed("dvc", "repro")
    commit(copy)
    return copy


@pytest.fixture
def clean(copy):
    """Yield the repository, and take it back to what is committed."""
    yield copy
    copy.succeed("git", "checkout", "--quiet", ".")
    copy.succeed("dvc", "checkout", "--quiet")
    assert "up to date" in copy.succeed("dvc", "status")


def test_models_without_results_are_omitted(copy):
    shown = json.loads(type_in(copy, "dvc metrics show --json"))[""]["data"]
    measured = json.loads((copy.root / "results" / MODEL / "metrics.json").read_text())
    assert shown[f"results/{MODEL}/metrics.json"]["data"] == measured
    assert [path for path, found in shown.items() if "data" in found] == [f"results/{MODEL}/metrics.json"]
    assert rows(plots(copy)["Validation accuracy"])["model"].unique().tolist() == [MODEL]


def test_the_confusion_plot_shows_what_evaluate_counted(copy):
    figure = plots(copy)[CONFUSION]
    encoding = figure["spec"]["encoding"]
    assert [encoding[axis]["title"] for axis in "xy"] == ["predicted class", "actual class"]
    assert encoding["color"]["scale"] == {"scheme": "viridis", "domain": [0, 1]}
    found = rows(figure)
    names = pd.read_csv(copy.root / "data" / "cache" / "classes.csv")["name"].tolist()
    assert found["actual"].unique().tolist() == found["predicted"].unique().tolist() == names
    assert found["count"].astype(int).sum() == 10 * 2


def test_params_diff_names_what_was_edited(clean):
    clean.edit(lambda params: params["models"][MODEL]["optimizer"].update(learning_rate=0.002))
    lines = type_in(clean, "dvc params diff").splitlines()
    assert [line.split() for line in lines[1:]] == [["params.yaml", RATE, "0.001", "0.002"]]


def newest(copy: Copy, rate: str) -> pd.Series:
    """Return the one run in the main repository's store that was trained with this rate."""
    runs = copy.runs()
    (place,) = runs.index[runs["params.optimizer.learning_rate"] == rate]
    return runs.loc[place]


def experiments(copy: Copy) -> pd.DataFrame:
    table = copy.root / "experiments.partial"
    table.write_text(type_in(copy, "dvc exp show --csv"))
    return pd.read_csv(table).set_index("Experiment")


def test_an_experiment_edits_runs_and_is_shown_beside_its_baseline(clean):
    printed = type_in(clean, f"dvc exp run --name higher -S {RATE}=0.003")
    ran = set(stages_run(printed))
    assert ran == {f"train@{MODEL}", f"evaluate@{MODEL}", "compare"}
    assert yaml.safe_load((clean.root / "params.yaml").read_text())["models"][MODEL]["optimizer"] == {
        "name": "adam",
        "learning_rate": 0.003,
    }
    run = newest(clean, "0.003")
    assert run["status"] == "FINISHED"
    assert json.loads((clean.root / "models" / MODEL / "run.json").read_text())["run_id"] == run["run_id"]
    shown = type_in(clean, "dvc exp show --only-changed")
    assert "higher" in shown
    assert RATE in shown
    experiment = experiments(clean).loc["higher"]
    assert experiment[RATE] == 0.003
    assert experiment["val_accuracy"] == run["metrics.final_val_accuracy"]
    versions = rows(plots(clean, "dvc plots diff HEAD higher")["Validation accuracy"])
    assert versions.groupby("rev").size().to_dict() == {"HEAD": 2, "higher": 2}


def wait_for_queue(copy: Copy) -> None:
    end = time.monotonic() + 300
    while "Success" not in (status := type_in(copy, "dvc queue status")):
        assert "Failed" not in status, status
        assert time.monotonic() < end, status
        time.sleep(3)


def test_a_queued_experiment_runs_elsewhere_and_is_logged_here(clean):
    artifacts = clean.root / "mlruns" / "demo"
    before = set(artifacts.iterdir())
    type_in(clean, f"dvc exp run --queue --name queued -S {RATE}=0.004 evaluate@{MODEL}")
    assert "Queued" in type_in(clean, "dvc queue status")
    try:
        type_in(clean, "dvc queue start")
        wait_for_queue(clean)
    finally:
        type_in(clean, "dvc queue stop --kill")
    assert f"Running stage 'train@{MODEL}'" in type_in(clean, "dvc queue logs queued")
    assert not clean.succeed("git", "status", "--porcelain")  # the files here are as they were
    run = newest(clean, "0.004")
    assert run["status"] == "FINISHED"
    assert run["metrics.final_val_accuracy"] >= 0
    assert set(artifacts.iterdir()) - before == {artifacts / run["run_id"]}
    assert (artifacts / run["run_id"] / "artifacts" / "history.csv").is_file()
    assert list((clean.root / ".dvc" / "tmp" / "exps").rglob("mlflow.db")) == []
    assert experiments(clean).loc["queued", RATE] == 0.004

    type_in(clean, "dvc exp apply queued")
    record = json.loads((clean.root / "models" / MODEL / "run.json").read_text())
    assert record["run_id"] == run["run_id"]
    assert record["tracking_uri"] == f"sqlite:///{clean.root / 'mlflow.db'}"
    assert "up to date" in type_in(clean, f"dvc repro evaluate@{MODEL}")


def clone(copy: Copy, place: Path) -> Copy:
    subprocess.run(["git", "clone", "--quiet", str(copy.root), str(place)], check=True)
    return Copy(place)


def test_a_fresh_clone_is_rebuilt_from_the_remote_with_nothing_rerun(clean, tmp_path):
    type_in(clean, f"dvc remote add --default storage {tmp_path / 'storage'}")
    pushed = type_in(clean, "dvc push")
    commit(clean)
    fresh = clone(clean, tmp_path / "clone")
    assert "pushed" in pushed
    assert "fetched" in type_in(fresh, "dvc pull")

    repro = type_in(fresh, "dvc repro")
    assert "Data and pipelines are up to date." in repro
    assert "Running stage" not in repro
    table = (clean.root / "reports" / "summary.txt").read_text()
    assert type_in(fresh, "tiny-imagenet results") == table
    assert not fresh.succeed("git", "status", "--porcelain")
    assert "up to date" in fresh.succeed("dvc", "status")

    # The run stands in the store of the machine that trained, and this one has none: it is made from the files, once.
    assert not (fresh.root / "mlflow.db").exists()
    run = json.loads((fresh.root / "models" / MODEL / "run.json").read_text())["run_id"]
    assert f"{MODEL}: MLflow did not have the run {run}; restored as " in type_in(fresh, "tiny-imagenet sync")
    assert "restored" not in type_in(fresh, "dvc repro --force --single-item compare")
    restored = fresh.runs()
    assert restored["tags.restored_from"].tolist() == [run]
    assert restored["status"].tolist() == ["FINISHED"]
    assert (fresh.root / "reports" / "summary.txt").read_text() == table


# --- what is made again ---


def test_a_new_architecture_trains_only_the_new_model(clean):
    architecture = clean.root / "src" / "tiny_imagenet" / "architectures" / "sixth.py"
    shutil.copy(architecture.with_name("two_conv.py"), architecture)

    def add(params: dict) -> None:
        params["models"]["model_6"] = params["models"]["model_1"] | {"architecture": "sixth"}
        params["active"].append("model_6")

    try:
        with clean.edited(add):
            clean.succeed("dvc", "repro", f"architecture@{MODEL}", "architecture@model_6")
            stale = json.loads(clean.succeed("dvc", "status", "--json"))  # a dry run ends where a file is not made yet
    finally:
        architecture.unlink()
        shutil.rmtree(clean.root / "models" / "model_6", ignore_errors=True)
    clean.succeed("dvc", "repro", f"architecture@{MODEL}")
    assert set(stale) == {"train@model_6", "evaluate@model_6", "compare"}
    assert clean.would_run() == set()


def test_a_retraining_to_the_same_bits_reruns_no_evaluation_and_its_run_has_the_final_metrics(clean):
    before = len(clean.runs())
    clean.succeed("dvc", "repro", "--force", "--single-item", f"train@{MODEL}")
    printed = clean.succeed("dvc", "repro")
    assert stages_run(printed) == ["compare"]
    runs = clean.runs().set_index("run_id")
    assert len(runs) == before + 1
    record = json.loads((clean.root / "models" / MODEL / "run.json").read_text())
    newest = record["run_id"]
    assert record["resumed_from"] == []  # DVC has noted the one before: it is no checkpoint to resume
    metrics = json.loads((clean.root / "results" / MODEL / "metrics.json").read_text())
    assert runs.loc[newest, "metrics.final_val_accuracy"] == metrics["val_accuracy"]
    table = pd.read_csv(clean.root / "reports" / "results.csv").set_index("model")
    assert table.loc[MODEL, "run_id"] == newest


# --- another dataset ---


def test_own_images_run_through_the_whole_pipeline_as_another_profile(clean, make_archive):
    make_archive(3, train=8, val=4).write(clean.root / "own.zip")
    trained = len(clean.runs())

    def add(params: dict) -> None:
        dataset = {"name": "own", "archive": "own.zip", "expect": {"classes": 3, "train": 8, "val": 4}}
        params["profiles"]["own"] = {"dataset": dataset, "training": {"epochs": 2}}
        params["profile"] = "own"
        params["active"] = [MODEL]

    with clean.edited(add):
        clean.succeed("dvc", "repro")
    table = pd.read_csv(clean.root / "reports" / "results.csv")
    assert table["model"].tolist() == [MODEL]
    assert table["dataset"].item() == "own"
    assert (table["parameters_200_classes"] - table["parameters"]).item() == 197 * 17
    assert clean.runs("own")["status"].tolist() == ["FINISHED"]
    clean.succeed("dvc", "repro")  # back to the digits, from DVC's cache: nothing is trained
    assert (len(clean.runs()), len(clean.runs("own"))) == (trained, 1)
