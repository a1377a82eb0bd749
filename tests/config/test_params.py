"""params.yaml: the committed values, and error messages."""

from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml
from committed_params import COMMITTED, REMOVED, TUNING, VALUES, changed, message_of
from dvc.utils.hydra import apply_overrides
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.schema import nearest
from tiny_imagenet.config.params import load_params, parse_params
from tiny_imagenet.config.recipe import PAPER_AUGMENTATION

# --- the committed file ---


def test_the_committed_file_loads():
    params = load_params(COMMITTED)
    assert params.active == ("model_1", "model_2", "model_3", "model_4", "model_5")


def test_the_committed_paper_profile_is_the_official_archive():
    dataset = load_params(COMMITTED).profiles["paper"].dataset
    assert dataset.name == "tiny-imagenet-200"
    assert (dataset.md5, dataset.bytes) == ("90528d7ca1a48142e341f4ef8d21d0de", 248100043)
    assert (dataset.expect.classes, dataset.expect.train, dataset.expect.val) == (200, 500, 50)
    assert not dataset.embedded


def test_the_committed_demo_profile_needs_no_network():
    assert load_params(COMMITTED).profiles["demo"].dataset.embedded


def test_the_committed_augmentation_is_the_papers_written_out():
    params = load_params(COMMITTED)
    assert params.shared_augmentation == PAPER_AUGMENTATION
    assert parse_params(changed("augmentation", "paper")).shared_augmentation == PAPER_AUGMENTATION


PUBLISHED_RECIPES = {  # optimizer's learning rate, early stopping's patience, plateau's factor and patience
    "model_1": (0.0001, None, None),
    "model_2": (0.001, 5, (0.1, 3)),
    "model_3": (0.0001, 5, None),
    "model_4": (0.001, 5, (0.1, 3)),
    "model_5": (0.0001, None, None),
}


@pytest.mark.parametrize("model", PUBLISHED_RECIPES)
def test_under_the_paper_profile_each_recipe_is_the_published_one(model):
    recipe = parse_params(changed("profile", "paper")).recipe(model)
    stop, plateau = recipe.early_stopping, recipe.reduce_learning_rate
    assert (recipe.optimizer.name, recipe.epochs, recipe.batch_size) == ("adam", 15, 64)
    assert recipe.batches_per_epoch == "all"
    assert recipe.augmentation == PAPER_AUGMENTATION
    assert recipe.batch_normalization_momentum is None
    assert stop is None or (stop.monitor == "val_loss" and stop.restore_best_weights)
    found = (recipe.optimizer.learning_rate, stop and stop.patience, plateau and (plateau.factor, plateau.patience))
    assert found == PUBLISHED_RECIPES[model]


# --- what is refused ---

MODEL = ("models", "model_1")
DEMO = ("profiles", "demo")
REFUSED: dict[str, tuple[tuple[Any, ...], list[str]]] = {
    # what is wrong: (path and value), what the one line of the message must name
    "unknown profile": (("profile", "demmo"), ["profile", "'demmo'", "did you mean 'demo'", "demo, paper"]),
    "misspelt top key": (
        ("sede", 1),
        [
            "'sede'",
            "did you mean 'seed'",
            "known: profile, profiles, seed, determinism, devices, augmentation, champion, replicates, sweeps, "
            "lineups, active, models",
        ],
    ),
    "misspelt key of a model": (
        (*MODEL, "epohcs", 3),
        ["models.model_1", "'epohcs'", "did you mean 'epochs'", "batch_size"],
    ),
    "misspelt key of an optimizer": (
        (*MODEL, "optimizer", {"name": "adam", "learning_rate": 0.1, "momentun": 0.9}),
        ["models.model_1.optimizer", "'momentun'", "known: name, learning_rate"],
    ),
    "misspelt key of a dataset": (
        (*DEMO, "dataset", "arcive", "a.zip"),
        ["profiles.demo.dataset", "'arcive'", "did you mean 'archive'"],
    ),
    "misspelt key of augmentation": (
        ("augmentation", "rotation_degree", 3),
        ["augmentation", "'rotation_degree'", "did you mean 'rotation_degrees'"],
    ),
    "key that is a number": ((7, 1), ["unknown key '7'"]),
    "negative epochs": ((*MODEL, "epochs", -1), ["models.model_1.epochs", "greater than or equal to 1", "got -1"]),
    "no epochs at all": ((*DEMO, "training", "epochs", 0), ["profiles.demo.training.epochs", "equal to 1", "got 0"]),
    "text for a number": ((*MODEL, "batch_size", "many"), ["models.model_1.batch_size", "integer", "got 'many'"]),
    "number for text": (("profile", 3), ["profile", "string", "got 3"]),
    "fraction for a count": ((*MODEL, "epochs", 1.5), ["models.model_1.epochs", "integer", "got 1.5"]),
    "bool for a count": ((*MODEL, "epochs", True), ["models.model_1.epochs", "integer", "got True"]),
    "bool for a rate": (
        (*MODEL, "optimizer", "learning_rate", True),
        ["models.model_1.optimizer.learning_rate", "number", "got True"],
    ),
    "number for a bool": (("augmentation", "horizontal_flip", 1), ["augmentation.horizontal_flip", "bool", "got 1"]),
    "words for a rate": (
        (*MODEL, "optimizer", "learning_rate", "small"),
        ["models.model_1.optimizer.learning_rate", "number", "got 'small'"],
    ),
    "learning rate of zero": (
        (*MODEL, "optimizer", "learning_rate", 0),
        ["models.model_1.optimizer.learning_rate", "greater than 0", "got 0"],
    ),
    "infinite learning rate": (
        (*MODEL, "optimizer", "learning_rate", float("inf")),
        ["models.model_1.optimizer.learning_rate", "got inf"],
    ),
    "learning rate that is no number": (
        (*MODEL, "optimizer", "learning_rate", float("nan")),
        ["models.model_1.optimizer.learning_rate", "got nan"],
    ),
    "unknown optimizer": (
        (*MODEL, "optimizer", "name", "adamm"),
        ["models.model_1.optimizer.name", "'adam', 'adamw', 'sgd' or 'rmsprop'", "got 'adamm'"],
    ),
    "unknown preprocessing": (
        (*MODEL, "preprocessing", "scale"),
        ["models.model_1.preprocessing", "'rescale', 'caffe', 'tf' or 'none'", "got 'scale'"],
    ),
    "zoom reversed": (("augmentation", "zoom", [1.2, 0.8]), ["augmentation.zoom", "low <= high", "[1.2, 0.8]"]),
    "zoom of zero": (("augmentation", "zoom", [0, 1]), ["augmentation.zoom", "0 < low", "[0.0, 1.0]"]),
    "zoom as text": (("augmentation", "zoom", ["0.8", 1.2]), ["augmentation.zoom", "number", "got '0.8'"]),
    "zoom of one number": (("augmentation", "zoom", [0.8]), ["augmentation.zoom"]),
    "brightness reversed": (("augmentation", "brightness", [2, 1]), ["augmentation.brightness", "[2.0, 1.0]"]),
    "shear of a right angle": (("augmentation", "shear_degrees", 90), ["augmentation.shear_degrees", "less than 90"]),
    "unknown determinism": (("determinism", "fats"), ["determinism", "'exact' or 'fast'", "did you mean 'fast'"]),
    "devices that are a word": (("devices", "al"), ["devices", "'all'", "got 'al'"]),
    "no device": (("devices", 0), ["devices", "equal to 1", "got 0"]),
    "a batch that the devices cannot share": (
        ("devices", 3),
        ["models.model_1.batch_size", "batches of 16 images", "3 `devices`", "multiple of 3"],
    ),
    "no determinism": (("determinism", REMOVED), ["determinism", "required"]),
    "momentum of adam": (
        (*MODEL, "optimizer", {"name": "adam", "learning_rate": 0.1, "momentum": 0.9}),
        ["models.model_1.optimizer", "belong to sgd, not to adam"],
    ),
    "nesterov without momentum": (
        (*MODEL, "optimizer", {"name": "sgd", "learning_rate": 0.1, "nesterov": True}),
        ["models.model_1.optimizer", "needs a `momentum` above 0"],
    ),
    "negative weight decay": (
        (*MODEL, "optimizer", {"name": "adamw", "learning_rate": 0.1, "weight_decay": -0.1}),
        ["models.model_1.optimizer.weight_decay", "equal to 0", "got -0.1"],
    ),
    "clipping at nothing": (
        (*MODEL, "optimizer", {"name": "adam", "learning_rate": 0.1, "clip_norm": 0}),
        ["models.model_1.optimizer.clip_norm", "greater than 0", "got 0"],
    ),
    "averages that never move": (
        (*MODEL, "optimizer", {"name": "adam", "learning_rate": 0.1, "ema_momentum": 1.0}),
        ["models.model_1.optimizer.ema_momentum", "less than 1", "got 1.0"],
    ),
    "labels all smooth": ((*MODEL, "label_smoothing", 1.0), ["models.model_1.label_smoothing", "less than 1"]),
    "unknown precision": (
        (*MODEL, "precision", "mixed_float61"),
        ["models.model_1.precision", "did you mean 'mixed_float16'"],
    ),
    "unknown part to train": ((*MODEL, "trainable", "heat"), ["models.model_1.trainable", "did you mean 'head'"]),
    "negative holdout": ((*MODEL, "holdout_per_class", -1), ["models.model_1.holdout_per_class", "equal to 0"]),
    "misspelt key of a schedule": (
        (*MODEL, "learning_rate_schedule", {"warmup_epoch": 1}),
        ["models.model_1.learning_rate_schedule", "did you mean 'warmup_epochs'"],
    ),
    "unknown decay": (
        (*MODEL, "learning_rate_schedule", {"decay": "cosin"}),
        ["models.model_1.learning_rate_schedule.decay", "did you mean 'cosine'"],
    ),
    "no decay but a final fraction": (
        (*MODEL, "learning_rate_schedule", {"decay": "none", "warmup_epochs": 1, "final_fraction": 0.5}),
        ["models.model_1.learning_rate_schedule", "`decay: none` is for a warm-up only"],
    ),
    "a schedule of nothing": (
        (*MODEL, "learning_rate_schedule", {"decay": "none"}),
        ["models.model_1.learning_rate_schedule", "`decay: none` is for a warm-up only"],
    ),
    "all images held out": (
        (*MODEL, "holdout_per_class", 40),
        ["models.model_1.holdout_per_class", "40 of 40 training images"],
    ),
    "a head on random weights": (
        ("models", "model_5", "trainable", "head"),
        ["models.model_5.trainable", "backbone of random weights", "profiles.demo.training"],
    ),
    "fine-tuning of random weights": (
        (*MODEL, "fine_tuning", TUNING),
        ["models.model_1", "`fine_tuning` needs `weights`", "random weights"],
    ),
    "fine-tuning of a head alone": (
        ("models", "vgg16", "trainable", "head"),
        ["models.vgg16", "`trainable: head` never trains the backbone", "keep one"],
    ),
    "no epoch of the head": (
        ("models", "vgg16", "fine_tuning", TUNING | {"head_epochs": 0}),
        ["models.vgg16.fine_tuning.head_epochs", "equal to 1", "got 0"],
    ),
    "none of the backbone": (
        ("models", "vgg16", "fine_tuning", TUNING | {"backbone_share": 0}),
        ["models.vgg16.fine_tuning.backbone_share", "greater than 0", "got 0"],
    ),
    "misspelt key of fine-tuning": (
        ("models", "vgg16", "fine_tuning", {"head_epoch": 1, "learning_rate": 0.1}),
        ["models.vgg16.fine_tuning", "'head_epoch' (did you mean 'head_epochs'?)"],
    ),
    "no path of weights": (("models", "model_5", "weights", ""), ["models.model_5.weights", "at least 1 character"]),
    "two schedules": (
        ("models", "model_2", "learning_rate_schedule", {"decay": "cosine"}),
        ["models.model_2", "both set the learning rate; keep one"],
    ),
    "warm-up that never ends": (
        (*MODEL, "learning_rate_schedule", {"warmup_epochs": 6}),
        ["models.model_1.learning_rate_schedule.warmup_epochs", "6 is not below the 6 epochs"],
    ),
    "more epochs of smaller images than epochs": (
        (*MODEL, "image_size_schedule", [{"epochs": 5, "size": 32}, {"epochs": 2, "size": 48}]),
        ["models.model_1.image_size_schedule: has 7 epochs, more than the 6 of the training"],
    ),
    "very many epochs of small images": (
        (*MODEL, "image_size_schedule", [{"epochs": 10**12, "size": 32}]),
        ["models.model_1.image_size_schedule: has 1000000000000 epochs, more than the 6 of the training"],
    ),
    "images too small": (
        (*MODEL, "image_size_schedule", [{"epochs": 1, "size": 15}]),
        ["models.model_1.image_size_schedule.0.size", "equal to 16", "got 15"],
    ),
    "images larger than the dataset's": (
        (*MODEL, "image_size_schedule", [{"epochs": 1, "size": 32}, {"epochs": 1, "size": 65}]),
        ["models.model_1.image_size_schedule.1.size", "equal to 64", "got 65"],
    ),
    "no epoch of smaller images": (
        (*MODEL, "image_size_schedule", [{"epochs": 0, "size": 32}]),
        ["models.model_1.image_size_schedule.0.epochs", "equal to 1", "got 0"],
    ),
    "misspelt key of a size": (
        (*MODEL, "image_size_schedule", [{"epoch": 1, "size": 32}]),
        ["models.model_1.image_size_schedule.0", "did you mean 'epochs'"],
    ),
    "statistics of no image": (
        (*MODEL, "reestimate_batch_normalization", 0),
        ["models.model_1.reestimate_batch_normalization", "equal to 1", "got 0"],
    ),
    "statistics of a flag": (
        (*MODEL, "reestimate_batch_normalization", True),
        ["models.model_1.reestimate_batch_normalization", "got True"],
    ),
    "erasing more than all": (("augmentation", {"erasing": 1.5}), ["augmentation.erasing", "less than or equal to 1"]),
    "padding beyond half of the image": (("augmentation", {"crop_padding": 33}), ["augmentation.crop_padding", "32"]),
    "unknown augmentation": (
        ("augmentation", "papr"),
        ["augmentation", "'none', 'paper', 'crop_flip' or 'modern'", "got 'papr'"],
    ),
    "batches per epoch by another word": (
        (*MODEL, "batches_per_epoch", "every"),
        ["models.model_1.batches_per_epoch", "'all'", "got 'every'"],
    ),
    "no batches per epoch": (
        (*MODEL, "batches_per_epoch", 0),
        ["models.model_1.batches_per_epoch", "equal to 1", "got 0"],
    ),
    "seed too large": (("seed", 2**32), ["seed", "less than 4294967296", "got 4294967296"]),
    "negative seed": (("seed", -1), ["seed", "equal to 0", "got -1"]),
    "active names no block": (
        ("active", ["model_1", "modle_2"]),
        ["active", "'modle_2'", "did you mean 'model_2'", "model_1, model_2"],
    ),
    "active names a model twice": (("active", ["model_1", "model_1"]), ["active: duplicate model_1"]),
    "a lineup names no block": (
        ("lineups", "from_scratch", ["model_1", "resnet81"]),
        ["lineups.from_scratch", "'resnet81'", "did you mean 'resnet18'", "model_1, model_2"],
    ),
    "a lineup names a model twice": (
        ("lineups", "paper", ["model_1", "model_1"]),
        ["lineups.paper: duplicate model_1"],
    ),
    "a lineup is empty": (("lineups", "paper", []), ["lineups.paper", "at least 1"]),
    "null for a profile's mirror images": (
        (*DEMO, "training", "flip_at_test", None),
        ["profiles.demo.training", "`flip_at_test` may not be null"],
    ),
    "active is empty": (("active", []), ["active", "at least 1"]),
    "active is text": (("active", "model_1"), ["active", "got 'model_1'"]),
    "model name that is no folder name": (
        ("models", "../up", VALUES["models"]["model_1"]),
        ["models", "^[a-z][a-z0-9_]*$", "got '../up'"],
    ),
    "null for epochs of a profile": (
        (*DEMO, "training", "epochs", None),
        ["profiles.demo.training", "`epochs` may not be null", "remove the line"],
    ),
    "null for the learning rate of a profile": (
        (*DEMO, "training", "learning_rate", None),
        ["profiles.demo.training", "`learning_rate` may not be null"],
    ),
    "null for an optimizer": ((*MODEL, "optimizer", None), ["models.model_1.optimizer", "got None"]),
    "null for a batch size": ((*MODEL, "batch_size", None), ["models.model_1.batch_size", "got None"]),
    "null for all models": (("models", None), ["models", "got None"]),
    "no optimizer": ((*MODEL, "optimizer", REMOVED), ["models.model_1.optimizer", "required"]),
    "no seed": (("seed", REMOVED), ["seed", "required"]),
    "unknown scheme of an address": (
        ("profiles", "paper", "dataset", "urls", ["ftp://example.org/a.zip"]),
        ["profiles.paper.dataset.urls", "'ftp://example.org/a.zip'", "http://, https:// or file://"],
    ),
    "dataset without a source": (
        ("profiles", "paper", "dataset", "urls", []),
        ["profiles.paper.dataset", "`urls`", "`archive`", "`digits`"],
    ),
    "md5 of another length": (
        ("profiles", "paper", "dataset", "md5", "90528d"),
        ["profiles.paper.dataset.md5", "got '90528d'"],
    ),
    "last epoch, and the best weights restored": (
        ("models", "model_2", "reported_epoch", "last"),
        ["models.model_2", "`reported_epoch: last`", "restore_best_weights", "change one"],
    ),
    "early stopping on an unknown figure": (
        ("models", "model_2", "early_stopping", "monitor", "val_acc"),
        ["models.model_2.early_stopping.monitor", "'val_accuracy'", "got 'val_acc'"],
    ),
    "plateau that raises the rate": (
        ("models", "model_2", "reduce_learning_rate", "factor", 1),
        ["models.model_2.reduce_learning_rate.factor", "less than 1", "got 1"],
    ),
    "more images of a class than there are": (
        ("profiles", "demo", "dataset", "images_per_class", "train", 5000),
        ["profiles.demo.dataset", "images_per_class.train is 5000", "`expect` has 100"],
    ),
    "batch normalization without memory of the new": (
        (*DEMO, "training", "batch_normalization_momentum", 1),
        ["profiles.demo.training.batch_normalization_momentum", "less than 1", "got 1"],
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_one_line_names_the_key_the_value_and_what_is_allowed(kind, tmp_path):
    edit, expected = REFUSED[kind]
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(changed(*edit)), encoding="utf-8")
    message = message_of(lambda: load_params(path))
    assert len(message.splitlines()) == 1
    assert message.startswith(f"{path}: ")
    assert [fragment for fragment in expected if fragment not in message] == []


def test_a_model_without_epochs_is_refused_if_its_profile_sets_none():
    values = changed("models", "model_1", "epochs", REMOVED)
    assert parse_params(values).recipe("model_1").epochs == VALUES["profiles"]["demo"]["training"]["epochs"]
    del values["profiles"]["demo"]["training"]["epochs"]
    message = message_of(lambda: parse_params(values))
    assert "models.model_1.epochs" in message
    assert "profiles.demo.training" in message


def test_each_error_has_its_own_line():
    values = changed("seed", -1)
    values["models"]["model_1"]["epochs"] = -1
    values["models"]["model_2"]["batch_size"] = "x"
    lines = message_of(lambda: parse_params(values)).splitlines()
    assert len(lines) == 3
    for key in ("seed", "models.model_1.epochs", "models.model_2.batch_size"):
        assert sum(f" {key}: " in line for line in lines) == 1


TEXTS = {
    "empty": ("", "expected keys and values"),
    "only comments": ("# nothing\n", "expected keys and values"),
    "a list": ("- profile\n", "expected keys and values, got list"),
    "a word": ("profile\n", "expected keys and values, got str"),
    "no YAML": ("profile: [demo\nseed: 1", "line 2"),
    "a tab": ("profile:\n\tdemo: 1\n", "line 2"),
    "a key twice": ("seed: 1\nprofile: demo\nseed: 2\n", "line 3: duplicate key 'seed': keep one of the two"),
    "a nested key twice": ("models:\n  a: {epochs: 1, epochs: 2}\n", "line 2: duplicate key 'epochs'"),
    "two documents": ("seed: 1\n---\nseed: 2\n", "another document"),
    "an undefined alias": ("seed: *other\n", "line 1: found undefined alias 'other'"),
    "a Python object": ("seed: !!python/object/apply:os.getcwd []\n", "line 1"),
    "a list as a key": ("? [a]\n: b\n", "unknown key"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_without_a_mapping_is_one_line_with_its_file(kind, tmp_path):
    text, expected = TEXTS[kind]
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    message = message_of(lambda: load_params(path))
    assert len(message.splitlines()) == 1
    assert message.startswith(str(path))
    assert expected in message


@pytest.mark.parametrize(
    "line",
    [
        "seed: !!timestamp soon",
        "seed: !!bool maybe",
        "seed: !!int ''",
        "seed: !!float ''",
        "seed: !!map word",
        pytest.param(f"seed: {'9' * 5000}", id="seed of 5,000 digits"),
        pytest.param(f"seed: 0x{'f' * 5000}", id="seed of 5,000 hexadecimal digits"),
        pytest.param('"\\uD800": 1', id="key that is no character"),
    ],
)
def test_values_on_which_the_yaml_library_crashes_are_user_errors(line, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.read_text(encoding="utf-8").replace("seed: 1\n", f"{line}\n"), encoding="utf-8")
    assert message_of(lambda: load_params(path)).startswith(str(path))


def test_half_a_character_as_a_name_is_a_user_error():
    message_of(lambda: parse_params(changed("profile", "\ud800")))


def test_the_error_for_a_missing_file_names_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = message_of(load_params)
    assert "params.yaml" in message
    assert str(tmp_path) in message
    assert "root" in message


def test_a_folder_and_a_binary_file_are_refused(tmp_path):
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert str(tmp_path) in message_of(lambda: load_params(tmp_path))
    assert str(binary) in message_of(lambda: load_params(binary))


def test_windows_line_ends_and_a_byte_order_mark_are_accepted(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + COMMITTED.read_bytes().replace(b"\n", b"\r\n"))
    assert load_params(path) == load_params(COMMITTED)


def test_params_cannot_be_changed():
    params = load_params(COMMITTED)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        params.seed = 2
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        params.models["model_1"].optimizer.learning_rate = 1.0


def test_nearest_returns_nothing_if_no_word_is_similar():
    assert nearest("epohs", ["epochs", "seed"]) == " (did you mean 'epochs'?)"
    assert nearest("zzz", ["epochs", "seed"]) == ""


# --- the committed blocks ---


def test_active_can_refer_to_a_lineup():
    text = COMMITTED.read_text(encoding="utf-8")
    for name, members in VALUES["lineups"].items():
        edited = text.replace("\nactive: *paper ", f"\nactive: *{name} ")
        assert (edited != text) == (name != "paper")
        assert list(parse_params(yaml.safe_load(edited)).active) == members
    assert VALUES["active"] == VALUES["lineups"]["paper"]


def variants() -> dict[str, tuple[str, set[str]]]:
    return {
        "model_2_as_published": ("model_2", {"epochs", "keeps"}),
        "model_3_as_published": ("model_3", {"batches_per_epoch"}),
        "model_3_last_epoch": ("model_3", {"early_stopping"}),
        "model_4_as_intended": ("model_4", {"optimizer"}),
        "model_5_best_epoch": ("model_5", {"reported_epoch"}),
        "model_5_caffe": ("model_5", {"preprocessing"}),
        "resnet18_100_epochs": ("resnet18", {"epochs", "augmentation", "learning_rate_schedule", "keeps"}),
        "model_5_corrected": ("model_5", {"build", "preprocessing", "optimizer", "fine_tuning"}),
        "vgg16_64": ("vgg16", {"build", "fine_tuning", "augmentation", "epochs", "keeps"}),
    }


def test_only_the_active_lineup_uses_a_yaml_anchor():
    """`dvc exp run -S` loses its edit where two blocks share a mapping; a list is replaced as a whole."""
    events = yaml.parse(COMMITTED.read_text(encoding="utf-8"))
    assert [event.anchor for event in events if isinstance(event, yaml.AliasEvent)] == ["paper"]


TRANSFER = {"vgg16", "inception_v3", "efficientnet_b0", "efficientnet_v2_s", "convnext_tiny"}


def test_every_inactive_block_is_a_known_variant():
    params = parse_params(VALUES)
    stronger = {"model_4_tuned", "resnet18", "fast_15_minutes", "fast_30_minutes", "fast_3_hours"}
    assert set(params.models) - set(params.active) == set(variants()) | stronger | TRANSFER


def test_the_transfer_models_differ_only_in_backbone_and_size():
    blocks = {
        name: parse_params(VALUES).models[name].model_dump(exclude={"architecture", "build"}) for name in TRANSFER
    }
    assert all(block == blocks["vgg16"] for block in blocks.values())


@pytest.mark.parametrize("variant", variants())
def test_a_variant_differs_from_its_model_only_in_its_quirk(variant):
    base, quirk = variants()[variant]
    params = parse_params(VALUES)
    one, other = params.models[base].model_dump(), params.models[variant].model_dump()
    assert {key for key in one if one[key] != other[key]} == quirk


def replicated(models: list[str], seeds: list[int]) -> dict[str, Any]:
    return changed("replicates", {"models": models, "seeds": seeds})


@pytest.mark.parametrize(
    ("models", "seeds", "expected"),
    [
        (["model_22"], [2], "replicates.models: 'model_22' is not active (did you mean 'model_2'?)"),
        (["model_3_as_published"], [2], "replicates.models: 'model_3_as_published' is not active"),
        (["model_2", "model_2"], [2], "replicates.models: duplicate model_2"),
        (["model_2"], [2, 2], "replicates.seeds: duplicate 2"),
        (["model_2"], [VALUES["seed"]], f"replicates.seeds: {VALUES['seed']} is `seed`"),
        (["model_2"], [-1], "replicates.seeds.0: Input should be greater than or equal to 0, got -1"),
    ],
)
def test_invalid_replicates_are_refused(models, seeds, expected):
    assert expected in message_of(lambda: parse_params(replicated(models, seeds)))


def test_an_unknown_model_is_refused_with_the_nearest_name():
    message = message_of(lambda: load_params(COMMITTED).job("model_22"))
    assert "'model_22'" in message
    assert "did you mean 'model_2'" in message


# --- any content of the file gives a UserError, or params ---

LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.sampled_from(["all", "paper", "1e-3", "imagenet", "model_1", "0.001", "<all>", "[key]", "{key}"]),
)  # fmt: skip
KEYS = st.one_of(st.sampled_from([*VALUES, "name", "epochs", "weights"]), st.text(max_size=5), st.integers())
STRUCTURES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


def places(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items: Any = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [path] * bool(path) + [place for key, value in items for place in places(value, (*path, key))]


def refused_or_loaded(path: Path) -> None:
    message = str(path)
    try:
        params = load_params(path)
        for model in params.models:
            params.recipe(model)
            params.overrides(model)
    except UserError as error:
        message = str(error)
    assert message.startswith(str(path))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "params.yaml"


@settings(deadline=None, max_examples=80)
@given(text=st.text(st.characters(codec="utf-8")) | st.text("-:?[]{}!&*|>%@'\"# \n\tae1.~<", max_size=40))
def test_any_text_is_a_user_error(text, path):
    path.write_text(text, encoding="utf-8", newline="")
    refused_or_loaded(path)


@settings(deadline=None, max_examples=60)
@given(values=st.dictionaries(KEYS, STRUCTURES, max_size=6))
def test_any_yaml_structure_is_refused_or_loaded(values, path):
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    refused_or_loaded(path)


@settings(deadline=None, max_examples=80)
@given(place=st.sampled_from(places(VALUES)), value=STRUCTURES)
def test_any_value_for_any_key_of_the_committed_file_is_refused_or_loaded(place, value, path):
    path.write_text(yaml.safe_dump(changed(*place, value)), encoding="utf-8")
    refused_or_loaded(path)


@pytest.mark.parametrize("written", ["1e-05", "1e-5", "1.e-5", "0.00001", "1.0e-5", "1E-5", "10e-6", "+1e-05"])
def test_a_small_number_may_be_written_as_dvc_and_people_write_it(written, tmp_path):
    """`dvc exp run -S ...=0.00001` writes 1e-05, which plain PyYAML takes for text."""
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.read_text().replace("learning_rate: 0.0001}", f"learning_rate: {written}}}"))
    assert load_params(path).models["model_1"].optimizer.learning_rate == pytest.approx(1e-5)


@pytest.mark.parametrize(
    ("override", "changed_parts"),
    [
        ("active=[model_1]", {"active"}),
        ("models.resnet18.optimizer.learning_rate=0.1", {"models.resnet18"}),
        ("models.model_4_tuned.optimizer.learning_rate=0.1", {"models.model_4_tuned"}),
    ],
)
def test_an_experiment_changes_only_the_keys_that_it_sets(override, changed_parts, tmp_path):
    """`dvc exp run -S` edits the file in place, where what an anchor shares would change in every place."""
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.read_text(encoding="utf-8"), encoding="utf-8")
    apply_overrides(path, [override])
    before, after = load_params(COMMITTED), load_params(path)
    assert after.lineups == before.lineups
    found = {"active"} if after.active != before.active else set()
    found |= {f"models.{name}" for name in before.models if after.models[name] != before.models[name]}
    assert found == changed_parts
