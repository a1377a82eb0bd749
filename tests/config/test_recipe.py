"""The recipe of a model: its block, with what the profile overrides."""

from collections.abc import Mapping
from typing import Any

import pytest
from committed_params import TUNING, VALUES, changed, message_of

from tiny_imagenet.config import recipe
from tiny_imagenet.config.params import Params, parse_params
from tiny_imagenet.config.recipe import NO_AUGMENTATION, PAPER_AUGMENTATION


def under(training: Mapping[str, Any], model: str = "model_5") -> tuple[Params, dict[str, Any], dict[str, Any]]:
    """Return the params under a profile's `training`, the model's own values and those that run."""
    params = parse_params(changed("profiles", "demo", "training", dict(training)))
    return params, params.models[model].model_dump(), params.recipe(model).model_dump()


def test_without_changes_the_recipe_is_the_block_with_the_shared_augmentation():
    params, block, recipe = under({})
    assert recipe == block | {"augmentation": PAPER_AUGMENTATION.model_dump(), "batch_normalization_momentum": None}
    assert params.overrides("model_5") == {}


@pytest.mark.parametrize(
    ("key", "value", "own"),
    [("epochs", 3, 15), ("batch_size", 7, 64), ("batch_normalization_momentum", 0.5, 0.99), ("weights", None, None)],
)
def test_a_profile_overrides_the_keys_that_it_sets_and_no_others(key, value, own):
    params, block, recipe = under({key: value}, "model_4")
    rest = block | {"augmentation": PAPER_AUGMENTATION.model_dump(), "batch_normalization_momentum": None}
    assert recipe == rest | {key: value}
    assert params.overrides("model_4") == ({key: (own, value)} if own != value else {})


@pytest.mark.parametrize(
    ("key", "own", "value"), [("batch_normalization_momentum", 0.9, 0.5), ("flip_at_test", True, False)]
)
def test_normalization_and_mirrors_of_a_block_apply_unless_a_profile_sets_them(key, own, value):
    params, block, recipe = under({}, "resnet18")
    assert block[key] == recipe[key] == own
    params, _, recipe = under({key: value}, "resnet18")
    assert recipe[key] == value
    assert params.overrides("resnet18") == {key: (own, value)}


def test_a_warm_up_that_is_too_long_is_refused_for_active_models_only():
    """`epochs=1` on a command line, to try something, is not refused for a model that nobody trains."""
    values = changed("profiles", "demo", "training", "epochs", 1)
    assert parse_params(values).recipe("resnet18").learning_rate_schedule.warmup_epochs == 1
    message = message_of(lambda: parse_params(values | {"active": ["resnet18"]}))
    assert "models.resnet18.learning_rate_schedule.warmup_epochs: 1 is not below the 1 epochs" in message


@pytest.mark.parametrize("model", ["model_4_tuned", "resnet18"])
def test_weight_decay_is_ten_times_the_published_because_momentum_does_not_add_it_up(model):
    """Classic SGD decays by rate x decay / (1 - momentum) a step in the end; Keras by rate x decay."""
    optimizer = parse_params(VALUES).models[model].optimizer
    assert (optimizer.name, optimizer.nesterov) == ("sgd", True)
    assert optimizer.weight_decay * (1 - optimizer.momentum) == pytest.approx(5e-4)


def test_a_profiles_learning_rate_keeps_each_models_optimizer():
    params, block, recipe = under({"learning_rate": 0.5}, "model_2")
    assert recipe["optimizer"] == block["optimizer"] | {"learning_rate": 0.5}
    assert recipe["early_stopping"] == block["early_stopping"]
    assert params.overrides("model_2") == {"learning_rate": (0.001, 0.5)}


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("none", NO_AUGMENTATION),
        ({"rotation_degrees": 10}, NO_AUGMENTATION.model_copy(update={"rotation_degrees": 10.0})),
    ],
)
def test_a_profiles_augmentation_replaces_the_shared_one_and_unnamed_parts_are_off(choice, expected):
    params, _, _ = under({"augmentation": choice})
    assert params.recipe("model_1").augmentation == expected
    assert params.shared_augmentation == PAPER_AUGMENTATION
    assert params.overrides("model_1") == {"augmentation": (PAPER_AUGMENTATION, expected)}


def test_writing_the_same_value_in_a_profile_is_no_override():
    params, _, _ = under({"epochs": 15, "augmentation": "paper"})
    assert params.overrides("model_1") == {}


def test_a_profiles_weights_apply_only_to_models_that_have_weights():
    params, _, _ = under({"weights": None})
    assert params.recipe("model_5").weights is None
    assert params.overrides("model_5") == {"weights": ("imagenet", None)}
    assert params.overrides("model_1") == {}
    params, _, _ = under({"weights": "/somewhere/weights.h5"})
    assert params.recipe("model_5").weights == "/somewhere/weights.h5"
    assert params.recipe("model_1").weights is None


def test_without_weights_there_is_one_phase_and_it_is_reported():
    params, block, _ = under({"weights": None}, "vgg16")
    assert block["fine_tuning"] == {"backbone_share": 1.0, "batch_normalization": "frozen"} | TUNING
    assert params.recipe("vgg16").fine_tuning is None
    assert params.overrides("vgg16")["fine_tuning"] == ("two phases", "one phase of all layers")


def test_with_weights_the_phases_are_no_override():
    params, _, _ = under({"weights": "/somewhere/weights.h5"}, "vgg16")
    assert params.recipe("vgg16").fine_tuning == params.models["vgg16"].fine_tuning
    assert set(params.overrides("vgg16")) == {"weights"}


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [
        (3, "models.vgg16.fine_tuning.head_epochs: 3 is not below the 3 epochs"),
        (4, "models.vgg16.learning_rate_schedule.warmup_epochs: 1 is not below the 1 epochs of the training after 3"),
        (5, None),
    ],
)
def test_both_phases_must_fit_into_the_epochs_of_an_active_model(epochs, expected):
    values = changed("profiles", "demo", "training", {"epochs": epochs})
    parse_params(values)  # not active
    values["active"] = ["vgg16"]
    if expected is None:
        assert parse_params(values).recipe("vgg16").epochs == epochs
    else:
        assert expected in message_of(lambda: parse_params(values))


def test_a_profile_that_is_not_chosen_changes_nothing():
    one = parse_params(VALUES)
    other = parse_params(changed("profiles", "paper", "training", {"epochs": 99, "batch_size": 99}))
    assert [one.recipe(model) for model in one.active] == [other.recipe(model) for model in other.active]


def test_a_profile_does_not_override_the_keys_that_a_block_keeps():
    values = changed("models", "model_2_as_published", "keeps", ["epochs", "weights"])
    params = parse_params(values)
    assert params.recipe("model_2_as_published").epochs == 20
    assert params.recipe("model_2_as_published").batch_size == params.training.batch_size
    assert "epochs" not in params.overrides("model_2_as_published")
    assert params.recipe("model_2").epochs == params.training.epochs


def test_a_key_that_a_block_keeps_must_be_set():
    values = changed("models", "model_2_as_published", "epochs", None)
    message = message_of(lambda: parse_params(values))
    assert "models.model_2_as_published.epochs: missing; set it here or in profiles.demo.training" in message


@pytest.mark.parametrize(
    ("section", "defaults"),
    [
        (
            recipe.Augmentation,
            {"rotation_degrees": 0, "shear_degrees": 0, "zoom": (1, 1), "shift": 0, "horizontal_flip": False,
             "brightness": (1, 1), "crop_padding": 0, "trivial_augment": False, "erasing": 0, "mixup": 0, "cutmix": 0},
        ),
        (
            recipe.Optimizer,
            {"momentum": None, "nesterov": False, "weight_decay": None, "clip_norm": None, "ema_momentum": None},
        ),
        (recipe.LearningRateSchedule, {"decay": "cosine", "warmup_epochs": 0, "final_fraction": 0}),
        (recipe.EarlyStopping, {"monitor": "val_loss", "restore_best_weights": True}),
        (recipe.ReduceLearningRate, {"monitor": "val_loss"}),
        (recipe.FineTuning, {"backbone_share": 1, "batch_normalization": "frozen"}),
        (
            recipe.ModelParams,
            {"build": {}, "trainable": "all", "precision": "float32", "label_smoothing": 0, "batch_size": 64,
             "batches_per_epoch": "all", "flip_at_test": False, "keeps": (), "holdout_per_class": 0,
             "reported_epoch": "recipe", "paper_protocol_every_epoch": False} | dict.fromkeys((
                 "preprocessing", "weights", "fine_tuning", "learning_rate_schedule", "augmentation", "epochs",
                 "image_size_schedule", "batch_normalization_momentum", "reestimate_batch_normalization",
                 "early_stopping", "reduce_learning_rate",
             )),
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_what_is_not_set_is_off_or_as_keras_has_it(section, defaults):
    found = {name: field.get_default(call_default_factory=True) for name, field in section.model_fields.items()
             if not field.is_required()}  # fmt: skip
    assert found == defaults
