"""The trials of a sweep: their recipes, the block to write back, and what is refused before the start."""

import json
from typing import Any, get_args

import pytest
from made_results import VALUES

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import Params, parse_params
from tiny_imagenet.config.recipe import Augmentation, ProfileKey
from tiny_imagenet.parallel.sweep.plan import Trial, plan


def params(search: dict[str, Any], model: str = "model_2", **changes: Any) -> Params:
    values = json.loads(json.dumps(VALUES))
    trials = 1 if all("grid" in choice for choice in search.values()) else 3
    sweep = {"model": model, "epochs": 4, "trials": trials, "search": search}
    return parse_params(values | {"sweeps": {"rates": sweep | changes}})


def only(search: dict[str, Any], model: str = "model_2", **changes: Any) -> Trial:
    (trial,) = plan(params({key: {"grid": [value]} for key, value in search.items()}, model, **changes), "rates").trials
    return trial


def test_a_trial_trains_the_block_with_its_values_for_the_epochs_of_the_sweep_on_what_is_not_held_out():
    given = params({"optimizer.learning_rate": {"loguniform": [0.001, 0.01]}}, holdout_per_class=7)
    before = given.recipe("model_2")
    trials = plan(given, "rates").trials
    assert [trial.number for trial in trials] == [1, 2, 3]
    for trial in trials:
        rate = trial.values["optimizer.learning_rate"]
        expected = {
            "optimizer": before.optimizer.model_copy(update={"learning_rate": rate}),
            "epochs": 4,
            "holdout_per_class": 7,
            "keeps": ("epochs", "learning_rate"),
        }
        assert trial.recipe == before.model_copy(update=expected)


def test_nothing_is_held_out_if_validation_images_decide():
    assert only({"batch_size": 32}, metric="val_accuracy").recipe.holdout_per_class == 0


def test_a_profile_does_not_override_searched_keys():
    values = {"batch_size": 33, "augmentation": "none", "optimizer.learning_rate": 0.5}
    recipe = only(values).recipe  # the demo sets its own batch size and augmentation
    assert (recipe.batch_size, recipe.optimizer.learning_rate) == (33, 0.5)
    assert recipe.augmentation == Augmentation()


def test_a_whole_optimizer_that_is_searched_keeps_its_learning_rate():
    values = json.loads(json.dumps(VALUES))
    values["profiles"]["demo"]["training"]["learning_rate"] = 0.5
    drawn = {"name": "sgd", "learning_rate": 0.03, "momentum": 0.9}
    sweep = {"model": "model_2", "epochs": 4, "search": {"optimizer": {"grid": [drawn]}}}
    given = parse_params(values | {"sweeps": {"rates": sweep}})
    assert given.recipe("model_2").optimizer.learning_rate == 0.5
    (trial,) = plan(given, "rates").trials
    assert trial.recipe.optimizer.model_dump(exclude_unset=True) == drawn
    assert trial.block["keeps"] == ["learning_rate"]  # the block keeps it under this profile too


def test_the_block_has_the_values_and_nothing_of_the_sweep():
    trial = only({"batch_size": 33, "build.dropout": 0.3})
    block = json.loads(json.dumps(VALUES["models"]["model_2"]))
    assert trial.block == block | {
        "build": block["build"] | {"dropout": 0.3}, "batch_size": 33, "keeps": ["batch_size"]
    }  # fmt: skip
    again = (
        params({"batch_size": {"grid": [1]}}).with_block_alone("model_2", trial.block, source="test").recipe("model_2")
    )
    assert (again.batch_size, again.build["dropout"], again.epochs) == (33, 0.3, 6)


def test_one_part_of_the_augmentation_leaves_the_others_of_the_profile():
    augmentation = only({"augmentation.mixup": 0.2}).recipe.augmentation
    shared = params({"batch_size": {"grid": [1]}}).recipe("model_2").augmentation
    assert augmentation == shared.model_copy(update={"mixup": 0.2})


def test_one_part_of_the_augmentation_leaves_none_of_a_block_that_the_profile_replaces():
    values = json.loads(json.dumps(VALUES))
    values["models"]["model_2"]["augmentation"] = {"mixup": 0.2}
    sweep = {"model": "model_2", "epochs": 4, "search": {"augmentation.shift": {"grid": [0.2]}}}
    given = parse_params(values | {"sweeps": {"rates": sweep}})
    (trial,) = plan(given, "rates").trials
    expected = given.recipe("model_2").augmentation.model_copy(update={"shift": 0.2})
    assert trial.recipe.augmentation == expected
    assert expected.mixup == 0


@pytest.mark.parametrize("key", sorted({*get_args(ProfileKey)} - {"epochs", "learning_rate", "flip_at_test"}))
def test_every_key_that_a_profile_sets_can_be_searched(key):
    values = json.loads(json.dumps(VALUES))
    other = {"batch_size": 8, "augmentation": "none", "weights": None, "batch_normalization_momentum": 0.9}[key]
    searched = {"batch_size": 16, "augmentation": "crop_flip", "weights": None, "batch_normalization_momentum": 0.5}
    values["profiles"]["demo"]["training"] = {key: other}
    sweep = {"model": "model_2", "epochs": 4, "search": {key: {"grid": [searched[key]]}}}
    (trial,) = plan(parse_params(values | {"sweeps": {"rates": sweep}}), "rates").trials
    assert key in trial.block["keeps"]
    if key not in ("augmentation", "weights"):
        assert getattr(trial.recipe, key) == searched[key]


def test_searching_other_keys_leaves_the_learning_rate_to_the_profile():
    assert "learning_rate" not in only({"optimizer.weight_decay": 0.1}).block.get("keeps", [])


@pytest.mark.parametrize(
    ("model", "search", "changes", "expected"),
    [
        ("resnet18", {"batch_size": 32}, {"epochs": 1}, "warmup_epochs"),
        ("efficientnet_b0", {"batch_size": 32, "weights": "imagenet"}, {"epochs": 1}, "head_epochs"),
    ],
)
def test_trials_of_a_model_that_is_not_active_are_checked_like_others(model, search, changes, expected):
    with pytest.raises(UserError, match=expected):
        only(search, model, **changes)


def test_a_section_that_the_block_lacks_is_added():
    schedule = only({"learning_rate_schedule.warmup_epochs": 2.0}, "model_1").recipe.learning_rate_schedule
    assert schedule is not None
    assert schedule.warmup_epochs == 2.0


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({"optimizer.lerning_rate": 0.1}, "models.model_2.optimizer: unknown key 'lerning_rate' (did you mean"),
        ({"optimizer.learning_rate": 11.0}, "models.model_2.optimizer.learning_rate"),
        ({"optimizer.momentum": 0.9}, "`momentum` and `nesterov` belong to sgd"),
        ({"build.filter": 3}, "models.model_2.build: unknown key 'filter'"),
        ({"build.dropout": "much"}, "models.model_2.build.dropout"),
        ({"architecture": "tow_conv"}, "unknown architecture 'tow_conv'"),
        ({"batch_size.of": 3}, "batch_size is 64, and has no key 'of'"),
        ({"learning_rate_schedule.warmup_epochs": 1.0}, "both set the learning rate"),
    ],
)
def test_a_trial_that_could_not_be_trained_is_refused_and_named(search, expected):
    with pytest.raises(UserError) as caught:
        only(search)
    assert expected in str(caught.value)
    assert str(caught.value).startswith("params.yaml: sweeps.rates.search, trial 1: ")


def test_a_sweep_holds_out_fewer_images_than_there_are():
    with pytest.raises(UserError, match="40 of 40 training images of each class leave none"):
        only({"batch_size": 32}, holdout_per_class=40)


def test_unknown_sweeps_and_models_are_refused_with_what_is_known():
    with pytest.raises(UserError, match=r"no sweep 'rate' in params.yaml \(did you mean 'rates'\?\); known: rates"):
        plan(params({"batch_size": {"grid": [8]}}), "rate")
    with pytest.raises(UserError, match=r"sweeps.rates.model: 'model_22' has no block"):
        plan(params({"batch_size": {"grid": [8]}}, "model_22"), "rates")


def test_the_committed_sweep_can_be_trained():
    assert len(plan(parse_params(VALUES), "rates").trials) == VALUES["sweeps"]["rates"]["trials"]


def test_fine_tuning_is_not_searched_without_the_profiles_weights():
    with pytest.raises(UserError, match=r"sweeps\.rates\.search, trial 1: fine_tuning needs pretrained weights"):
        only({"fine_tuning.learning_rate": 0.001}, "vgg16")
