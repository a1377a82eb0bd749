"""Results that are kept in git, as data with their provenance, and the section of README that is made from them.

A folder of docs/results has results.csv and differences.csv, as `compare` wrote them; histories.csv, all epochs of all
models; params.yaml, the parts of it that these results are made from; and provenance.json. Folders from before `keep`
wrote differences.csv or params.yaml lack them. Nothing in one is an image, and nothing names a place on the machine.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import PARTIAL_SUFFIX, md5, read_csv, read_json, write_text
from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.table import group_of
from tiny_imagenet.reporting.wording import (
    NOTES,
    PRETRAINED,
    comparable,
    count,
    interval,
    markdown_table,
    mirrored_line,
    percent,
)

FOLDER = Path("docs/results")
BEGIN, END = "<!-- results: made by `make readme` from docs/results -->", "<!-- end of results -->"
_TABLE, _DIFFERENCES, _PROVENANCE, _HISTORIES = "results.csv", "differences.csv", "provenance.json", "histories.csv"
_PARAMS = "params.yaml"
_FILES = {_TABLE, _DIFFERENCES, _PROVENANCE, _HISTORIES, _PARAMS}
_SHOWN = (
    "model", "train_accuracy_paper", "val_accuracy_paper", "train_accuracy", "val_accuracy", "val_accuracy_low",
    "val_accuracy_high", "val_accuracy_paper_protocol", "val_top5_accuracy", "epochs", "best_epoch",
    "images_per_second", "seconds", "weights",
)  # fmt: skip
_NEEDED = (
    "run_id", "profile", "git", "hashes", "versions", "device", "threads", "backend", "started_at",
    "epoch_seconds", "images", "params",
)  # fmt: skip


def keep(name: str, about: str, params: Params, now: pd.DataFrame) -> Path:
    """Keep what the working directory has now as docs/results/<name>, and return that folder.

    Args:
        name: of the folder.
        about: what a reader should know of these figures, in a sentence.
        params: what the results are of.
        now: the table that the files give now, by `comparison.results_table`.

    Raises:
        UserError: the name is none of a folder, or one of other files; there is no table; a model of it has no results,
            or others than the table says.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"'{name}' cannot be the name of a folder in {FOLDER}: letters, digits, - and _ alone")
    folder = FOLDER / name
    others = sorted(path.name for path in folder.glob("*") if path.name.removesuffix(PARTIAL_SUFFIX) not in _FILES)
    if others:
        raise UserError(f"{folder} has files that `keep` did not make ({', '.join(others[:3])}): choose another name")
    try:
        table = pd.read_csv(Path("reports") / _TABLE)
        differences = (Path("reports") / _DIFFERENCES).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"reports/{_TABLE} and {_DIFFERENCES} cannot be read ({error}): run `dvc repro`") from None
    without = table.loc[table["run_id"].isna(), "model"]
    if len(without):
        raise UserError(f"{', '.join(without)}: no results to keep; run `dvc repro`, or take them out of `active`")
    runs = {model: read_json(Path("models") / model / "run.json", _NEEDED) for model in table["model"]}
    shown = dict(zip(now["model"], now["run_id"], strict=True))
    stale = [model for model, run_id in zip(table["model"], table["run_id"], strict=True) if run_id != shown.get(model)]
    if stale:
        raise UserError(f"{', '.join(stale)}: reports/{_TABLE} is not of what is here now: run `dvc repro` first")
    histories = [read_csv(Path("models") / model / "history.csv").assign(model=model) for model in runs]
    provenance = {
        "about": about,
        "comparable_with_the_paper": comparable(params),
        "archive_md5": md5(Path("data/raw/dataset.zip")),
        "models": {model: _provenance(run) for model, run in runs.items()},
    }
    table["weights"] = [Path(weights).name for weights in table["weights"]]  # may be a path
    (folder / _PROVENANCE).unlink(missing_ok=True)  # nothing reads a folder without, should this be stopped half-way
    write_text(folder / _TABLE, table.drop(columns="run_id").to_csv(index=False))
    write_text(folder / _DIFFERENCES, differences)
    write_text(folder / _HISTORIES, pd.concat(histories).set_index("model").to_csv())
    recipe = yaml.safe_dump(_made_from(params, list(runs)), sort_keys=False, default_flow_style=None, width=120)
    write_text(folder / _PARAMS, recipe)
    write_text(folder / _PROVENANCE, json.dumps(provenance, indent=2) + "\n")
    return folder


def _made_from(params: Params, models: list[str]) -> dict[str, Any]:
    """Return what params.yaml says of these models and their images, as it is written there; of paths the last part."""
    values = params.model_dump(mode="json", exclude_unset=True)
    keys = ("profile", "profiles", "seed", "determinism", "devices", "augmentation", "replicates")
    kept = {key: values[key] for key in keys if key in values}
    kept["profiles"] = {params.profile: values["profiles"][params.profile]}
    kept |= {"active": models, "models": {model: values["models"][model] for model in models}}
    return {key: _without_places(value) for key, value in kept.items()}


def _without_places(value: Any) -> Any:
    """Return the value with each absolute path in it reduced to the name of its file."""
    if isinstance(value, dict):
        return {key: _without_places(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_places(part) for part in value]
    absolute = isinstance(value, str) and value.startswith(("/", "~", "file://"))
    return Path(value).name if absolute else value


def _provenance(run: dict[str, Any]) -> dict[str, Any]:
    return {
        "run_id": run["run_id"],
        "commit": run["git"]["commit"],
        "changes_since_the_commit": run["git"]["dirty"],
        "changed_files": _changed_files(run["git"].get("diff") or ""),
        "started_at": run["started_at"],
        "seconds": round(sum(run["epoch_seconds"]), 1),
        "images": run["images"],
        "data": run["hashes"]["data"],
        "device": run["device"],
        "threads": run["threads"],
        "backend": run["backend"],
        "versions": run["versions"],
        "params": {key: value for key, value in run["params"].items() if not str(value).startswith("/")},
    }


def _changed_files(diff: str) -> list[str]:
    """Return the files, as far as known, that the difference of a dirty tree tells of: `git.diff` of run.json."""
    if "characters of difference: left out" in diff.partition("\n")[0]:
        return []
    return re.findall(r'^(?:diff --git .* "?b/|# new file: "?)(.*?)"?$', diff, flags=re.MULTILINE)


def readme_section() -> str:
    """Return the section of README, without its marks, from all folders of docs/results in their order."""
    parts = [_section(path.parent) for path in sorted(FOLDER.glob(f"*/{_PROVENANCE}"))]
    return "\n".join(parts) if parts else "None are kept yet.\n"


def _section(folder: Path) -> str:
    needed = ("about", "comparable_with_the_paper", "models", "archive_md5")
    provenance = read_json(folder / _PROVENANCE, needed, remedy=_remedy(folder))
    try:
        rows = pd.read_csv(folder / _TABLE, usecols=_SHOWN).to_dict("records")
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / _TABLE} cannot be read ({error}): {_remedy(folder)}") from None
    beside_paper = provenance["comparable_with_the_paper"]
    apart = [group_of(row["model"], pretrained=row["weights"] != "random") == PRETRAINED for row in rows]
    lines = []
    for pretrained in (False, True):
        chosen = [row for row, other in zip(rows, apart, strict=True) if other == pretrained]
        lines += [f"**{PRETRAINED}.** {NOTES[PRETRAINED]}", ""] if pretrained and chosen else []
        lines += [*_table(chosen, beside_paper=beside_paper), ""] if chosen else []
    models = provenance["models"]
    mirrored = mirrored_line([name for name, one in models.items() if one["params"].get("flip_at_test")])
    ending = " ".join([*(f"{line}." for line in mirrored), _origin(folder, provenance)])
    return "\n".join([f"### {folder.name}", "", provenance["about"], "", *lines, ending, ""])


def _table(rows: Sequence[Mapping[Any, Any]], *, beside_paper: bool) -> list[str]:
    headings = [
        "model", "train", "val (95 % interval)", "paper protocol", "top-5", "epochs", "best", "images/s", "minutes"
    ]  # fmt: skip
    if beside_paper:
        headings[1:1] = ["paper: train", "paper: val"]
    cells = []
    for row in rows:
        paper = [percent(row["train_accuracy_paper"]), percent(row["val_accuracy_paper"])] if beside_paper else []
        cells.append(
            [
                row["model"],
                *paper,
                percent(row["train_accuracy"]),
                interval(row),
                percent(row["val_accuracy_paper_protocol"]),
                percent(row["val_top5_accuracy"]),
                count(int(row["epochs"])),
                count(int(row["best_epoch"])),
                "-" if pd.isna(row["images_per_second"]) else f"{row['images_per_second']:,.0f}",
                f"{row['seconds'] / 60:.1f}",
            ]
        )
    return markdown_table(headings, cells)


def _remedy(folder: Path) -> str:
    return f"`git checkout {folder}` brings it back"


def _origin(folder: Path, provenance: dict[str, Any]) -> str:
    """Return one sentence on where the figures of a folder come from; what is not the same for all is listed."""
    models = provenance["models"].values()

    def every(*values: object) -> str:
        return " / ".join(dict.fromkeys(str(value) for value in values))

    images = every(
        *(
            f"{one['images']['train']:,} training and {one['images']['val']:,} validation images of "
            f"{one['images']['classes']} classes"
            for one in models
        )
    )
    commits = every(*(_commit(one) for one in models))
    days = every(*(one["started_at"][:10] for one in models))
    seeds = every(*(one["params"]["seed"] for one in models))
    versions = every(*(f"Keras {one['versions']['keras']} on {one['backend']}" for one in models))
    return (
        f"Accuracy in percent. {images}; seed {seeds}; {every(*(one['device'] for one in models))}; {versions}; commit "
        f"{commits}; {days}. Everything else: [{folder.as_posix()}]({folder.as_posix()})."
    )


def _commit(one: dict[str, Any]) -> str:
    files = one.get("changed_files") or []  # unknown of folders from before `keep` wrote it
    shown = [*files[:3], *([f"{len(files) - 3:,} more"] if len(files) > 3 else [])]
    where = f" to {', '.join(shown)}" if shown else ""
    changed = f" with uncommitted changes{where}" if one["changes_since_the_commit"] else ""
    return (one["commit"] or "no commit")[:12] + changed


def updated(readme: str) -> str:
    """Return README with its section made anew; raises UserError where the marks are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"README.md has no '{BEGIN}' and '{END}' for the results to stand between")
    return f"{before}{BEGIN}\n\n{readme_section()}\n{END}{after}"
