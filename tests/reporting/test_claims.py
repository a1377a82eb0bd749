"""The claims of the paper's text: each verdict follows from figures made up for it."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_results import PARAMETERS, VALUES, made_inputs, made_params, make_results

from tiny_imagenet.evaluation.metrics import with_interval
from tiny_imagenet.reporting import claims
from tiny_imagenet.reporting.audit import UNTESTED
from tiny_imagenet.reporting.inputs import ReportInputs

BETTER_BY_DEPTH = {"model_1": 0.15, "model_2": 0.25, "model_3": 0.30, "model_4": 0.40, "model_5": 0.50}
_SIMPLE = ("model_1", "model_2")
GAPS = {"model_1": 0.20, "model_2": 0.05, "model_3": 0.40, "model_4": 0.10, "model_5": 0.45}
IMAGES = 1000


def made(
    root: Path,
    accuracies: dict[str, float] = BETTER_BY_DEPTH,
    gaps: dict[str, float] = GAPS,
    weights: str | None = "imagenet",
    **params: Any,
) -> ReportInputs:
    """Return the results of models with these accuracies on 1,000 images and these gaps to training.

    The intervals are of 10,000 validation and 100,000 training images, as those of the paper's dataset are.
    """
    chosen = made_params(**{"profile": "paper", "active": list(PARAMETERS)} | params)
    for model, accuracy in accuracies.items():
        measured = with_interval("val_accuracy", round(10_000 * accuracy), 10_000)
        measured |= with_interval("train_accuracy_clean", round(100_000 * (accuracy + gaps[model])), 100_000)
        make_results(root, model, metrics=measured, run={"weights": weights if model == "model_5" else None})
        labels = np.zeros(IMAGES, int)
        answers = np.where(np.arange(IMAGES) < accuracy * IMAGES, 0, 1)
        predictions = pd.DataFrame({"label": labels, "label_1": answers})
        predictions.to_parquet(root / "results" / model / "predictions.parquet")
        curve = pd.DataFrame({"epoch": [1, 2], "val_accuracy": [accuracy - 0.05, accuracy]})
        write_curve(root, model, curve)
    return made_inputs(chosen, root)


def write_curve(root: Path, model: str, curve: pd.DataFrame) -> None:
    """Write a history with this validation accuracy."""
    whole = curve.assign(accuracy=0.1, loss=1.0, val_loss=1.0)
    whole.to_csv(root / "models" / model / "history.csv", index=False)


def judged(inputs: ReportInputs, start: str) -> Any:
    frame = claims.claims_audit(inputs)
    return frame[frame["claim"].str.startswith(start)].iloc[0]


def test_each_claim_has_a_verdict_and_its_numbers(tmp_path):
    frame = claims.claims_audit(made(tmp_path))
    assert list(frame.columns) == claims.COLUMNS
    assert set(frame["verdict"]) <= {claims.HOLDS, claims.FAILS}
    assert frame["claim"].is_unique
    assert (frame[["paper", "ours", "reason"]].map(len) > 0).all(axis=None)


def test_each_claim_shows_the_papers_numbers_beside_ours(tmp_path):
    counts = "200 classes, 100,000 training and 10,000 validation images, 10,000 test images without labels"
    published, ours = [
        [f"model_{number} {value}" for number, value in enumerate(values.split(), start=1)]
        for values in ("14.19 22.72 24.88 38.61 43.14", "15.00 25.00 30.00 40.00 50.00")
    ]
    published_gaps, gaps = [
        [f"model_{number} {value}" for number, value in enumerate(values.split(","), start=1)]
        for values in (
            "+8.77,-2.55,+4.62,-1.09,+25.47",
            "+20.00 ± 0.76,+5.00 ± 0.89,+40.00 ± 0.94,+10.00 ± 1.01,+45.00 ± 0.99",
        )
    ]
    expected = {
        "200 classes": (counts, counts),
        "Models 1 to 4": (
            "15 each",
            "in the authors' logs: model_1 15, model_2 20, model_3 15, model_4 15, model_5 15",
        ),
        "Training and validation data": ("no leakage", "0 exact and 0 near duplicates across the two"),
        "Validation above": (
            "model_2 22.72 above 20.17, model_4 38.61 above 37.52",
            "without augmentation and dropout, training is above validation by " + ", ".join(gaps),
        ),
        "Dropout mitigates": (", ".join(published_gaps[2:4]), ", ".join(gaps[2:4])),
        "A third convolution": (", ".join(published[:2]), ", ".join(ours[:2])),
        "Depth helps": (", ".join(published[:4]), ", ".join(ours[:4])),
        "Dropout helps": (", ".join(published[2:4]), ", ".join(ours[2:4])),
        "Transfer wins": (", ".join(published), ", ".join(ours)),
        "Transfer markedly": ("training above validation by " + ", ".join(published_gaps), ", ".join(gaps)),
        "Transfer expedites": (
            "model_5 reaches the best of model_4, 38.61 in epoch 15, in no epoch: it ends at 33.73",
            "model_5 reaches the best of model_4, 40.00 in epoch 2, in epoch 1",
        ),
    }
    found = made(tmp_path)
    assert {start: tuple(judged(found, start)[["paper", "ours"]]) for start in expected} == expected
    nothing = made(tmp_path / "nothing", {})
    for start in list(expected)[3:]:
        assert tuple(judged(nothing, start)[["paper", "ours"]]) == (expected[start][0], "-")


def test_a_claim_holds_if_each_difference_is_significant(tmp_path):
    found = made(tmp_path)
    for start in ("A third convolution", "Depth helps", "Dropout helps", "Transfer wins", "Transfer expedites"):
        assert judged(found, start)["verdict"] == claims.HOLDS


def test_models_outside_a_claim_do_not_change_its_verdict(tmp_path):
    close = BETTER_BY_DEPTH | {"model_1": 0.200, "model_2": 0.206}  # 6 of 1,000 images: p = 0.031, the only pair
    found = made(tmp_path, close)
    judgement = judged(found, "A third convolution")
    assert judgement["verdict"] == claims.HOLDS
    others = found.paired.assign(p_holm=1.0)
    assert judged(dataclasses.replace(found, paired=others), "A third convolution").equals(judgement)


def test_several_differences_need_a_wider_interval_than_one(tmp_path):
    """Two of four have 6 images of 1,000 in it: p = 2 / 2^6 = 0.031 each, and by Holm's correction twice that."""
    close = BETTER_BY_DEPTH | {"model_1": 0.250, "model_2": 0.250, "model_3": 0.256}
    judgement = judged(made(tmp_path / "two", close), "Depth helps")
    assert judgement["verdict"] == claims.NOT_SHOWN
    assert "model_3 against model_1, p = 0.062; model_3 against model_2, p = 0.062" in judgement["reason"]
    one = close | {"model_1": 0.15}  # the other of the two is beyond doubt then
    assert judged(made(tmp_path / "one", one), "Depth helps")["verdict"] == claims.HOLDS


@pytest.mark.parametrize(
    ("accuracy", "verdict"), [(0.20, claims.FAILS), (0.248, claims.NOT_SHOWN), (0.252, claims.NOT_SHOWN)]
)
def test_only_a_significant_difference_refutes_a_claim(accuracy, verdict, tmp_path):
    found = judged(made(tmp_path, BETTER_BY_DEPTH | {"model_3": accuracy}), "Depth helps")
    assert found["verdict"] == verdict
    assert "model_3 against model_2" in found["reason"]
    assert "model_4" not in found["reason"]


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [([0.41, 0.5], claims.HOLDS), ([0.1, 0.5], claims.FAILS), ([0.1, 0.3], claims.FAILS)],
    ids=["sooner", "no sooner", "never"],
)
def test_transfer_expedites_if_fewer_epochs_reach_the_best_of_the_others(accuracies, verdict, tmp_path):
    found = made(tmp_path)
    curve = pd.DataFrame({"epoch": [1, 2], "val_accuracy": accuracies})
    histories = dict(found.histories) | {"model_5": curve}
    judgement = judged(dataclasses.replace(found, histories=histories), "Transfer expedites")
    assert judgement["verdict"] == verdict
    assert judgement["reason"].startswith("model_4 itself needs 2 epochs")


def test_the_best_of_the_others_may_need_more_epochs_than_transfer_has(tmp_path):
    found = made(tmp_path)
    longer = pd.DataFrame({"epoch": [1, 2, 3, 4], "val_accuracy": [0.2, 0.3, 0.4, 0.39]})
    histories = dict(found.histories) | {"model_4": longer}
    judgement = judged(dataclasses.replace(found, histories=histories), "Transfer expedites")
    assert judgement["verdict"] == claims.HOLDS
    assert "the best of model_4, 40.00 in epoch 3, in epoch 1" in judgement["ours"]


@pytest.mark.parametrize(("gap", "verdict"), [(0.01, claims.HOLDS), (0.3, claims.NOT_SHOWN), (0.45, claims.FAILS)])
def test_transfer_generalizes_if_its_gap_is_the_narrowest(gap, verdict, tmp_path):
    found = judged(made(tmp_path, gaps=GAPS | {"model_5": gap}), "Transfer markedly")
    assert found["verdict"] == verdict
    assert found["reason"].startswith("by our results")


def test_validation_above_training_is_overfitting_only_if_those_models_overfit_most(tmp_path):
    found = judged(made(tmp_path / "one"), "Validation above")
    assert found["verdict"] == claims.FAILS
    assert "model_2 22.72 above 20.17" in found["paper"]
    assert "model_4 38.61 above 37.52" in found["paper"]
    most = GAPS | {"model_2": 0.5, "model_4": 0.5}
    assert judged(made(tmp_path / "two", gaps=most), "Validation above")["verdict"] == claims.HOLDS


def test_dropout_is_judged_by_the_gap_between_training_and_validation(tmp_path):
    assert judged(made(tmp_path / "one"), "Dropout mitigates")["verdict"] == claims.HOLDS
    wide = GAPS | {"model_4": 0.5}
    assert judged(made(tmp_path / "two", gaps=wide), "Dropout mitigates")["verdict"] == claims.FAILS


# Half the interval of a gap is 0.010 here, and that of a difference of two gaps 0.014.
@pytest.mark.parametrize("apart", [0.0001, 0.01, -0.01])
@pytest.mark.parametrize(
    ("start", "models", "base", "sign"),
    [
        ("Dropout mitigates", ["model_4"], "model_3", -1),
        ("Validation above", ["model_2", "model_4"], "model_3", 1),
        ("Transfer markedly", ["model_5"], "model_2", -1),
    ],
)
def test_gaps_that_do_not_differ_significantly_show_nothing(start, models, base, sign, apart, tmp_path):
    near = GAPS | dict.fromkeys(models, GAPS[base] + sign * apart)
    assert judged(made(tmp_path / "near", gaps=near), start)["verdict"] == claims.NOT_SHOWN
    far = GAPS | dict.fromkeys(models, GAPS[base] + sign * 0.02)
    assert judged(made(tmp_path / "far", gaps=far), start)["verdict"] == claims.HOLDS


def test_the_interval_of_a_difference_of_gaps_combines_those_of_its_four_accuracies(tmp_path):
    found = made(tmp_path, gaps=GAPS | {"model_4": GAPS["model_3"] - 0.01})
    halves = [
        (getattr(measured, f"{key}_high") - getattr(measured, f"{key}_low")) / 2
        for measured in (found.table.metrics["model_3"], found.table.metrics["model_4"])
        for key in ("train_accuracy_clean", "val_accuracy")
    ]
    assert f"+1.00 ± {100 * np.sqrt(np.square(halves).sum()):.2f} points" in judged(found, "Dropout miti")["reason"]


def test_gaps_with_intervals_of_no_width_are_judged_by_their_order(tmp_path):
    found = made(tmp_path, gaps=GAPS | {"model_4": GAPS["model_3"] - 0.0001})
    plain = {
        model: metrics.model_copy(
            update={
                f"{key}_{end}": getattr(metrics, key)
                for key in ("val_accuracy", "train_accuracy_clean")
                for end in ("low", "high")
            }
        )
        for model, metrics in found.table.metrics.items()
    }
    found = dataclasses.replace(found, table=dataclasses.replace(found.table, metrics=plain))
    assert judged(found, "Dropout mitigates")["verdict"] == claims.HOLDS


def test_transfer_is_not_judged_by_a_training_from_scratch(tmp_path):
    found = made(tmp_path, weights=None)
    for start in ("Transfer wins", "Transfer expedites"):
        assert judged(found, start)["verdict"] == UNTESTED
        assert judged(found, start)["reason"] == "model_5 was trained from scratch here"


def test_nothing_is_judged_by_another_recipe(tmp_path):
    profiles = copy.deepcopy(VALUES["profiles"])
    profiles["paper"]["training"]["batch_normalization_momentum"] = 0.9
    found = made(tmp_path, profiles=profiles)
    assert judged(found, "A third convolution")["verdict"] == claims.HOLDS
    assert judged(found, "Dropout helps")["verdict"] == UNTESTED
    why = "the recipe of model_3 is not the paper's; the recipe of model_4 is not the paper's"
    assert judged(found, "Depth helps")["reason"] == why


def test_a_model_without_results_leaves_its_claims_open(tmp_path):
    found = made(tmp_path, {model: BETTER_BY_DEPTH[model] for model in ("model_1", "model_2", "model_3")})
    assert judged(found, "A third")["verdict"] == claims.HOLDS
    for start in ("Depth", "Dropout helps", "Dropout mitigates", "Transfer wins", "Validation above"):
        assert judged(found, start)["verdict"] == UNTESTED
        assert "model_4: not trained yet" in judged(found, start)["reason"]


def test_nothing_of_ours_is_judged_on_other_images(tmp_path):
    frame = claims.claims_audit(made(tmp_path, profile="demo")).set_index("claim")
    by_the_paper_alone = frame.index.str.contains("15 epochs|shear|generalization")
    assert set(frame.loc[~by_the_paper_alone, "verdict"]) == {UNTESTED}


def test_claims_decided_by_the_papers_numbers_and_logs_need_no_result(tmp_path):
    nothing = made(tmp_path, {}, profile="demo")
    epochs = judged(nothing, "Models 1 to 4")
    assert epochs["verdict"] == claims.FAILS
    assert "model_2 20" in epochs["ours"]
    assert judged(nothing, "The augmentation has shear")["verdict"] == claims.FAILS
    assert "0.22 of 64 pixels" in judged(nothing, "The augmentation has shear")["ours"]
    assert judged(nothing, "Transfer markedly")["verdict"] == claims.FAILS


def test_the_dataset_is_counted_and_searched_for_duplicates(tmp_path):
    whole = made(tmp_path)
    assert judged(whole, "200 classes")["verdict"] == claims.HOLDS
    assert judged(whole, "Training and validation data")["verdict"] == claims.HOLDS

    def with_data(**changes):
        return dataclasses.replace(whole, data=whole.data.model_copy(update=changes))

    for unlabelled, verdict in ((0, claims.HOLDS), (9_999, claims.FAILS)):  # an archive may have no test images
        assert judged(with_data(unlabelled=unlabelled), "200 classes")["verdict"] == verdict
    counts = {"exact": {"train-val": {"pairs": 3}}, "near": {"train-val": {"pairs": 1}}}
    other = with_data(classes=199, duplicates={"counts": counts})
    assert judged(other, "200 classes")["verdict"] == claims.FAILS
    assert judged(other, "Training and validation data")["verdict"] == claims.FAILS
    assert "3 exact and 1 near" in judged(other, "Training and validation data")["ours"]


def test_without_predictions_no_difference_is_judged(tmp_path):
    found = made(tmp_path)
    without = dataclasses.replace(found, paired=found.paired.iloc[:0])
    assert judged(without, "Depth helps")["verdict"] == claims.UNTESTED
    assert "predictions are missing: model_3 against model_1" in judged(without, "Depth helps")["reason"]
