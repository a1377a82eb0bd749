"""Keep results in git as data with their provenance, and write the Markdown tables of README from them.

A folder of docs/results has the tables of reports/ (results.csv, differences.csv, audit.csv, audit.md); the epochs,
metrics and classes of all models and replicates (histories.csv, metrics.json, per_class.csv); their settings
(params.yaml); figures/ without photographs; and provenance.json. Older folders have fewer files. No file has a path of
the machine.
"""

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import PARTIAL_SUFFIX, md5, read_json, write_text
from tiny_imagenet.common.schema import yaml_text
from tiny_imagenet.common.tables import read_csv
from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.audit import UNTESTED
from tiny_imagenet.reporting.columns import Row, columns, markdown_rows
from tiny_imagenet.reporting.figures import DRAWN
from tiny_imagenet.reporting.formats import markdown
from tiny_imagenet.reporting.paper import comparable
from tiny_imagenet.reporting.table import PRETRAINED, TYPES, ResultsTable, concatenated, group_of
from tiny_imagenet.reporting.wording import NOTES, mirrored_line
from tiny_imagenet.repository.paths import ARCHIVE, KEPT_RESULTS, MODELS, REPORTS, RESULTS
from tiny_imagenet.repository.records import RunRecord

PAPER_RESULTS = "paper"
"""Folder of docs/results for results on all of the paper's images. README shows it if it exists."""
_FIGURES = {
    "accuracy_beside_paper": "Validation accuracy of each model beside the paper's",
    "validation_accuracy": "Validation accuracy after each epoch",
}
"""Figures that README shows if the folder has them."""
BEGIN, END = "<!-- results: made by `make readme` from docs/results -->", "<!-- end of results -->"
_TABLE, _AUDIT, _PROVENANCE = "results.csv", "audit.csv", "provenance.json"
_COPIED = ("differences.csv", _AUDIT, "audit.md", *(f"figures/{name}.svg" for name in DRAWN))
"""Files of reports/, copied without paths of the machine."""
_FILES = {_TABLE, _PROVENANCE, "histories.csv", "metrics.json", "per_class.csv", "params.yaml", *_COPIED}
_SHOWN = (
    "model", "train_accuracy_paper", "train_accuracy_authors_log", "val_accuracy_paper", "val_accuracy_authors_log",
    "train_accuracy", "val_accuracy", "val_accuracy_low", "val_accuracy_high", "val_accuracy_paper_protocol",
    "val_top5_accuracy", "epochs", "best_epoch", "images_per_second", "seconds", "weights",
)  # fmt: skip
_FOLDERS = re.compile(
    r"""\A(?:file://|~[^/\n]*)?/(?:.*/)?|"""  # the whole text is a path
    r"""(?<=['"`])~?/[^'"`\n]*/(?=[^'"`])|"""  # in quotes, where a name may have spaces
    r"""(?<![\w/.:<>-])(?:file://|~(?=/))?/(?:[^\s/'"`|,;:()<>]+/)*(?=[^\s/'"`|,;:()>])"""
)
"""The folders of each absolute path in a text."""


def keep(name: str, about: str, params: Params, now: ResultsTable) -> Path:
    """Copy the current results to docs/results/<name>, and return that folder.

    `about` is one sentence for readers, `now` the current `results_table`. A model without results keeps its row;
    provenance.json says why it has none.

    Raise UserError if the name is not valid, the folder has other files, reports/ is missing or stale, or no model
    has results.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise UserError(f"'{name}' cannot be the name of a folder in {KEPT_RESULTS}: use letters, digits, - and _")
    folder = KEPT_RESULTS / name
    present = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    others = sorted(path for path in present if path.removesuffix(PARTIAL_SUFFIX) not in _FILES)
    if others:
        raise UserError(f"{folder} has files that `keep` did not make ({', '.join(others[:3])}): choose another name")
    table = read_csv(REPORTS / _TABLE, dict.fromkeys(("model", "run_id", "weights"), str), remedy="run `dvc repro`")
    try:
        copied = {path: (REPORTS / path).read_text(encoding="utf-8") for path in _COPIED}
    except (OSError, ValueError) as error:
        raise UserError(f"a file of {REPORTS} cannot be read ({error}): run `dvc repro`") from None
    reported = dict(zip(table["model"], table["run_id"], strict=True))
    current = {row["model"]: "" if row["model"] in now.status else row["run_id"] for row in now.rows}
    stale = [model for model in reported | current if reported.get(model) != current.get(model)]
    if stale:
        raise UserError(
            f"{', '.join(stale)}: {REPORTS / _TABLE} does not show the current results: run `dvc repro` first"
        )
    if not now.with_results:
        raise UserError("no model has results to keep: run `dvc repro`")
    names = list(now.metrics)
    provenance = {
        "about": about,
        "comparable_with_the_paper": comparable(params),
        "archive_md5": md5(ARCHIVE),
        "group": dict(now.group),
        "status": _without_folders(dict(now.status)),
        "models": {model: _provenance(now.runs[model]) for model in now.with_results},
        "replicates": {name: _provenance(now.runs[name]) for name in names if name not in params.active},
    }
    table["weights"] = _without_folders(table["weights"].tolist())
    metrics = {name: values.as_dict() for name, values in now.metrics.items()}
    (folder / _PROVENANCE).unlink(missing_ok=True)  # if killed half-way: a folder without it is ignored
    for path, text in {
        _TABLE: table.drop(columns="run_id").to_csv(index=False),
        "histories.csv": concatenated(MODELS, names, "history.csv").to_csv(index=False),
        "per_class.csv": concatenated(RESULTS, names, "per_class.csv").to_csv(index=False),
        "metrics.json": json.dumps(metrics, indent=2) + "\n",
        "params.yaml": yaml_text(_settings(params), width=120),
        **{path: _without_folders(text) if path in (_AUDIT, "audit.md") else text for path, text in copied.items()},
        _PROVENANCE: json.dumps(provenance, indent=2) + "\n",
    }.items():
        write_text(folder / path, text)
    return folder


def _without_folders(value: Any) -> Any:
    """Return a value with each absolute path in it cut to the file's name: text, or a list or dict of values."""
    if isinstance(value, dict):
        return {key: _without_folders(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_folders(part) for part in value]
    return _FOLDERS.sub("", value) if isinstance(value, str) else value


def _settings(params: Params) -> dict[str, Any]:
    """Return the part of params.yaml that the active models and their images depend on."""
    values = params.model_dump(mode="json", exclude_unset=True)
    keys = ("profile", "profiles", "seed", "determinism", "devices", "augmentation", "replicates")
    kept = {key: values[key] for key in keys if key in values}
    kept["profiles"] = {params.profile: values["profiles"][params.profile]}
    kept |= {"active": list(params.active), "models": {model: values["models"][model] for model in params.active}}
    settings: dict[str, Any] = _without_folders(kept)
    return settings


def _provenance(run: RunRecord) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "commit": run.git.commit,
        "changes_since_the_commit": run.git.dirty,
        "changed_files": _changed_files(run.git.diff),
        "started_at": run.started_at,
        "seconds": round(sum(run.epoch_seconds), 1),
        "images": run.images,
        "data": run.hashes["data"],
        "device": run.device,
        "threads": run.threads,
        "backend": run.backend,
        "versions": run.versions,
        "params": _without_folders(run.params),
    }


def _changed_files(diff: str) -> list[str]:
    """Return the files with uncommitted changes, from `git.diff` of run.json."""
    if "characters of difference: left out" in diff.partition("\n")[0]:
        return []
    return re.findall(r'^(?:diff --git .* "?b/|# new file: "?)(.*?)"?$', diff, flags=re.MULTILINE)


def readme_section() -> str:
    """Return README's section without its marks: the table of docs/results/paper if that exists.

    Otherwise it is that of the folder with the most training images, and the section says so.
    """
    folders = _folders()
    if not folders:
        return "None are kept yet.\n"
    paper = KEPT_RESULTS / PAPER_RESULTS
    if paper in folders:
        return _table(paper, Path())
    folder = max(folders, key=_training_images)
    note = (
        f"No results on all of the paper's images are kept yet ({paper.as_posix()}). Of those that are, these have the "
        "most training images."
    )
    return f"{note}\n\n{_table(folder, Path())}"


def index() -> str:
    """Return docs/results/README.md: the table of each folder of docs/results."""
    parts = [f"## {folder.name}\n\n{_table(folder, KEPT_RESULTS)}" for folder in _folders()]
    heading = (
        "# Kept results\n\n"
        "`tiny-imagenet keep NAME --about TEXT` keeps the present results in a folder here, and `tiny-imagenet readme` "
        "writes this page. The paper's accuracies are shown only beside results on all of the paper's images.\n"
    )
    return "\n".join([heading, *parts])


def _folders() -> list[Path]:
    return sorted(path.parent for path in KEPT_RESULTS.glob(f"*/{_PROVENANCE}"))


def _training_images(folder: Path) -> int:
    models = _read_provenance(folder)["models"].values()
    return max((model["images"]["train"] for model in models), default=0)


def _read_provenance(folder: Path) -> dict[str, Any]:
    needed = ("about", "comparable_with_the_paper", "models", "archive_md5")
    return read_json(folder / _PROVENANCE, needed, remedy=_remedy(folder))


def _table(folder: Path, page: Path) -> str:
    """Return a folder of docs/results as Markdown, for a page in the folder `page`."""
    provenance = _read_provenance(folder)
    shown_types = {name: TYPES[name] for name in _SHOWN}
    rows = read_csv(folder / _TABLE, shown_types, remedy=_remedy(folder)).to_dict("records")
    verdicts = _verdicts(folder)
    rows = [row | {"verdict": verdicts.get(row["model"])} for row in rows]
    groups = provenance.get("group") or {  # older folders lack it
        row["model"]: group_of(row["model"], pretrained=row["weights"] != "random") for row in rows
    }
    with_paper = provenance["comparable_with_the_paper"]
    shown = columns(
        "model", "train_paper", "train_log", "train", "val_paper", "val_log", "val_protocol", "verdict", "val",
        "val_top5", "epochs", "best_epoch", *(() if with_paper else ("images_per_second", "minutes")),
        with_paper=with_paper,
    )  # fmt: skip
    blocks = [provenance["about"]]
    for pretrained in (False, True):
        chosen: list[Row] = [row for row in rows if (groups[row["model"]] == PRETRAINED) == pretrained]
        blocks += [f"**{PRETRAINED}.** {NOTES[PRETRAINED]}"] if pretrained and chosen else []
        blocks += [markdown_rows(shown, chosen)] if chosen else []
    models_by_reason: dict[str, list[str]] = defaultdict(list)
    for model, reason in provenance.get("status", {}).items():
        models_by_reason[reason].append(model)
    status = [markdown(f"{', '.join(names)}: {reason}.") for reason, names in models_by_reason.items()]
    blocks += [f"**Not finished.** {' '.join(status)}"] if status else []
    link = folder.relative_to(page).as_posix()
    figures = [
        f"![{caption}]({link}/figures/{name}.svg)"
        for name, caption in _FIGURES.items()
        if (folder / "figures" / f"{name}.svg").is_file()
    ]
    blocks += ["\n".join(figures)] if figures else []
    models = provenance["models"]
    mirrored = mirrored_line([name for name, one in models.items() if one["params"].get("flip_at_test")])
    ending = " ".join([*(f"{line}." for line in mirrored), _origin(provenance), f"Everything else: [{link}]({link})."])
    return "\n\n".join([*blocks, ending]) + "\n"


def _verdicts(folder: Path) -> dict[str, str]:
    """Return the verdict on the accuracies of each model: "train below, val reproduced"."""
    if not (folder / _AUDIT).is_file():  # older folders lack it
        return {}
    audited = read_csv(folder / _AUDIT, dict.fromkeys(("model", "quantity", "verdict"), str), remedy=_remedy(folder))
    found: dict[str, list[str]] = defaultdict(list)
    for model, quantity, verdict in audited[["model", "quantity", "verdict"]].itertuples(index=False):
        if verdict != UNTESTED and quantity.endswith("accuracy"):
            found[model].append(f"{'train' if quantity.startswith('train') else 'val'} {verdict}")
    return {model: ", ".join(verdicts) for model, verdicts in found.items()}


def _remedy(folder: Path) -> str:
    return f"`git checkout {folder}` restores it"


def _origin(provenance: dict[str, Any]) -> str:
    """Return one sentence on the origin of a folder's results, with all values that differ among its models."""
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
        f"{commits}; {days}."
    )


def _commit(one: dict[str, Any]) -> str:
    files = one.get("changed_files") or []  # older folders lack it
    shown = [*files[:3], *([f"{len(files) - 3:,} more"] if len(files) > 3 else [])]
    where = f" to {', '.join(shown)}" if shown else ""
    changed = f" with uncommitted changes{where}" if one["changes_since_the_commit"] else ""
    return (one["commit"] or "no commit")[:12] + changed


def updated(readme: str) -> str:
    """Return README with its section updated; raise UserError if the marks are missing."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"README.md lacks the lines '{BEGIN}' and '{END}': put them around the results")
    return f"{before}{BEGIN}\n\n{readme_section()}\n{END}{after}"
