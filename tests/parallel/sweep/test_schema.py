"""A sweep's section of params.yaml: what is refused, and what is drawn."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.schema import validated
from tiny_imagenet.parallel.sweep.schema import Range, Sweep

VALUES: dict[str, Any] = {
    "model": "model_2",
    "trials": 4,
    "epochs": 6,
    "search": {
        "optimizer.learning_rate": {"loguniform": [0.0001, 0.01]},
        "build.dropout": {"uniform": [0.2, 0.6]},
        "augmentation": {"choice": ["none", {"shift": 0.1}]},
    },
}


def sweep(**changes: Any) -> Sweep:
    return validated(Sweep, VALUES | changes, source="params.yaml: sweeps.rates")


def test_held_out_images_decide_by_default():
    assert (sweep().metric, sweep().mode, sweep().holds_out) == ("holdout_accuracy", "max", True)
    other = sweep(metric="val_loss")
    assert (other.mode, other.holds_out) == ("min", False)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"epocs": 3}, "unknown key 'epocs' (did you mean 'epochs'?)"),
        ({"metric": "holdout_acuracy"}, "did you mean 'holdout_accuracy'?"),
        ({"search": {}}, "search"),
        ({"search": {"batch_size": {"choice": []}}}, "search.batch_size.choice"),
        ({"search": {"batch_size": {}}}, "expects exactly one of loguniform, uniform, choice, grid"),
        ({"search": {"batch_size": {"choice": [8], "grid": [8]}}}, "expects exactly one of"),
        ({"search": {"batch_size": {"grid": None}}}, "expects exactly one of"),
        ({"search": {"batch_size": {"normal": [0, 1]}}}, "unknown key 'normal'"),
        ({"search": {"optimizer.learning_rate": {"uniform": [0.1, 0.01]}}}, "[low, high] with low < high"),
        ({"search": {"optimizer.learning_rate": {"uniform": [0, math.inf]}}}, "[low, high] with low < high"),
        ({"search": {"optimizer.learning_rate": {"loguniform": [0, 0.1]}}}, "positive numbers"),
        ({"search": {"epochs": {"choice": [3, 6]}}}, "'epochs' cannot be searched: the sweep sets it"),
        ({"search": {"optimizer.": {"choice": [3, 6]}}}, "not a key of a block"),
        (
            {"search": {"optimizer": {"choice": [{"name": "sgd"}]}, "optimizer.momentum": {"uniform": [0, 0.9]}}},
            "'optimizer.momentum' is part of 'optimizer'",
        ),
        ({"stop_early": {"grace_epochs": 6}}, "6 is not below the 6 epochs"),
        ({"stop_early": {"grace_epochs": 2, "reduction_factor": 1}}, "stop_early.reduction_factor"),
        ({"search": {"batch_size": {"grid": [8, 16]}}}, "nothing is drawn"),
        ({"trials": 10_001}, "10,001 trials; expected at most 10,000"),
        ({"trials": 0}, "trials"),
    ],
)
def test_invalid_values_are_refused_with_the_path_of_the_key(changes, expected):
    with pytest.raises(UserError) as caught:
        sweep(**changes)
    assert expected in str(caught.value)
    assert "params.yaml: sweeps.rates" in str(caught.value)


@given(st.floats(0, 1, exclude_max=True), st.floats(1e-8, 1e3), st.floats(1.001, 1e6))
def test_drawn_values_are_within_the_range(drawn, low, factor):
    high = low * factor
    for kind in ("loguniform", "uniform"):
        assert low <= Range.model_validate({kind: [low, high]}).value(drawn) <= high


@pytest.mark.parametrize(
    ("drawn", "expected"), [(0.0, 0.0001), (0.25, 0.0003162), (0.5, 0.001), (0.75, 0.003162), (1 - 2**-53, 0.01)]
)
def test_a_logarithmic_range_is_even_in_the_powers_of_ten(drawn, expected):
    assert Range.model_validate({"loguniform": [0.0001, 0.01]}).value(drawn) == expected


def test_each_choice_gets_its_share():
    choice = Range.model_validate({"choice": [None, 1, "two"]})
    assert [choice.value(number / 300) for number in range(300)] == [None] * 100 + [1] * 100 + ["two"] * 100


def test_a_seed_gives_the_same_trials_and_more_trials_keep_the_first():
    first = sweep().draws()
    assert first == sweep().draws()
    assert sweep(trials=9).draws()[:4] == first
    assert sweep(seed=2).draws() != first
    assert len({json.dumps(values) for values in first}) == 4
    assert all(list(values) == list(VALUES["search"]) for values in first)


def test_grids_are_crossed_and_each_combination_is_drawn_as_often_as_trials_say():
    search = {
        "batch_size": {"grid": [16, 32, 64]},
        "optimizer.learning_rate": {"loguniform": [0.001, 0.1]},
        "label_smoothing": {"grid": [0.0, 0.1]},
    }
    crossed = sweep(search=search, trials=2)
    draws = crossed.draws()
    assert len(draws) == crossed.num_trials == 12
    combinations = [(values["batch_size"], values["label_smoothing"]) for values in draws]
    assert sorted(combinations) == sorted(2 * [(size, share) for size in (16, 32, 64) for share in (0.0, 0.1)])
    assert len({values["optimizer.learning_rate"] for values in draws}) == 12
