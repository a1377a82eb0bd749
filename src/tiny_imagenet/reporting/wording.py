"""The results in words: the table for the terminal, what may be compared, descriptions for MLflow."""

import textwrap
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tiny_imagenet.config.dataset import SPLITS
from tiny_imagenet.config.params import Params
from tiny_imagenet.config.recipe import Augmentation
from tiny_imagenet.reporting.columns import Row, columns, markdown_rows
from tiny_imagenet.reporting.formats import code, count, percent
from tiny_imagenet.reporting.paper import comparable
from tiny_imagenet.reporting.table import FROM_SCRATCH, PRETRAINED, ResultsTable
from tiny_imagenet.repository.paths import OVERVIEW
from tiny_imagenet.repository.records import DataReport

WIDTH = 100
NOTES = {
    FROM_SCRATCH: "Models that are not the paper's; like its models 1 to 4 they have seen no image but the training "
    "images.",
    PRETRAINED: "Their weights have seen these classes, and some of these very photographs, in ImageNet: they do not "
    "compete with models from scratch.",
}
"""What a reader must know of a group that is not the paper's."""
_SHOWN = 10


def comparability(params: Params) -> str:
    """Return one sentence that says whether the figures may be put beside the paper's."""
    dataset = params.dataset
    if comparable(params):
        return (
            f"These results are for the profile {code(params.profile)} on Tiny ImageNet. The column 'paper protocol', "
            "on augmented validation images, is the one to compare with the paper's; 'val' is on the images as they "
            "are."
        )
    if dataset.name != "tiny-imagenet-200":
        return (
            f"These results are for the profile {code(params.profile)} on the dataset {code(dataset.name)}: they are "
            "not comparable with the paper's, which are for Tiny ImageNet."
        )
    return (
        f"These results are for the profile {code(params.profile)} on a part of Tiny ImageNet: they are not "
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


def group_lines(table: ResultsTable) -> list[str]:
    """Return a line for each group that is not the paper's: what a reader must know of it."""
    return [f"{group}: {NOTES[group].removesuffix('.')}" for group in table.groups() if group in NOTES]


def flip_lines(params: Params) -> list[str]:
    """Return a line with the models that `evaluate` shows mirror images too; none if there are none."""
    return mirrored_line([model for model in params.active if params.recipe(model).flip_at_test])


def mirrored_line(models: Sequence[str]) -> list[str]:
    """Return a line that says that the metrics of these models are of two views; none if there are no models."""
    if not models:
        return []
    return [f"{', '.join(models)}: every validation metric is of the mean over an image and its mirror image"]


def missing_lines(table: ResultsTable) -> list[str]:
    """Return a line for each model and replicate that has no results: why."""
    return [f"{name}: {why}" for name, why in {**table.status, **table.missing_replicates}.items()]


def spread_lines(table: ResultsTable) -> list[str]:
    """Return a line for each model that was trained with several seeds: mean and standard deviation in percent, n."""
    return [
        f"{row['model']}: val {percent(row['val_accuracy_mean'])} ± {percent(row['val_accuracy_std'])} over "
        f"{row['num_seeds']:.0f} seeds (mean, standard deviation)"
        for row in table.rows_of_several_seeds
    ]


def data_summary(report: DataReport) -> str:
    """Return the report of the data as a person reads it."""
    counts = {split: sorted(set(report.per_class[split].values())) for split in SPLITS}
    duplicates = report.duplicates
    lines = [
        f"{report.classes:,} classes",
        *(
            f"{split}: {sum(report.per_class[split].values()):,} images of {report.in_archive[split]:,} in the "
            f"archive, {counts[split][0]}{'' if len(counts[split]) == 1 else f' to {counts[split][-1]}'} of each class"
            for split in SPLITS
        ),
        f"mean of red, green, blue in training: {', '.join(f'{mean:.1f}' for mean in report.train_channel_means)}",
        f"unlabelled images in the archive, left out: {report.unlabelled:,}",
        f"stray files in the archive, left out: {len(report.strays):,}",
        *(f"  {name}" for name in report.strays[:_SHOWN]),
        f"pairs of duplicates (policy: {duplicates['policy']}):",
    ]
    for kind, explained in (("exact", "the same pixels"), ("near", "alike: tuned on photographs, loose on drawings")):
        pairs = {splits: counted["pairs"] for splits, counted in duplicates["counts"][kind].items()}
        lines.append(
            f"  {kind} ({explained}): " + ", ".join(f"{splits} {number:,}" for splits, number in pairs.items())
        )
    across = [pair for pair in duplicates["pairs"] if pair["a"].startswith("train/") and pair["b"].startswith("val/")]
    lines += [f"  {pair['a']} = {pair['b']} ({pair['kind']})" for pair in across[:_SHOWN]]
    if len(across) > _SHOWN:
        lines.append(f"  ... and {len(across) - _SHOWN:,} more across the splits, in {OVERVIEW / 'report.json'}")
    if duplicates["largest_distance"] < duplicates["asked_distance"]:
        lines.append("  the search for near duplicates was cut short: too many images are alike")
    if "dropped_from_train" in duplicates:
        lines.append(f"  left out of training: {duplicates['dropped_from_train']:,}")
    return "\n".join(lines)


def terminal_table(table: ResultsTable, params: Params) -> str:
    """Return the tables for a terminal of 100 columns: accuracies in percent, and what the profile changed."""
    console = Console(width=WIDTH, no_color=True, highlight=False)
    title = f"profile {params.profile}, dataset {params.dataset.name}, accuracy in %"
    with console.capture() as capture:
        for group, rows in table.groups().items():
            own = group in NOTES
            with_paper = table.comparable and not own
            console.print(_terminal_rows(rows, f"{title}\n{group}".strip() if own else title, with_paper=with_paper))
            title = ""
        console.print(Text(comparability(params).replace("`", "")))
        for line in [*group_lines(table), *flip_lines(params), *missing_lines(table), *spread_lines(table)]:
            console.print(Text(line))
        changed = override_lines(params, table.without_batch_normalization)
        if changed:
            console.print(f"What the profile {params.profile} changes in the recipes:")
        for line in changed:
            console.print(Text(f"  {line.replace('`', '')}"))
    return "\n".join(line.rstrip() for line in capture.get().strip().splitlines())


def _terminal_rows(rows: Sequence[Row], title: str, *, with_paper: bool) -> Table:
    shown = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    shown.add_column("model", overflow="fold")
    chosen = columns(
        "parameters", "train_paper", "val_paper", "train", "val", "val_protocol", "val_top5", "epochs",
        "images_per_second", with_paper=with_paper,
    )  # fmt: skip
    for column in chosen:
        heading = "\n".join([column.heading, *textwrap.wrap(column.qualifier, column.width)])
        shown.add_column(heading, justify="right", no_wrap=True, min_width=column.width)
    for row in rows:
        shown.add_row(Text(row["model"]), *(column.text(row) for column in chosen))
    return shown


def experiment_description(table: ResultsTable, params: Params) -> str:
    """Return the table in Markdown, narrow enough for MLflow's page over the runs of a profile."""
    shown = columns(
        "model", "val", "val_protocol", "train", "val_paper", "train_paper", "epochs", with_paper=table.comparable
    )
    lines = [f"{comparability(params)} Accuracies are in percent; in brackets is the 95 % interval."]
    for group, rows in table.groups().items():
        lines += ["", f"**{group}.** {NOTES[group]}"] if group in NOTES else []
        lines += ["", *markdown_rows(shown, rows)]
    for line in flip_lines(params):
        lines += ["", f"{line}."]
    return "\n".join(lines)


def run_descriptions(table: ResultsTable, params: Params) -> dict[str, str]:
    """Return name -> description of the MLflow run, of each training that has results, replicates too."""
    described = {row["model"]: run_description(row, params) for row in table.rows if row["model"] not in table.status}
    replicates = {
        job.name: f"`{job.model}` with the seed {job.seed}: its spread is in the table.\n\n{comparability(params)}"
        for job in params.jobs
        if job.is_replicate and job.name not in table.missing_replicates
    }
    return described | replicates


def run_description(row: Row, params: Params) -> str:
    """Return a model's row of the table in a sentence."""
    val, protocol, train, val_paper, train_paper = (
        column.text(row) for column in columns("val", "val_protocol", "train", "val_paper", "train_paper")
    )
    mirrored = [row["model"]] if params.recipe(row["model"]).flip_at_test else []
    published = f" The paper: val {val_paper} %, train {train_paper} %." if comparable(params) else ""
    return (
        f"val **{val}** %, paper protocol {protocol} %, train {train} %, {count(row['epochs'])} epochs.{published}\n\n"
        + "".join(f"{line}; the model itself takes one view.\n\n" for line in mirrored_line(mirrored))
        + comparability(params)
    )
