"""The results in words: the table for the terminal, what may be compared, descriptions for MLflow."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tiny_imagenet.config.dataset import SPLITS, Expect, ImagesPerClass
from tiny_imagenet.config.params import Params
from tiny_imagenet.config.recipe import Augmentation

WIDTH = 100
PAPER, FROM_SCRATCH, PRETRAINED = "The paper's models", "From scratch", "Pretrained on ImageNet"
"""The tables of the report, in their order."""
NOTES = {
    FROM_SCRATCH: "Models that are not the paper's; like its models 1 to 4 they have seen no image but the training "
    "images.",
    PRETRAINED: "Their weights have seen these classes, and some of these very photographs, in ImageNet: they do not "
    "compete with models from scratch.",
}
"""What a reader must know of a table that is not the paper's."""
_MISSING = "-"
_SHOWN = 10
_TINY_IMAGENET = Expect(classes=200, train=500, val=50)


def percent(value: Any) -> str:
    """Return a fraction as percent with two decimals, as the paper prints them; "-" for what is missing."""
    return _MISSING if pd.isna(value) else f"{100 * value:.2f}"


def count(value: Any) -> str:
    """Return a whole number with commas; "-" for what is missing."""
    return _MISSING if pd.isna(value) else f"{value:,}"


def interval(row: Mapping[Any, Any]) -> str:
    """Return the validation accuracy of a row of the table with its 95 % interval, in percent."""
    if pd.isna(row["val_accuracy"]):
        return "no results"
    return f"{percent(row['val_accuracy'])} ({100 * row['val_accuracy_low']:.1f}-{100 * row['val_accuracy_high']:.1f})"


def by_group(table: pd.DataFrame) -> dict[str, list[dict[Any, Any]]]:
    """Return table of the report -> its rows, for those that have any; `table` is of `comparison.results_table`."""
    rows, group = table.to_dict("records"), table.attrs.get("group", {})
    groups = {name: [row for row in rows if group.get(row["model"], PAPER) == name] for name in (PAPER, *NOTES)}
    return {name: members for name, members in groups.items() if members}


def comparable(params: Params) -> bool:
    """Return whether the chosen profile's dataset is the paper's: all of Tiny ImageNet, and nothing else."""
    dataset = params.dataset
    return (
        dataset.name == "tiny-imagenet-200"
        and dataset.expect == _TINY_IMAGENET
        and dataset.images_per_class == ImagesPerClass()
        and dataset.num_classes is None
        and dataset.duplicates != "drop_from_train"
    )


def comparability(params: Params) -> str:
    """Return one sentence that says whether the figures may be put beside the paper's."""
    dataset = params.dataset
    if comparable(params):
        return (
            f"These figures are for the profile {code(params.profile)} on Tiny ImageNet. The column 'paper protocol', "
            "on augmented validation images, is the one to compare with the paper's; 'val' is on the images as they "
            "are."
        )
    if dataset.name != "tiny-imagenet-200":
        return (
            f"These figures are for the profile {code(params.profile)} on the dataset {code(dataset.name)}: they are "
            "not comparable with the paper's, which are for Tiny ImageNet."
        )
    return (
        f"These figures are for the profile {code(params.profile)} on a part of Tiny ImageNet: they are not "
        "comparable with the paper's, which used all of it."
    )


def overrides(params: Params, model: str, without_batch_normalization: Sequence[str] = ()) -> dict[str, str]:
    """Return what the profile changed in the recipe of a model, in words: key -> "15 -> 6".

    A momentum does not concern the models `without_batch_normalization`.
    """
    return {
        key: f"{_shown(key, own)} -> {_shown(key, used)}"
        for key, (own, used) in params.overrides(model).items()
        if key != "batch_normalization_momentum" or model not in without_batch_normalization
    }


def unconcerned(table: pd.DataFrame) -> Sequence[str]:
    """Return the models of the table that a momentum of batch normalization does not concern."""
    found: Sequence[str] = table.attrs.get("without_batch_normalization", ())
    return found


def override_lines(params: Params, without_batch_normalization: Sequence[str] = ()) -> list[str]:
    """Return what the profile changed, a line per change, with the models that it concerns."""
    concerned: dict[str, list[str]] = {}
    for model in params.active:
        for key, change in overrides(params, model, without_batch_normalization).items():
            concerned.setdefault(f"`{key}`: {change}", []).append(model)
    everyone = list(params.active)
    return [
        f"{change} ({'all models' if models == everyone else ', '.join(models)})"
        for change, models in concerned.items()
    ]


def _shown(key: str, value: Any) -> str:
    if isinstance(value, Augmentation):
        parts = value.model_dump(exclude_defaults=True).items()
        words = [part if setting is True else f"{part} {_setting(setting)}" for part, setting in parts]
        return ", ".join(words) or "none"
    if value is None:
        return "random" if key == "weights" else "default"
    return str(value)


def _setting(value: Any) -> str:
    return " to ".join(f"{end:g}" for end in value) if isinstance(value, tuple) else f"{value:g}"


def group_lines(table: pd.DataFrame) -> list[str]:
    """Return a line for each table that is not the paper's: what a reader must know of it."""
    return [f"{group}: {NOTES[group].removesuffix('.')}" for group in by_group(table) if group in NOTES]


def flip_lines(params: Params) -> list[str]:
    """Return a line with the models that `evaluate` shows mirror images, too; none where there are none."""
    return mirrored_line([model for model in params.active if params.recipe(model).flip_at_test])


def mirrored_line(models: Sequence[str]) -> list[str]:
    """Return a line that says of these models that their figures are of two views; none where there are none."""
    return (
        [f"{', '.join(models)}: every validation figure is of the mean over an image and its mirror image"]
        if models
        else []
    )


def missing_lines(table: pd.DataFrame) -> list[str]:
    """Return a line for each model, and each replicate, that has no results: why."""
    missing = table.attrs.get("status", {}) | table.attrs.get("missing_replicates", {})
    return [f"{name}: {why}" for name, why in missing.items()]


def spread_lines(table: pd.DataFrame) -> list[str]:
    """Return a line for each model that was trained with several seeds: mean and standard deviation in percent, n."""
    if "num_seeds" not in table:
        return []
    return [
        f"{row['model']}: val {percent(row['val_accuracy_mean'])} ± {percent(row['val_accuracy_std'])} over "
        f"{row['num_seeds']} seeds (mean, standard deviation)"
        for row in table.to_dict("records")
        if not pd.isna(row["num_seeds"]) and row["num_seeds"] > 1
    ]


def data_summary(values: Mapping[str, Any]) -> str:
    """Return report.json of the cache as a person reads it."""
    held = values["in_archive"]
    counts = {split: sorted(set(values["per_class"][split].values())) for split in SPLITS}
    duplicates = values["duplicates"]
    lines = [
        f"{values['classes']:,} classes",
        *(
            f"{split}: {sum(values['per_class'][split].values()):,} images of {held[split]:,} in the archive, "
            f"{counts[split][0]}{'' if len(counts[split]) == 1 else f' to {counts[split][-1]}'} of each class"
            for split in SPLITS
        ),
        f"mean of red, green, blue in training: {', '.join(f'{mean:.1f}' for mean in values['train_channel_means'])}",
        f"unlabelled images in the archive, left out: {values['unlabelled']:,}",
        f"stray files in the archive, left out: {len(values['strays']):,}",
        *(f"  {name}" for name in values["strays"][:_SHOWN]),
        f"pairs of copies (what is done with them: {duplicates['policy']}):",
    ]
    for kind, explained in (("exact", "the same pixels"), ("near", "alike: tuned on photographs, loose on drawings")):
        found = {splits: pairs["pairs"] for splits, pairs in duplicates["counts"][kind].items()}
        lines.append(f"  {kind} ({explained}): " + ", ".join(f"{splits} {count:,}" for splits, count in found.items()))
    across = [pair for pair in duplicates["pairs"] if pair["a"].startswith("train/") and pair["b"].startswith("val/")]
    lines += [f"  {pair['a']} = {pair['b']} ({pair['kind']})" for pair in across[:_SHOWN]]
    if len(across) > _SHOWN:
        lines.append(f"  ... and {len(across) - _SHOWN:,} more across the splits, in data/cache/report.json")
    if duplicates["largest_distance"] < duplicates["asked_distance"]:
        lines.append("  so many are alike that the search for near ones was cut short")
    if "dropped_from_train" in duplicates:
        lines.append(f"  left out of training: {duplicates['dropped_from_train']:,}")
    return "\n".join(lines)


def terminal_table(table: pd.DataFrame, params: Params) -> str:
    """Return the tables for a terminal of 100 columns: accuracies in percent, and what the profile changed."""
    console = Console(width=WIDTH, no_color=True, highlight=False)
    title = f"profile {params.profile}, dataset {params.dataset.name}, accuracy in %"
    with console.capture() as capture:
        for group, rows in by_group(table).items():
            own = group in NOTES
            console.print(_terminal_rows(rows, f"{title}\n{group}".strip() if own else title, with_paper=not own))
            title = ""
        console.print(Text(comparability(params).replace("`", "")))
        for line in [*group_lines(table), *flip_lines(params), *missing_lines(table), *spread_lines(table)]:
            console.print(Text(line))
        changed = override_lines(params, unconcerned(table))
        if changed:
            console.print(f"What the profile {params.profile} changes in the recipes:")
        for line in changed:
            console.print(Text(f"  {line.replace('`', '')}"))
    return "\n".join(line.rstrip() for line in capture.get().strip().splitlines())


def _terminal_rows(rows: Sequence[Mapping[Any, Any]], title: str, *, with_paper: bool) -> Table:
    shown = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown.add_column("model", overflow="fold")
    widths = {
        "parameters\n(200 cl.)": 11, **({"paper\ntrain": 5, "paper\nval": 5} if with_paper else {}), "train": 5,
        "val\n(95 % interval)": 18, "paper\nprotocol": 8, "top-5": 6, "epochs": 6, "images\nper s": 6,
    }  # fmt: skip
    for heading, width in widths.items():
        shown.add_column(heading, justify="right", no_wrap=True, min_width=width)
    for row in rows:
        shown.add_row(
            Text(row["model"]),
            count(row["parameters_200_classes"]),
            *(percent(row[f"{part}_accuracy_paper"]) for part in ("train", "val") if with_paper),
            percent(row["train_accuracy"]),
            interval(row),
            percent(row["val_accuracy_paper_protocol"]),
            percent(row["val_top5_accuracy"]),
            count(row["epochs"]),
            _MISSING if pd.isna(row["images_per_second"]) else f"{row['images_per_second']:,.0f}",
        )
    return shown


def experiment_description(table: pd.DataFrame, params: Params) -> str:
    """Return the table in Markdown, narrow enough for MLflow's page over the runs of a profile."""
    headings = ["model", "val, %", "val, paper protocol", "train", "paper: val", "paper: train", "epochs"]
    lines = [comparability(params)]
    for group, rows in by_group(table).items():
        cells = [
            [
                row["model"],
                interval(row),
                percent(row["val_accuracy_paper_protocol"]),
                percent(row["train_accuracy"]),
                percent(row["val_accuracy_paper"]),
                percent(row["train_accuracy_paper"]),
                count(row["epochs"]),
            ]
            for row in rows
        ]
        lines += ["", f"**{group}.** {NOTES[group]}"] if group in NOTES else []
        lines += ["", *markdown_table(headings, cells)]
    for line in flip_lines(params):
        lines += ["", f"{line}."]
    return "\n".join(lines)


def run_descriptions(table: pd.DataFrame, params: Params) -> dict[str, str]:
    """Return name -> description of the MLflow run, of each training that has results, replicates too."""
    described = {
        str(row["model"]): run_description(row, params) for row in table.dropna(subset="run_id").to_dict("records")
    }
    missing = table.attrs.get("missing_replicates", {})
    replicates = {
        job.name: f"`{job.model}` with the seed {job.seed}: its spread is in the table.\n\n{comparability(params)}"
        for job in params.jobs
        if job.is_replicate and job.name not in missing
    }
    return described | replicates


def run_description(row: Mapping[Any, Any], params: Params) -> str:
    """Return a model's row of the table in a sentence."""
    mirrored = [row["model"]] if params.recipe(row["model"]).flip_at_test else []
    return (
        f"val **{interval(row)}** %, paper protocol {percent(row['val_accuracy_paper_protocol'])} %, train "
        f"{percent(row['train_accuracy'])} %, {count(row['epochs'])} epochs. The paper: val "
        f"{percent(row['val_accuracy_paper'])} %, train {percent(row['train_accuracy_paper'])} %.\n\n"
        + "".join(f"{line}; the model itself takes one view.\n\n" for line in mirrored_line(mirrored))
        + comparability(params)
    )


def plain(value: Any) -> str:
    """Return a value as it is; "-" for what is missing."""
    return _MISSING if pd.isna(value) else f"{value}"


def markdown(text: str) -> str:
    """Return text, in one line, in which nothing is taken for a tag of HTML, as `<model>` would be, or a picture."""
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace("![", "!&#91;")


def code(name: str) -> str:
    """Return a name as code in Markdown, which nothing in it can end."""
    return f"`{' '.join(name.replace('`', chr(39)).split())}`"


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(markdown(cell).replace("|", "\\|") for cell in cells) + " |"

    return [line(headings), line(["---"] * len(headings)), *(line(row) for row in rows)]
