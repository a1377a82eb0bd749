"""The results in words: the table for the terminal, comparability, descriptions for MLflow."""

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
    FROM_SCRATCH: "These models are not the paper's. Like its models 1 to 4, they have seen the training images alone.",
    PRETRAINED: "Their weights have seen these classes in ImageNet, and some of these photographs. Do not compare them "
    "with models from scratch.",
}
"""Notes on the groups that are not the paper's."""
_SHOWN = 10


def comparability(params: Params) -> str:
    """Return whether the results are comparable with the paper's, in one or two sentences."""
    dataset = params.dataset
    if comparable(params):
        return (
            f"These results are for the profile {code(params.profile)} on Tiny ImageNet. Compare the column 'paper "
            "protocol', on augmented validation images, with the paper's; 'val' is on plain images."
        )
    if dataset.name != "tiny-imagenet-200":
        return (
            f"These results are for the profile {code(params.profile)} on the dataset {code(dataset.name)}. They are "
            "not comparable with the paper's, which are for Tiny ImageNet."
        )
    return (
        f"These results are for the profile {code(params.profile)} on a part of Tiny ImageNet. They are not "
        "comparable with the paper's, which used all of it."
    )


def overrides(params: Params, model: str, without_batch_normalization: Sequence[str] = ()) -> dict[str, str]:
    """Return what the profile changes in a model's recipe: key -> "15 -> 6".

    The momentum of batch normalization is left out for the models `without_batch_normalization`.
    """
    return {
        key: f"{_shown(key, before)} -> {_shown(key, after)}"
        for key, (before, after) in params.overrides(model).items()
        if key != "batch_normalization_momentum" or model not in without_batch_normalization
    }


def override_lines(params: Params, without_batch_normalization: Sequence[str] = ()) -> list[str]:
    """Return a line per change by the profile, with the models concerned."""
    concerned: dict[str, list[str]] = {}
    for model in params.active:
        for key, change in overrides(params, model, without_batch_normalization).items():
            concerned.setdefault(f"`{key}`: {change}", []).append(model)
    return [
        f"{change} ({'all models' if models == [*params.active] else ', '.join(models)})"
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
    """Return a line with the note of each group that is not the paper's."""
    return [f"{group}: {NOTES[group].removesuffix('.')}" for group in table.groups() if group in NOTES]


def flip_lines(params: Params) -> list[str]:
    """Return a line that names the active models with `flip_at_test`, if any."""
    return mirrored_line([model for model in params.active if params.recipe(model).flip_at_test])


def mirrored_line(models: Sequence[str]) -> list[str]:
    """Return a line that says that these models' metrics use mirror images; none without models."""
    if not models:
        return []
    return [f"{', '.join(models)}: every validation metric uses the mean over an image and its mirror image"]


def missing_lines(table: ResultsTable) -> list[str]:
    """Return why there are no results: a line for each model and replicate without any."""
    return [f"{name}: {why}" for name, why in {**table.status, **table.missing_replicates}.items()]


def spread_lines(table: ResultsTable) -> list[str]:
    """Return a line for each model with several seeds: mean and standard deviation in percent, n."""
    return [
        f"{row['model']}: val {percent(row['val_accuracy_mean'])} ± {percent(row['val_accuracy_std'])} over "
        f"{row['num_seeds']:.0f} seeds (mean, standard deviation)"
        for row in table.rows_of_several_seeds
    ]


def data_summary(report: DataReport) -> str:
    """Return the report of the data as text."""
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
    for kind, explained in (
        ("exact", "the same pixels"),
        ("near", "similar; tuned on photographs, imprecise on drawings"),
    ):
        pairs = {splits: counted["pairs"] for splits, counted in duplicates["counts"][kind].items()}
        lines.append(
            f"  {kind} ({explained}): " + ", ".join(f"{splits} {number:,}" for splits, number in pairs.items())
        )
    across = [pair for pair in duplicates["pairs"] if pair["a"].startswith("train/") and pair["b"].startswith("val/")]
    lines += [f"  {pair['a']} = {pair['b']} ({pair['kind']})" for pair in across[:_SHOWN]]
    if len(across) > _SHOWN:
        lines.append(f"  ... and {len(across) - _SHOWN:,} more across the splits, in {OVERVIEW / 'report.json'}")
    if duplicates["largest_distance"] < duplicates["asked_distance"]:
        lines.append("  the search for near duplicates stopped early: too many images are similar")
    if "dropped_from_train" in duplicates:
        lines.append(f"  left out of training: {duplicates['dropped_from_train']:,}")
    return "\n".join(lines)


def terminal_table(table: ResultsTable, params: Params) -> str:
    """Return the tables and notes for a terminal of 100 columns; accuracies are in percent."""
    console = Console(width=WIDTH, no_color=True, highlight=False)
    title = f"profile {params.profile}, dataset {params.dataset.name}, accuracy in %"
    with console.capture() as capture:
        for group, rows in table.groups().items():
            is_other = group in NOTES
            heading = f"{title}\n{group}".strip() if is_other else title
            console.print(_terminal_rows(rows, heading, with_paper=table.comparable and not is_other))
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
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("model", overflow="fold")
    shown = columns(
        "parameters", "train_paper", "val_paper", "train", "val", "val_protocol", "val_top5", "epochs",
        "images_per_second", with_paper=with_paper,
    )  # fmt: skip
    for column in shown:
        heading = "\n".join([column.heading, *textwrap.wrap(column.qualifier, column.width)])
        table.add_column(heading, justify="right", no_wrap=True, min_width=column.width)
    for row in rows:
        table.add_row(Text(row["model"]), *(column.text(row) for column in shown))
    return table


def experiment_description(table: ResultsTable, params: Params) -> str:
    """Return the table in Markdown for the page of an MLflow experiment, in few columns."""
    shown = columns(
        "model", "val", "val_protocol", "train", "val_paper", "train_paper", "epochs", with_paper=table.comparable
    )
    blocks = [f"{comparability(params)} Accuracies are in percent; in brackets is the 95 % interval."]
    for group, rows in table.groups().items():
        blocks += [f"**{group}.** {NOTES[group]}"] if group in NOTES else []
        blocks.append(markdown_rows(shown, rows))
    return "\n\n".join([*blocks, *(f"{line}." for line in flip_lines(params))])


def run_descriptions(table: ResultsTable, params: Params) -> dict[str, str]:
    """Return the description of the MLflow run of each model and replicate with results, by name."""
    models = {row["model"]: run_description(row, params) for row in table.rows if row["model"] not in table.status}
    replicates = {
        job.name: f"`{job.model}` with the seed {job.seed}. The table has the spread.\n\n{comparability(params)}"
        for job in params.jobs
        if job.is_replicate and job.name not in table.missing_replicates
    }
    return models | replicates


def run_description(row: Row, params: Params) -> str:
    """Return a model's row of the table as a sentence."""
    val, protocol, train, val_paper, train_paper = (
        column.text(row) for column in columns("val", "val_protocol", "train", "val_paper", "train_paper")
    )
    mirrored = [row["model"]] if params.recipe(row["model"]).flip_at_test else []
    published = f" The paper: val {val_paper} %, train {train_paper} %." if comparable(params) else ""
    return (
        f"val **{val}** %, paper protocol {protocol} %, train {train} %, {count(row['epochs'])} epochs.{published}\n\n"
        + "".join(f"{line}; the saved model uses one view.\n\n" for line in mirrored_line(mirrored))
        + comparability(params)
    )
