"""Which trainings `tiny-imagenet train` starts, and what it has params.yaml say of them."""

from typing import Any

import pytest
from made_results import VALUES

from tiny_imagenet.errors import UserError
from tiny_imagenet.params import Params, parse_params
from tiny_imagenet.workers import trainings, wanted_replicates


def params(**replicates: Any) -> Params:
    return parse_params(VALUES | {"replicates": replicates})


def test_five_seeds_are_the_models_own_and_four_others():
    models = ["model_1", "model_2"]
    wanted = wanted_replicates(params(), models, 5)
    assert wanted == (models, [2, 3, 4, 5])  # 1 is `seed`
    names = trainings(params(models=models, seeds=wanted[1]), models, 5)
    assert len(names) == len(set(names)) == 10
    assert names[:4] == ["model_1", "model_2", "model_1-2", "model_2-2"]


def test_seeds_that_are_there_come_first_and_lists_may_grow():
    there = params(models=["model_2"], seeds=[7, 2])
    assert wanted_replicates(there, ["model_1", "model_2"], 4) == (["model_1", "model_2"], [7, 2, 3])


def test_what_is_there_and_covers_all_stays():
    there = params(models=["model_1", "model_2"], seeds=[7, 2])
    assert wanted_replicates(there, ["model_2"], 2) == (["model_1", "model_2"], [7, 2])
    assert trainings(there, ["model_2"], 2) == ["model_2", "model_2-7"]


@pytest.mark.parametrize("models", [["model_1"], ["model_2"]])
def test_trainings_that_nobody_asked_for_are_not_added_on_the_quiet(models):
    there = params(models=["model_2", "model_4"], seeds=[2, 3])
    with pytest.raises(UserError, match=r"edit `replicates`, to models: \[model_.\] and seeds: \[2, 3, 4\]"):
        wanted_replicates(there, models, 4)


def test_without_seeds_it_is_the_models_alone():
    assert trainings(params(models=["model_1"], seeds=[2]), ["model_1", "model_3"], None) == ["model_1", "model_3"]
