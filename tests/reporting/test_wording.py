"""The table for a terminal, descriptions for MLflow, and what they say of comparability."""

from typing import Any

import pytest
from made_results import VALUES, made_params, make_results

from tiny_imagenet.reporting import wording
from tiny_imagenet.reporting.table import results_table
from tiny_imagenet.repository.records import DataReport

MODELS = ("model_1", "model_2", "model_3", "model_4", "model_5")


@pytest.fixture
def results(tmp_path):
    """Return params and the table of all five models."""
    for model in MODELS:
        make_results(tmp_path, model)
    params = made_params()
    return params, results_table(params, tmp_path)


def paper_with(**dataset: Any) -> Any:
    profiles = VALUES["profiles"]
    changed = profiles["paper"] | {"dataset": profiles["paper"]["dataset"] | dataset}
    return made_params(profile="paper", profiles=profiles | {"paper": changed})


# --- on a terminal ---


def test_the_terminal_table_shows_all_numbers_within_100_columns(results):
    params, table = results
    text = wording.terminal_table(table, params)
    assert max(len(line) for line in text.splitlines()) <= 100
    for model, parameters in zip(
        MODELS, ("13,070,472", "2,555,656", "140,382,728", "8,866,376", "25,890,888"), strict=True
    ):
        row = next(line for line in text.splitlines() if model in line)
        for part in (parameters, "50.00", "38.61 (37.7-39.6)", "35.14", "65.12", "15", "426"):
            assert part in row
    assert "…" not in text


def test_the_widest_numbers_fit_too(tmp_path):
    for model in MODELS:
        whole = dict.fromkeys(("train_accuracy", "val_accuracy", "val_accuracy_high", "val_top5_accuracy"), 1.0)
        make_results(
            tmp_path,
            model,
            metrics=whole | {"val_accuracy_low": 0.9, "val_accuracy_paper_protocol": 1.0, "epochs": 300},
            run={"images_per_second": 12_345.6},
        )
    params = made_params()
    text = wording.terminal_table(results_table(params, tmp_path), params)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert text.count("100.00 (90.0-100.0)") == 5
    assert text.count("12,346") == 5
    assert "…" not in text


def test_a_long_name_of_a_model_does_not_hide_numbers(tmp_path):
    name = "model_4_with_the_intended_learning_rate"
    make_results(tmp_path, name)
    params = made_params(active=[name], models=VALUES["models"] | {name: VALUES["models"]["model_4"]})
    text = wording.terminal_table(results_table(params, tmp_path), params)
    assert max(len(line) for line in text.splitlines()) <= 100
    assert "38.61 (37.7-39.6)" in text
    assert "35.14" in text


def test_a_model_without_results_says_so(tmp_path):
    params = made_params()
    lines = wording.terminal_table(results_table(params, tmp_path), params).splitlines()
    rows = [line for line in lines if line.startswith(" model_")]
    assert len(rows) == 5
    assert all("no results" in row for row in rows)
    assert not any("nan" in row.lower() or "<NA>" in row for row in rows)


def test_the_terminal_table_names_profile_and_dataset_and_whether_it_is_comparable(results):
    text = " ".join(wording.terminal_table(results[1], results[0]).split())
    assert "profile demo, dataset digits" in text
    assert "not comparable with the paper's" in text


def test_a_name_cannot_end_the_code_around_it():
    sentence = wording.comparability(paper_with(name="a` <img src=x onerror=alert(1)>\n`b"))
    assert "the dataset `a' <img src=x onerror=alert(1)> 'b`. They are not" in sentence


def test_a_dataset_may_have_brackets_in_its_name(tmp_path):
    dataset = {"name": "birds [small] [/b]", "archive": "birds.zip"}
    params = made_params(profiles=VALUES["profiles"] | {"demo": {"dataset": dataset, "training": {}}})
    assert "dataset birds [small] [/b]" in wording.terminal_table(results_table(params, tmp_path), params)


# --- may it be compared ---


def test_all_of_tiny_imagenet_may_be_compared_and_the_column_is_named():
    sentence = wording.comparability(paper_with())
    assert "not comparable" not in sentence
    assert "paper protocol" in sentence


def test_another_dataset_may_not_be_compared():
    assert "`digits`. They are not comparable" in wording.comparability(made_params())
    assert "`cats`. They are not comparable" in wording.comparability(paper_with(name="cats"))


@pytest.mark.parametrize(
    "part",
    [
        {"num_classes": 10},
        {"images_per_class": {"train": 50, "val": None}},
        {"images_per_class": {"train": None, "val": 10}},
        {"expect": {"classes": 200, "train": 100, "val": 50}},
        {"expect": {"classes": 20, "train": 500, "val": 50}},
        {"expect": {"classes": 200, "train": 500, "val": 5}},
    ],
)
def test_a_part_of_tiny_imagenet_may_not_be_compared(part):
    assert "on a part of Tiny ImageNet. They are not comparable" in wording.comparability(paper_with(**part))


# --- what the profile changed ---


def demo_with(**training: Any) -> Any:
    profiles = VALUES["profiles"]
    return made_params(profiles=profiles | {"demo": profiles["demo"] | {"training": training}})


def test_overrides_have_a_line_per_change_with_its_models():
    lines = wording.override_lines(demo_with(epochs=6, batch_size=16, batch_normalization_momentum=0.9))
    assert set(lines) == {
        "`epochs`: 15 -> 6 (all models)",
        "`batch_size`: 64 -> 16 (all models)",
        "`batch_normalization_momentum`: 0.99 -> 0.9 (all models)",
    }


def test_a_momentum_concerns_only_models_that_have_one():
    lines = wording.override_lines(demo_with(batch_normalization_momentum=0.9), ["model_1", "model_2"])
    assert lines == ["`batch_normalization_momentum`: 0.99 -> 0.9 (model_3, model_4, model_5)"]


def test_a_profile_that_changes_nothing_has_no_overrides():
    assert wording.override_lines(demo_with()) == []
    assert wording.override_lines(made_params(profile="paper")) == []


def test_the_override_of_weights_says_what_is_used_instead():
    assert wording.override_lines(demo_with(weights=None)) == ["`weights`: imagenet -> random (model_5)"]


def test_overrides_of_some_models_name_them():
    lines = wording.override_lines(demo_with(learning_rate=0.001, augmentation="none"))
    assert "`learning_rate`: 0.0001 -> 0.001 (model_1, model_3, model_5)" in lines
    augmentation = next(line for line in lines if line.startswith("`augmentation`"))
    assert "rotation_degrees 30, shear_degrees 0.2, zoom 0.8 to 1.2, " in augmentation
    assert "horizontal_flip, brightness 0.8 to 1.2 -> none (all models)" in augmentation
    assert augmentation.endswith("(all models)")


def test_inactive_models_have_no_overrides():
    assert "(all models)" in wording.override_lines(made_params(active=["model_1"]))[0]
    assert not any("model_5" in line for line in wording.override_lines(made_params(active=["model_1"])))


# --- what is missing, and the spread ---


def test_a_failed_model_has_a_row_and_a_reason_and_the_others_are_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_results(tmp_path, "model_1")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "model_2.failed").write_text("the loss is NaN in epoch 3, batch 7\n")
    params = made_params(active=["model_1", "model_2"])
    text = wording.terminal_table(results_table(params, tmp_path), params)
    assert "model_2: failed: the loss is NaN in epoch 3, batch 7" in text.splitlines()
    [row] = [line for line in text.splitlines() if line.split()[:1] == ["model_2"]]
    assert "no results" in row
    assert "38.61 (37.7-39.6)" in text


def test_the_spread_over_seeds_is_shown_if_there_is_one(tmp_path):
    for model, accuracy in {"model_1": 0.3, "model_2": 0.4, "model_2-5": 0.42, "model_2-6": 0.44}.items():
        make_results(tmp_path, model, metrics={"val_accuracy": accuracy})
    params = made_params(active=["model_1", "model_2"], replicates={"models": ["model_2"], "seeds": [5, 6]})
    lines = wording.terminal_table(results_table(params, tmp_path), params).splitlines()
    assert "model_2: val 42.00 ± 2.00 over 3 seeds (mean, standard deviation)" in lines
    assert not any(line.startswith("model_1: val") for line in lines)
    assert max(map(len, lines)) <= wording.WIDTH


def test_a_model_without_results_does_not_stop_the_spread_of_the_others(tmp_path):
    """As after `tiny-imagenet train --seeds`, if one training failed."""
    for model, accuracy in {"model_2": 0.4, "model_2-5": 0.42}.items():
        make_results(tmp_path, model, metrics={"val_accuracy": accuracy})
    params = made_params(active=["model_1", "model_2"], replicates={"models": ["model_2"], "seeds": [5]})
    table = results_table(params, tmp_path)
    assert [row["model"] for row in table.rows_of_several_seeds] == ["model_2"]
    assert wording.spread_lines(table) == ["model_2: val 41.00 ± 1.41 over 2 seeds (mean, standard deviation)"]
    assert "model_1: not trained yet" in wording.terminal_table(table, params)


# --- in MLflow ---


def test_mlflow_shows_the_table_in_few_columns_and_a_run_its_row_in_a_sentence(results):
    params, table = results
    lines = wording.experiment_description(table, params).splitlines()
    assert "not comparable with the paper's" in lines[0]
    assert lines[0].endswith("Accuracies are in percent; in brackets is the 95 % interval.")
    rows = [line.strip("| ").split(" | ") for line in lines[2:]]
    assert {len(row) for row in rows} == {5}
    assert rows[2] == ["model_1", "38.61 (37.7-39.6)", "35.14", "50.00", "15"]
    sentence = wording.run_description(table.rows[0], params)
    assert sentence.startswith("val **38.61 (37.7-39.6)** %, paper protocol 35.14 %, train 50.00 %, 15 epochs.\n")
    assert "The paper" not in sentence


def test_mlflow_shows_the_papers_numbers_beside_its_own_images(tmp_path):
    make_results(tmp_path, "model_1")
    params = made_params(profile="paper", active=["model_1"])
    table = results_table(params, tmp_path)
    rows = [line.strip("| ").split(" | ") for line in wording.experiment_description(table, params).splitlines()[2:]]
    assert rows[2] == ["model_1", "38.61 (37.7-39.6)", "35.14", "50.00", "14.19", "22.96", "15"]
    assert "The paper: val 14.19 %, train 22.96 %." in wording.run_description(table.rows[0], params)


# --- models that are not the paper's ---


@pytest.fixture
def groups(tmp_path):
    """Return params and a table with models of all three kinds, not in the order of the report."""
    active = ["model_5_caffe", "resnet18", "model_1", "model_2"]
    for model in active:
        make_results(tmp_path, model, run={"weights": "imagenet"} if model == "model_5_caffe" else None)
    params = made_params(active=active, profile="paper")
    return params, results_table(params, tmp_path)


def test_the_terminal_has_a_table_for_each_kind_of_model_the_papers_first(groups):
    params, table = groups
    text = wording.terminal_table(table, params)
    lines = [line.strip() for line in text.splitlines()]
    order = [lines.index("From scratch"), lines.index("Pretrained on ImageNet")]
    rows = {
        model: next(n for n, line in enumerate(lines) if line.startswith(f"{model} ")) for model in table.frame["model"]
    }
    assert rows["model_1"] < rows["model_2"] < order[0] < rows["resnet18"] < order[1] < rows["model_5_caffe"]
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("paper protocol") <= 1


def test_mlflow_has_a_table_for_each_kind_too_and_says_whose_figures_take_mirror_images(groups):
    text = wording.experiment_description(groups[1], groups[0])
    places = [
        text.index(part)
        for part in (
            "| model_1 |",
            "**From scratch.**",
            "| resnet18 |",
            "**Pretrained on",
            "| model_5_caffe |",
            "mirror",
        )
    ]
    assert places == sorted(places)
    assert text.count("| model | val (95 % interval) |") == 3
    described = {row["model"]: wording.run_description(row, groups[0]) for row in groups[1].rows}
    assert "mirror image; the saved model uses one view." in described["resnet18"]
    assert "mirror" not in described["model_1"]


def test_the_table_says_that_pretrained_models_do_not_compete(groups):
    text = " ".join(wording.terminal_table(groups[1], groups[0]).split())
    assert "Pretrained on ImageNet: Their weights have seen these classes in ImageNet, and some" in text


def test_the_table_names_models_evaluated_with_mirror_images(groups):
    assert "resnet18: every validation metric uses the mean over an image and its mirror image" in " ".join(
        wording.terminal_table(groups[1], groups[0]).split()
    )


def test_with_only_the_papers_models_no_others_are_mentioned(results):
    text = wording.terminal_table(results[1], results[0])
    assert not any(word in text for word in ("scratch", "Pretrained", "mirror image,", "The paper's models"))


# --- the data ---


def report_of_data(**duplicates: Any) -> DataReport:
    counts = {
        kind: {splits: {"pairs": number} for splits, number in pairs.items()}
        for kind, pairs in {"exact": {"train": 20, "train-val": 7}, "near": {"train": 1_234, "train-val": 0}}.items()
    }
    made = {"policy": "report", "counts": counts, "pairs": [], "largest_distance": 8, "asked_distance": 8}
    return DataReport(
        profile="paper",
        dataset="abc",
        classes=3,
        in_archive={"train": 1_500, "val": 30},
        unlabelled=10_000,
        train_boxes_without_image=0,
        strays=[f"stray {number}.txt" for number in range(12)],
        used={"train": 1_205, "val": 30},
        per_class={"train": {"n1": 400, "n2": 405, "n3": 400}, "val": {"n1": 10, "n2": 10, "n3": 10}},
        train_channel_means=[122.44, 114.25, 101.36],
        train_channel_standard_deviations=[70, 68, 71],
        duplicates=made | duplicates,
    )


def test_the_data_are_summed_up_in_lines():
    first, *strays = wording.data_summary(report_of_data()).split("  stray 0.txt\n")
    assert first == (
        "3 classes\n"
        "train: 1,205 images of 1,500 in the archive, 400 to 405 of each class\n"
        "val: 30 images of 30 in the archive, 10 of each class\n"
        "mean of red, green, blue in training: 122.4, 114.2, 101.4\n"
        "unlabelled images in the archive, left out: 10,000\n"
        "stray files in the archive, left out: 12\n"
    )
    *named, head, exact, near = strays[0].splitlines()
    assert named == [f"  stray {number}.txt" for number in range(1, 10)]
    assert head == "pairs of duplicates (policy: report):"
    assert exact == "  exact (the same pixels): train 20, train-val 7"
    assert near == "  near (similar; tuned on photographs, imprecise on drawings): train 1,234, train-val 0"


def test_pairs_across_the_splits_are_named_up_to_ten():
    within = {"a": "train/1.JPEG", "b": "train/2.JPEG", "kind": "exact"}
    across = [{"a": f"train/{number}.JPEG", "b": "val/5.JPEG", "kind": "near"} for number in range(12)]
    lines = wording.data_summary(report_of_data(pairs=[within, *across])).splitlines()
    assert lines[-11:-1] == [f"  train/{number}.JPEG = val/5.JPEG (near)" for number in range(10)]
    assert lines[-1].startswith("  ... and 2 more across the splits, in ")
    assert not wording.data_summary(report_of_data(pairs=[within, *across[:10]])).count("more across")


@pytest.mark.parametrize(("reached", "stopped_early"), [(7, True), (8, False)])
def test_a_search_for_near_duplicates_that_stopped_early_says_so(reached, stopped_early):
    summary = wording.data_summary(report_of_data(largest_distance=reached))
    assert ("stopped early: too many images are similar" in summary) == stopped_early


def test_images_that_were_left_out_as_duplicates_are_counted():
    assert "left out of training" not in wording.data_summary(report_of_data())
    assert wording.data_summary(report_of_data(dropped_from_train=1_027)).endswith("\n  left out of training: 1,027")
