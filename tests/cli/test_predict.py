"""The command `predict`: which files, which model, what is printed where, and the model's own probabilities."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from made_results import METRICS
from PIL import Image
from standin import packed_digits, small_recipe

from tiny_imagenet.cli import app
from tiny_imagenet.cli import predict as prediction
from tiny_imagenet.cli.predict import Classes, Refusal, Source, find_sources, predict
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.tracking import store

ROOT = Path(__file__).parents[2]
NUM_CLASSES = 7
CLASSES = Classes([f"n{label:08d}" for label in range(NUM_CLASSES)], [f"shade {label}" for label in range(NUM_CLASSES)])


class ShadeModel:
    """Answers with the class whose number is the red of the first pixel, and remembers its batches."""

    def __init__(self):
        self.batches = []

    def predict_on_batch(self, x):
        assert x.dtype == np.uint8
        self.batches.append(len(x))
        scores = -np.abs(x[:, 0, 0, :1].astype(np.float32) - np.arange(NUM_CLASSES, dtype=np.float32))
        return np.exp(scores) / np.exp(scores).sum(1, keepdims=True)


def write_shade(path, shade):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 64), (shade, 0, 0)).save(path, "PNG")
    return path


def named(*paths):
    return [Source(path, named=True) for path in paths]


def found(*paths):
    return [Source(path, named=False) for path in paths]


def not_loaded():
    raise AssertionError("the model was loaded")


class TestFiles:
    def test_folders_are_searched_to_the_bottom_in_order(self, tmp_path):
        inside = [write_shade(tmp_path / "f" / name, 0) for name in ("b.png", "a/z.png", "c/d/e.png", "a/b.txt")]
        outside = write_shade(tmp_path / "x.png", 0)
        sources, refusals = find_sources([outside, tmp_path / "f"])
        assert sources == named(outside) + found(*sorted(inside))
        assert refusals == []

    def test_hidden_files_pipes_and_links_to_folders_are_ignored(self, tmp_path):
        seen = write_shade(tmp_path / "seen.png", 0)
        write_shade(tmp_path / ".hidden.png", 0)
        write_shade(tmp_path / ".thumbnails" / "small.png", 0)
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "loop").symlink_to(tmp_path)
        (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
        assert find_sources([tmp_path]) == (found(seen), [])

    def test_an_empty_folder_is_refused(self, tmp_path):
        assert find_sources([tmp_path]) == ([], [Refusal(tmp_path, "is a folder without files")])

    def test_a_folder_that_may_not_be_read_is_refused(self, tmp_path, monkeypatch):
        def walk(folder, onerror):
            onerror(PermissionError(13, "Permission denied", str(folder)))
            return iter(())

        monkeypatch.setattr(os, "walk", walk)
        assert find_sources([tmp_path]) == ([], [Refusal(tmp_path, "cannot be read: Permission denied")])


class TestAnswers:
    def test_are_in_the_requested_order_with_the_likeliest_first(self, tmp_path):
        files = [write_shade(tmp_path / f"{shade}.png", shade) for shade in (5, 0, 3)]
        answers = predict(named(*files), CLASSES, ShadeModel, top=3)
        assert [image["path"] for image in answers.images] == [str(file) for file in files]
        assert [image["predictions"][0]["name"] for image in answers.images] == ["shade 5", "shade 0", "shade 3"]
        for image in answers.images:
            chances = [guess["probability"] for guess in image["predictions"]]
            assert chances == sorted(chances, reverse=True)
            assert all(
                CLASSES.names[CLASSES.wnids.index(guess["wnid"])] == guess["name"] for guess in image["predictions"]
            )
        assert (answers.errors, answers.skipped) == ([], 0)

    @pytest.mark.parametrize(("top", "expected"), [(1, 1), (5, 5), (NUM_CLASSES, NUM_CLASSES), (500, NUM_CLASSES)])
    def test_have_the_requested_number_of_classes_at_most_all(self, top, expected, tmp_path):
        answers = predict(named(write_shade(tmp_path / "a.png", 1)), CLASSES, ShadeModel, top=top)
        assert len(answers.images[0]["predictions"]) == expected

    def test_of_many_images_come_in_batches_and_each_is_its_own(self, tmp_path):
        model = ShadeModel()
        files = [write_shade(tmp_path / f"{number:03d}.png", number % NUM_CLASSES) for number in range(300)]
        answers = predict(named(*files), CLASSES, lambda: model, top=1)
        assert model.batches == [128, 128, 44]
        assert [image["predictions"][0]["name"] for image in answers.images] == [
            f"shade {number % NUM_CLASSES}" for number in range(300)
        ]

    def test_never_wait_for_more_than_two_batches_of_pixels(self, tmp_path, monkeypatch):
        shade = np.zeros((64, 64, 3), np.uint8)
        lock, held, most = threading.Lock(), 0, 0

        def read_image(_):
            nonlocal held, most
            with lock:
                held += 1
                most = max(most, held)
            return shade

        class Model(ShadeModel):
            def predict_on_batch(self, x):
                nonlocal held
                answer = super().predict_on_batch(x)
                with lock:
                    held -= len(x)
                return answer

        monkeypatch.setattr(prediction, "read_image", read_image)
        answers = predict(named(*[tmp_path / str(number) for number in range(3000)]), CLASSES, Model, top=1)
        assert len(answers.images) == 3000
        assert most <= 2 * prediction.BATCH_SIZE

    def test_that_are_not_finite_are_refused(self, tmp_path):
        class Diverged:
            def predict_on_batch(self, x):
                return np.full((len(x), NUM_CLASSES), np.nan, np.float32)

        with pytest.raises(UserError, match="diverged"):
            predict(named(write_shade(tmp_path / "a.png", 1)), CLASSES, Diverged, top=1)


class TestRefusals:
    def test_bad_ones_are_named_and_the_others_predicted(self, tmp_path):
        files = [write_shade(tmp_path / f"{shade}.png", shade) for shade in range(5)]
        files[1].write_bytes(files[1].read_bytes()[:60])
        files[3].write_text("no image")
        told = []
        answers = predict(named(*files), CLASSES, ShadeModel, top=1, on_refusal=told.append)
        assert [image["predictions"][0]["name"] for image in answers.images] == ["shade 0", "shade 2", "shade 4"]
        assert [refusal.path for refusal in told] == [files[1], files[3]]
        assert [error["path"] for error in answers.errors] == [str(files[1]), str(files[3])]

    def test_in_a_folder_only_files_with_an_image_suffix_can_be_errors(self, tmp_path):
        (tmp_path / "notes.txt").write_text("no image")
        (tmp_path / "broken.jpg").write_text("no image")
        (tmp_path / "phone.heic").write_bytes(bytes(4) + b"ftypheic" + bytes(20))
        (tmp_path / "phone").write_bytes(bytes(4) + b"ftypheic" + bytes(20))
        good = write_shade(tmp_path / "an image without a suffix", 2)
        answers = predict(find_sources([tmp_path])[0], CLASSES, ShadeModel, top=1)
        assert [image["path"] for image in answers.images] == [str(good)]
        assert {Path(error["path"]).name for error in answers.errors} == {"broken.jpg", "phone", "phone.heic"}
        assert answers.skipped == 1

    def test_without_any_image_the_model_is_not_even_loaded(self, tmp_path):
        (tmp_path / "notes.txt").write_text("no image")
        paths = [tmp_path / "notes.txt", tmp_path / "nowhere.png"]
        answers = predict(named(*paths) + found(paths[0]), CLASSES, not_loaded, top=1)
        assert (answers.images, len(answers.errors), answers.skipped) == ([], 2, 1)


def make_model_file(path, metadata):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps(metadata))


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """Work in a repository with models that ShadeModel stands in for; the best of the active ones is model_2."""
    root = tmp_path / "repository"
    root.mkdir()
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    for name, accuracy in (("model_1", 0.3), ("model_2", 0.5), ("model_3", 0.5), ("inactive", 0.9)):
        make_model_file(root / "models" / name / "model.keras", {"wnids": CLASSES.wnids, "class_names": CLASSES.names})
        (root / "results" / name).mkdir(parents=True)
        (root / "results" / name / "metrics.json").write_text(json.dumps(METRICS | {"val_accuracy": accuracy}))
    monkeypatch.chdir(root)
    monkeypatch.setattr(prediction, "load_classifier", lambda *_: ShadeModel())
    return root


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `tiny-imagenet predict` and return its exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tiny-imagenet", "predict", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            app.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return run


class TestChoiceOfTheModel:
    def test_is_the_active_one_that_validates_best(self, command, repository, tmp_path):
        code, output, errors = command(write_shade(tmp_path / "a.png", 1), "--json")
        model = repository / "models" / "model_2" / "model.keras"
        assert code == 0
        assert json.loads(output)["model"] == str(model)
        assert f"model: {model} (" in errors
        assert "50.00 %" in errors

    def test_is_by_the_one_view_that_the_file_gives(self, command, repository, tmp_path):
        measured = METRICS | {"val_accuracy": 0.9, "val_accuracy_one_view": 0.51}
        (repository / "results" / "model_1" / "metrics.json").write_text(json.dumps(measured))
        _, output, errors = command(write_shade(tmp_path / "a.png", 1), "--json")
        assert json.loads(output)["model"] == str(repository / "models" / "model_1" / "model.keras")
        assert "51.00 %" in errors

    @pytest.mark.parametrize("given", ["model_1", "inactive", "models/model_1/model.keras"])
    def test_is_the_one_that_is_named(self, given, command, repository, tmp_path):
        code, output, errors = command(write_shade(tmp_path / "a.png", 1), "--json", "--model", given)
        assert code == 0
        assert given.removeprefix("models/").split("/")[0] in json.loads(output)["model"]
        assert "model: " in errors

    def test_a_file_needs_no_repository(self, command, repository, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        model = repository / "models" / "model_1" / "model.keras"
        assert command(write_shade(tmp_path / "a.png", 1), "--model", model)[0] == 0

    def test_a_broken_params_yaml_does_not_matter_to_a_named_one(self, command, repository, tmp_path):
        (repository / "params.yaml").write_text("no params")
        assert command(write_shade(tmp_path / "a.png", 1), "--model", "model_1")[0] == 0

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("modle_2", "did you mean 'model_2'"),
            ("nowhere.keras", "nowhere.keras"),
            ("dvc.yaml", "trained models: inactive, model_1, model_2, model_3"),
        ],
    )
    def test_a_missing_one_is_refused(self, given, expected, command, repository, tmp_path):
        code, output, errors = command(write_shade(tmp_path / "a.png", 1), "--model", given)
        assert (code, output) == (1, "")
        assert expected in errors
        assert "Traceback" not in errors

    @pytest.mark.slow
    def test_a_champion_that_a_user_registered_is_used_or_refused_with_its_version(
        self, command, repository, tmp_path, monkeypatch
    ):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
        store.connect(repository)
        client, image = store.client(), write_shade(tmp_path / "a.png", 1)
        client.create_registered_model("tiny-imagenet")
        version = client.create_model_version("tiny-imagenet", str(tmp_path / "theirs"))
        client.set_registered_model_alias("tiny-imagenet", "champion", version.version)
        code, output, errors = command(image, "--model", "champion")
        assert (code, output) == (1, "")
        theirs = "error: tiny-imagenet@champion is version 1, not registered by this pipeline, but there is no data"
        assert errors.startswith(theirs)
        make_model_file(
            tmp_path / "theirs" / "data" / "model.keras", {"wnids": CLASSES.wnids, "class_names": CLASSES.names}
        )
        code, output, errors = command(image, "--model", "champion", "--json")
        assert (code, json.loads(output)["model"]) == (0, "tiny-imagenet@champion")
        assert "tiny-imagenet@champion (which is version 1, not registered by this pipeline)" in errors

    def test_without_any_the_error_says_what_to_do(self, command, repository, tmp_path):
        for metrics in repository.glob("results/*/metrics.json"):
            metrics.unlink()
        code, output, errors = command(write_shade(tmp_path / "a.png", 1))
        assert (code, output) == (1, "")
        assert "dvc repro" in errors

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"val_accuracy": null}'])
    def test_metrics_that_cannot_be_read_are_refused(self, content, command, repository, tmp_path):
        (repository / "results" / "model_2" / "metrics.json").write_text(content)
        code, _, errors = command(write_shade(tmp_path / "a.png", 1))
        assert code == 1
        assert "metrics.json" in errors

    @pytest.mark.parametrize("metadata", [{}, {"wnids": [], "class_names": []}, {"wnids": ["a"], "class_names": "a"}])
    def test_a_model_without_names_of_classes_is_refused(self, metadata, command, repository, tmp_path):
        make_model_file(tmp_path / "foreign.keras", metadata)
        code, _, errors = command(write_shade(tmp_path / "a.png", 1), "--model", tmp_path / "foreign.keras")
        assert code == 1
        assert "does not name its classes" in errors


class TestWhatIsPrinted:
    def test_json_is_one_document_and_nothing_else(self, command, repository, tmp_path):
        good = write_shade(tmp_path / "in" / "good.png", 4)
        (tmp_path / "in" / "notes.txt").write_text("no image")
        code, output, errors = command(tmp_path / "in", tmp_path / "nowhere.png", "--json", "--top", 2)
        document = json.loads(output)
        assert code == 1
        assert list(document) == ["model", "images", "errors", "skipped"]
        assert document["images"][0]["path"] == str(good)
        assert [list(guess) for guess in document["images"][0]["predictions"]] == [["wnid", "name", "probability"]] * 2
        assert document["images"][0]["predictions"][0]["wnid"] == CLASSES.wnids[4]
        assert document["errors"] == [{"path": str(tmp_path / "nowhere.png"), "error": "does not exist"}]
        assert document["skipped"] == 1
        assert f"error: {tmp_path / 'nowhere.png'}: does not exist\n" in errors
        assert "skipped 1 files" in errors

    def test_the_table_has_a_line_for_each_class_and_aligned_columns(self, command, repository, tmp_path):
        files = [write_shade(tmp_path / name, shade) for name, shade in (("a.png", 1), ("longer name.png", 6))]
        code, output, _ = command(*files, "--top", 3)
        lines = output.splitlines()
        assert code == 0
        assert len(lines) == 1 + 2 * 3
        assert len({len(line) for line in lines[1:]}) == 1
        column = lines[0].index("class")
        assert [lines[row][:column].rstrip() for row in (1, 2, 4)] == [str(files[0]), "", str(files[1])]
        assert lines[1][column:].startswith("shade 1  n00000001")
        assert re.fullmatch(r".* \d+\.\d\d %", lines[1])

    def test_control_characters_in_a_file_name_are_escaped(self, command, repository, tmp_path):
        good = write_shade(tmp_path / "in" / "a\x1b[2J\nb.png", 1)
        (tmp_path / "in" / "bad\x1b[2J.png").write_text("no image")
        (tmp_path / "in" / os.fsdecode(b"latin-\xe9.png")).write_bytes(good.read_bytes())
        code, output, errors = command(tmp_path / "in")
        assert code == 1
        assert "\x1b" not in output + errors
        assert "a\\x1b[2J\\nb.png" in output
        assert "latin-\\udce9.png" in output
        assert json.loads(command(good, "--json")[1])["images"][0]["path"] == str(good)

    @pytest.mark.parametrize("arguments", [(), ("--top", "0", "a.png"), ("--top", "five", "a.png"), ("--jsn", "a.png")])
    def test_a_wrong_call_is_refused(self, arguments, command, repository):
        code, output, _ = command(*arguments)
        assert (code, output) == (2, "")

    def test_a_folder_of_other_files_is_refused(self, command, repository, tmp_path):
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "notes.txt").write_text("no image")
        code, output, errors = command(tmp_path / "in")
        assert (code, output) == (1, "")
        assert "none of these files is an image" in errors


def test_invalid_calls_are_refused_without_starting_keras(repository, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    script = (
        "import sys; from tiny_imagenet.cli import app\n"
        "for arguments in (['nowhere.png'], [sys.argv[1]], ['a.png', '--model', 'nowhere'], ['a.png', '--top', '0']):\n"
        "    sys.argv = ['tiny-imagenet', 'predict', *arguments]\n"
        "    try: app.main()\n"
        "    except SystemExit as end: assert end.code, arguments\n"
        "assert not {'keras', 'tensorflow'} & sys.modules.keys()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "notes.txt")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def trained(keras, tmp_path_factory):
    """Train model 1 in small on the digits, save it, and write the validation images as PNGs."""
    from tiny_imagenet.models.saved_model import save_model
    from tiny_imagenet.training import train

    packed = packed_digits()
    keras.utils.set_random_seed(1)
    model = train.train(small_recipe(), packed, seed=1).model
    folder = tmp_path_factory.mktemp("trained")
    save_model(
        model, folder / "small.keras", wnids=list(packed.classes["wnid"]), class_names=list(packed.classes["name"])
    )
    (folder / "images").mkdir()
    for number, image in enumerate(packed.val.images):
        Image.fromarray(image).save(folder / "images" / f"{number:03d}.png")
    return folder, packed, model


def start(*arguments):
    program = Path(sys.executable).with_name("tiny-imagenet")
    return subprocess.Popen(
        [program, "predict", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_the_command_gives_the_models_own_probabilities(trained):
    folder, packed, model = trained
    (folder / "images" / "zz_broken.png").write_bytes((folder / "images" / "000.png").read_bytes()[:90])
    process = start(folder / "images", "--model", folder / "small.keras", "--json", "--top", "10")
    output, errors = process.communicate(timeout=120)
    (folder / "images" / "zz_broken.png").unlink()
    assert process.returncode == 1
    assert "zz_broken.png: is damaged or truncated" in errors
    assert "Traceback" not in errors
    document = json.loads(output)

    expected = model.predict(packed.val.images, verbose=0)
    wnids = list(packed.classes["wnid"])
    assert [Path(image["path"]).name for image in document["images"]] == [f"{n:03d}.png" for n in range(len(expected))]
    for image, probabilities in zip(document["images"], expected, strict=True):
        given = {guess["wnid"]: guess["probability"] for guess in image["predictions"]}
        np.testing.assert_allclose([given[wnid] for wnid in wnids], probabilities, rtol=1e-4, atol=1e-6)
        assert image["predictions"][0]["wnid"] == wnids[int(probabilities.argmax())]
    first = [wnids.index(image["predictions"][0]["wnid"]) for image in document["images"]]
    assert (first == packed.val.labels).mean() > 0.6  # it has learnt something


@pytest.mark.slow
def test_a_model_of_another_shape_is_refused(keras, trained, tmp_path):
    from tiny_imagenet.models.saved_model import save_model

    inputs = keras.Input((32, 32, 3), dtype="uint8")
    outputs = keras.layers.Dense(2)(keras.layers.Flatten()(inputs))
    save_model(keras.Model(inputs, outputs), tmp_path / "other.keras", wnids=["a", "b"], class_names=["a", "b"])
    process = start(trained[0] / "images" / "000.png", "--model", tmp_path / "other.keras")
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (1, "")
    assert "(32, 32, 3)" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 2.0])
def test_ctrl_c_ends_it_with_130_and_no_traceback(seconds, trained):
    folder, _, _ = trained
    process = start(*[folder / "images"] * 200, "--model", folder / "small.keras")
    said = process.stderr.readline()  # it has begun
    assert said.startswith("model: ")
    threading.Event().wait(seconds)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, output) == (130, "")
    assert "Traceback" not in errors
