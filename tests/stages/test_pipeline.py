"""The whole pipeline, for real: `dvc repro` in a copy of the repository, on a few images of the embedded digits."""

import contextlib
import io
import json
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from finished_pipeline import FOLDER, MODELS, copy_of_pipeline
from PIL import Image
from repository_copy import Copy, stages_run

from stages import download
from tiny_imagenet import entry
from tiny_imagenet.common.files import md5
from tiny_imagenet.config.params import load_params
from tiny_imagenet.input_pipeline.packed import open_packed
from tiny_imagenet.reporting.table import COLUMNS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> tuple[Copy, str]:
    return copy_of_pipeline(tmp_path_factory.mktemp("pipeline") / FOLDER, tmp_path_factory)


@pytest.fixture(scope="module")
def copy(pipeline) -> Copy:
    """A repository after `dvc repro`."""
    return pipeline[0]


@pytest.fixture(scope="module")
def made(pipeline) -> str:
    """What `dvc repro` printed when it ran from nothing."""
    return pipeline[1]


def test_one_command_makes_the_table_of_the_active_models(copy, made):
    table = pd.read_csv(copy.root / "reports" / "results.csv")
    assert list(table.columns) == COLUMNS
    assert list(table["model"]) == MODELS
    assert (table["parameters_200_classes"] > table["parameters"]).all()
    assert list(table["parameters_paper"]) == [13_070_472, 2_555_656]
    assert (table["epochs"] == 2).all()
    assert (table["profile"] == "demo").all()
    assert table["val_accuracy"].between(0, 1).all()
    assert "not comparable with the paper's" in (copy.root / "reports" / "results.md").read_text()
    assert "not comparable with the paper's" in made.replace("\n", " ")


def test_each_epoch_prints_a_line_and_the_expected_duration_is_printed_early(made):
    assert made.count("epoch  1/2  accuracy") == len(MODELS)
    assert made.count("expected: ") == len(MODELS)


def test_mlflow_has_a_finished_run_per_model_with_its_metrics(copy, made):
    runs = copy.runs().set_index("tags.mlflow.runName")
    assert sorted(runs.index) == MODELS
    assert (runs["status"] == "FINISHED").all()
    for model in MODELS:
        metrics = json.loads((copy.root / "results" / model / "metrics.json").read_text())
        assert runs.loc[model, "metrics.final_val_accuracy"] == pytest.approx(metrics["val_accuracy"])
        assert (
            runs.loc[model, "params.architecture"]
            == yaml.safe_load((copy.root / "params.yaml").read_text())["models"][model]["architecture"]
        )
        assert runs.loc[model, "tags.git.dirty"] == "false"
        run = json.loads((copy.root / "models" / model / "run.json").read_text())
        assert run["run_id"] == runs.loc[model, "run_id"]
        for path, digest in run["dependencies"].items():
            assert runs.loc[model, f"tags.dependency.{path}"] == digest
        assert runs.loc[model, "tags.git.commit"] == run["git"]["commit"]
        assert runs.loc[model, "tags.params_hash"] == run["hashes"]["params"]
        assert runs.loc[model, "tags.mlflow.note.content"].startswith(f"val **{100 * metrics['val_accuracy']:.2f} (")
    description = copy.experiment()["mlflow.note.content"]
    assert all(f"\n| {model} | " in description for model in MODELS)


def test_a_second_repro_has_nothing_to_do(copy, made):
    assert "up to date" in copy.succeed("dvc", "repro")


def test_no_partial_file_is_left(copy, made):
    left = [
        path for folder in ("data", "models", "results", "reports") for path in (copy.root / folder).rglob("*.partial*")
    ]
    assert left == []


def current_runs(copy) -> dict[str, list[str]]:
    runs = copy.runs()
    live = runs[(runs["status"] == "FINISHED") & runs["tags.superseded_by"].isna()]
    return live.groupby("tags.mlflow.runName")["run_id"].apply(list).to_dict()


def test_editing_one_model_makes_its_three_stages_stale_and_no_other(copy, made):
    with copy.edited(lambda params: params["models"]["model_2"]["optimizer"].update(learning_rate=0.002)):
        assert copy.would_run() == {"train@model_2", "evaluate@model_2", "compare"}
    assert copy.would_run() == set()


TRAIN, EVALUATE, ARCHITECTURE = (
    {f"{stage}@{model}" for model in MODELS} for stage in ("train", "evaluate", "architecture")
)


STALE_AFTER_AN_EDIT = {
    "src/tiny_imagenet/reporting/wording.py": {"compare"},
    "src/tiny_imagenet/reporting/html/templates/style.css": {"compare"},
    "stages/compare.py": {"compare"},
    "src/tiny_imagenet/common/files.py": set(),
    "src/tiny_imagenet/repository/records.py": set(),
    "src/tiny_imagenet/tracking/run.py": set(),
    "src/tiny_imagenet/verification/checks.py": set(),
    "src/tiny_imagenet/parallel/workers.py": set(),
    "src/tiny_imagenet/cli/app.py": set(),
    "src/tiny_imagenet/entry.py": set(),
    "src/tiny_imagenet/evaluation/metrics.py": EVALUATE | {"compare"},
    "src/tiny_imagenet/training/optimizer.py": TRAIN,
    "src/tiny_imagenet/backend/runtime.py": TRAIN | EVALUATE,
    "src/tiny_imagenet/models/blocks.py": TRAIN | EVALUATE | ARCHITECTURE,
    "src/tiny_imagenet/architectures/resnet18.py": ARCHITECTURE,
    "src/tiny_imagenet/input_pipeline/batches.py": TRAIN | EVALUATE | {"cache"},
    "src/tiny_imagenet/dataset/layout.py": {"reorganize", "cache"},
    "src/tiny_imagenet/dataset/digits.py": {"download", "reorganize", "cache"},
    "src/tiny_imagenet/config/recipe.py": TRAIN
    | EVALUATE
    | ARCHITECTURE
    | {"download", "reorganize", "cache", "compare"},
    "src/tiny_imagenet/plotting.py": EVALUATE | {"cache", "compare"},
}
# One process for all edits: DVC takes a second to start. A round edits files of different rooms, so that the dependency
# that DVC finds changed names the file.
STATUS_AFTER_EDITS = """
import json, sys
from pathlib import Path
from dvc.repo import Repo

found = []
for files in json.loads(sys.argv[1]):
    before = {path: path.read_bytes() for path in map(Path, files)}
    try:
        for path, content in before.items():
            path.write_bytes(content + b"\\n")
        found.append({stage: changes for stage, changes in Repo().status().items() if changes})
    finally:
        for path, content in before.items():
            path.write_bytes(content)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def stale(copy, made) -> dict[str, set[str]]:
    """Path of a file -> the stages of which DVC finds the dependency changed that has the edited file."""
    rounds: list[list[str]] = []
    edited = Counter[tuple[str, ...]]()  # files by room, which is a folder of `src/tiny_imagenet`, or a file
    for file in STALE_AFTER_AN_EDIT:
        room = Path(file).parts[:3]
        if edited[room] == len(rounds):
            rounds.append([])
        rounds[edited[room]].append(file)
        edited[room] += 1
    printed = copy.succeed(sys.executable, "-c", STATUS_AFTER_EDITS, json.dumps(rounds))
    statuses = json.loads(next(line for line in printed.splitlines() if line.startswith("[")))
    stale: dict[str, set[str]] = {}
    for files, status in zip(rounds, statuses, strict=True):
        changed = {
            (stage, path) for stage, changes in status.items() for change in changes for path in change["changed deps"]
        }
        for file in files:
            stale[file] = {stage for stage, path in changed if Path(file).is_relative_to(path)}
        assert set(status) == set().union(*(stale[file] for file in files))
    return stale


@pytest.mark.parametrize("file", STALE_AFTER_AN_EDIT)
def test_an_edit_makes_only_the_stages_stale_that_depend_on_its_room(file, stale):
    assert stale[file] == STALE_AFTER_AN_EDIT[file]


def test_bytecode_makes_nothing_stale(copy, made):
    copy.succeed(sys.executable, "-m", "compileall", "-q", "src")
    assert list((copy.root / "src").rglob("*.pyc"))
    assert json.loads(copy.succeed("dvc", "status", "--json")) == {}


REPLICATE, RATE = "model_1-9", 0.003
TRAINED = [*MODELS, REPLICATE]


@dataclass(frozen=True)
class Edited:
    ran: set[str]
    runs_before: int
    by_the_library: Path
    """The folder with model.keras and history.csv of model_1, trained with the seed of its replicate by no stage."""
    predicted: pd.DataFrame
    """A row per training and validation image: training, wnid, answer, probability."""


def train_by_the_library(keras: Any, folder: Path) -> None:
    """Train model_1 of the working directory with the seed of its replicate, in this process."""
    from tiny_imagenet.models.saved_model import save_model
    from tiny_imagenet.training.train import train, write_history

    packed = open_packed(Path("data/cache"))
    keras.backend.clear_session()  # Keras numbers the layers of a process, and the file has their names
    keras.utils.set_random_seed(9)
    trained = train(load_params().job("model_1").recipe, packed, seed=9)
    save_model(trained.model, folder / "model.keras", **packed.class_lists)
    write_history(trained.history, folder / "history.csv")


def predict_by_stock_keras(keras: Any) -> pd.DataFrame:
    """Load what the stages have saved, and decode what is in the zip of images with Pillow."""
    with zipfile.ZipFile("data/images/val.zip") as archive:
        names = sorted(archive.namelist())
        pixels = [np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB")) for name in names]
    frames = []
    for training in TRAINED:
        model = keras.saving.load_model(f"models/{training}/model.keras")
        probabilities = np.asarray(model([np.stack(pixels)], training=False))
        frames.append(
            pd.DataFrame(
                {
                    "training": training,
                    "wnid": [name.split("/")[0] for name in names],
                    "answer": probabilities.argmax(1),
                    "probability": probabilities.max(1),
                }
            )
        )
    return pd.concat(frames)


@pytest.fixture(scope="class")
def edited(copy, made, keras, tmp_path_factory) -> Iterator[Edited]:
    """One model edited and the other replicated with another seed, by one `dvc repro`; afterwards no replicate."""
    before = len(copy.runs())
    copy.edit(lambda params: params["models"]["model_2"]["optimizer"].update(learning_rate=RATE))
    with copy.edited(lambda params: params.update(replicates={"models": ["model_1"], "seeds": [9]})):
        printed = copy.succeed("dvc", "repro")
        ran = set(stages_run(printed))
        folder = tmp_path_factory.mktemp("by the library")
        with contextlib.chdir(copy.root):
            train_by_the_library(keras, folder)
            predicted = predict_by_stock_keras(keras)
        yield Edited(ran, before, folder, predicted)


def read(copy: Copy, name: str) -> dict:
    return json.loads((copy.root / name).read_text())


class TestOneEditAndOneReplicate:
    """Two models, and two seeds of one of them: what was trained, measured and logged, seen from outside."""

    def test_an_edit_reruns_three_stages_and_a_replicate_has_two_of_its_own(self, copy, edited):
        assert edited.ran == {
            "train@model_2", "evaluate@model_2", f"replicate@{REPLICATE}", f"evaluate_replicate@{REPLICATE}", "compare"
        }  # fmt: skip
        assert json.loads(copy.succeed("dvc", "status", "--json")) == {}

    def test_the_table_points_to_the_run_of_the_edited_model(self, copy, edited):
        runs = copy.runs()
        assert len(runs) == edited.runs_before + 2
        newest = runs[runs["params.optimizer.learning_rate"] == str(RATE)]["run_id"].item()
        table = pd.read_csv(copy.root / "reports" / "results.csv").set_index("model")
        assert table.loc["model_2", "run_id"] == newest
        expected = {model: [table.loc[model, "run_id"]] for model in table.index}
        assert current_runs(copy) == expected | {REPLICATE: [read(copy, f"models/{REPLICATE}/run.json")["run_id"]]}

    def test_a_replicate_widens_the_table_of_its_model(self, copy, edited):
        table = pd.read_csv(copy.root / "reports" / "results.csv").set_index("model")
        accuracies = [read(copy, f"results/{name}/metrics.json")["val_accuracy"] for name in ("model_1", REPLICATE)]
        assert table.loc["model_1", "val_accuracy_mean"] == pytest.approx(sum(accuracies) / 2)
        assert table.loc["model_1", "num_seeds"] == 2
        assert REPLICATE not in table.index

    def test_a_replicate_is_its_model_trained_with_another_seed_to_the_bit(self, copy, edited):
        for name in ("model.keras", "history.csv"):
            expected = (edited.by_the_library / name).read_bytes()
            assert (copy.root / "models" / REPLICATE / name).read_bytes() == expected
            assert (copy.root / "models" / "model_1" / name).read_bytes() != expected

    def test_the_figures_are_what_the_saved_models_say_of_the_images(self, copy, edited):
        """By stock Keras, Pillow and pandas; none of the project's code takes part."""
        table = pd.read_csv(copy.root / "reports" / "results.csv").set_index("model")
        classes = pd.read_csv(copy.root / "data" / "cache" / "classes.csv").set_index("wnid")["label"]
        for training, found in edited.predicted.groupby("training"):
            predictions = pd.read_parquet(copy.root / "results" / training / "predictions.parquet")
            assert predictions["label"].tolist() == classes[found["wnid"]].tolist()
            assert predictions["label_1"].tolist() == found["answer"].tolist()
            assert predictions["probability_1"].to_numpy() == pytest.approx(found["probability"].to_numpy(), abs=1e-3)
            accuracy = (found["answer"].to_numpy() == classes[found["wnid"]].to_numpy()).mean()
            assert read(copy, f"results/{training}/metrics.json")["val_accuracy"] == pytest.approx(accuracy)
            if training in table.index:
                assert table.loc[training, "val_accuracy"] == pytest.approx(accuracy)
                record = read(copy, f"models/{training}/run.json")
                assert table.loc[training, "seconds"] == pytest.approx(sum(record["epoch_seconds"]), abs=0.06)

    @pytest.mark.parametrize("training", TRAINED)
    def test_the_run_has_the_params_that_were_trained_with_and_the_metrics_of_each_epoch(self, copy, edited, training):
        params = yaml.safe_load((copy.root / "params.yaml").read_text())
        block = params["models"][training.partition("-")[0]]
        demo = params["profiles"]["demo"]["training"]
        history = pd.read_csv(copy.root / "models" / training / "history.csv")
        run = copy.mlflow.get_run(read(copy, f"models/{training}/run.json")["run_id"])
        assert (run.info.run_name, run.info.status) == (training, "FINISHED")
        stage = "replicate" if training == REPLICATE else "train"
        assert run.data.tags["dvc.stage"] == f"{stage}@{training}"
        expected = {
            "architecture": block["architecture"],
            "seed": "9" if training == REPLICATE else str(params["seed"]),
            "epochs": str(len(history)),
            "batch_size": str(demo["batch_size"]),
            "optimizer.name": block["optimizer"]["name"],
            "build.filters": str(block["build"]["filters"]),
        }
        assert {name: run.data.params[name] for name in expected} == expected
        rate = demo.get("learning_rate") or block["optimizer"]["learning_rate"]
        assert float(run.data.params["optimizer.learning_rate"]) == rate
        assert history["learning_rate"].iloc[0] == pytest.approx(rate, rel=1e-6)
        for name in ("loss", "val_accuracy"):
            points = copy.mlflow.get_metric_history(run.info.run_id, name)
            assert [point.step for point in points] == history["epoch"].tolist()
            assert [point.value for point in points] == history[name].tolist()

    def test_without_its_replicate_a_model_is_only_compared_again(self, copy, edited):
        with copy.edited(lambda params: params.update(replicates={"models": [], "seeds": []})):
            printed = copy.succeed("dvc", "repro")
        assert stages_run(printed) == ["compare"]
        table = pd.read_csv(copy.root / "reports" / "results.csv").set_index("model")
        assert "num_seeds" not in table
        replicate = {REPLICATE: [read(copy, f"models/{REPLICATE}/run.json")["run_id"]]}  # no longer in params.yaml
        assert current_runs(copy) == {model: [table.loc[model, "run_id"]] for model in MODELS} | replicate


def test_a_table_of_another_profiles_images_is_refused(copy, made):
    table = copy.root / "reports" / "results.csv"
    before = table.read_bytes()
    with copy.edited(lambda params: params.update(profile="paper")):
        done = copy.run(sys.executable, "-m", "stages.compare")
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "error: data/overview belongs to the profile demo, params.yaml has the profile paper: run `dvc repro cache`"
    )
    assert table.read_bytes() == before


def test_an_error_in_params_stops_with_one_message_before_any_work(copy, made):
    with copy.edited(lambda params: params["models"]["model_2"].update(architecture="three_cnv")):
        done = copy.run("dvc", "repro")
    assert done.returncode != 0
    assert "did you mean 'three_conv'?" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [({"optimiser": {}}, "did you mean 'optimizer'?"), ({"epochs": -1}, "models.model_2.epochs")],
)
def test_any_other_error_in_params_stops_the_first_stage(copy, made, monkeypatch, capsys, change, said):
    monkeypatch.chdir(copy.root)
    before = md5(copy.root / "data" / "raw" / "dataset.zip")
    with copy.edited(lambda params: params["models"]["model_2"].update(change)):
        assert entry.run(download.main) == 1
    assert said in capsys.readouterr().err
    assert md5(copy.root / "data" / "raw" / "dataset.zip") == before
