"""A training: its name, seed, recipe, stages and fingerprint."""

import pytest
from made_results import VALUES

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import parse_params

PARAMS = parse_params(VALUES | {"replicates": {"models": ["model_2", "model_4"], "seeds": [2, 3]}})


def test_the_jobs_are_the_active_models_then_the_replicates():
    replicates = ["model_2-2", "model_2-3", "model_4-2", "model_4-3"]
    assert [job.name for job in PARAMS.jobs] == [*PARAMS.active, *replicates]
    assert [job.name for job in PARAMS.jobs if job.is_replicate] == replicates
    assert [job.name for job in PARAMS.replicates_of("model_4")] == ["model_4-2", "model_4-3"]


def test_a_replicate_is_its_model_with_another_seed():
    model, replicate = PARAMS.job("model_2"), PARAMS.job("model_2-3")
    assert replicate.recipe == model.recipe == PARAMS.recipe("model_2")
    assert (replicate.model, replicate.seed, model.seed) == ("model_2", 3, PARAMS.seed)
    assert replicate.fingerprint != PARAMS.job("model_2-2").fingerprint
    assert replicate.fingerprint == parse_params(VALUES | {"seed": 3}).job("model_2").fingerprint


def test_a_job_knows_its_stages():
    model, replicate = PARAMS.job("model_2"), PARAMS.job("model_2-3")
    assert (model.train_stage, model.evaluate_stage) == ("train@model_2", "evaluate@model_2")
    assert (replicate.train_stage, replicate.evaluate_stage) == (
        "replicate@model_2-3",
        "evaluate_replicate@model_2-3",
    )


def test_a_model_that_is_not_active_has_a_job_and_an_unknown_one_is_refused():
    assert PARAMS.job("model_3_as_published").recipe.batches_per_epoch == 390
    for name in ("model_2-9", "model_22"):
        with pytest.raises(UserError, match=f"params.yaml: unknown model '{name}' .did you mean 'model_2"):
            PARAMS.job(name)


@pytest.mark.parametrize("change", [{"seed": 77}, {"determinism": "fast"}, {"devices": 2}, {"augmentation": "none"}])
def test_each_setting_that_can_change_the_weights_changes_the_fingerprint(change):
    profile = dict(VALUES["profiles"][VALUES["profile"]])
    profile["training"] = {key: value for key, value in profile["training"].items() if key != "augmentation"}
    values = VALUES | {"profiles": VALUES["profiles"] | {VALUES["profile"]: profile}}
    before = parse_params(values).job("model_2").fingerprint
    assert parse_params(values | change).job("model_2").fingerprint != before
