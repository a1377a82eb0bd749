"""Show the provenance of a model's results, from its run.json."""

from collections.abc import Mapping
from typing import Any

from tiny_imagenet.reporting.html.formats import DASH, shown
from tiny_imagenet.repository.records import GitState, RunRecord

_HASHES = {"data": "all data", "environment": "Python and packages", "params": "recipe and seed",
           "training": "everything that decides the bits", "weights": "pretrained weights"}  # fmt: skip


def facts(run: RunRecord, determinism: str | None) -> dict[str, str]:
    """Return the facts of a run, label -> value, without addresses of the store and the name of the machine.

    `determinism` is the value of `ReportInputs.determinism`.
    """
    known: dict[str, Any] = {
        "commit": _commit(run.git),
        "profile": run.profile,
        "dataset": run.dataset,
        "source of the data": run.source,
        "images": ", ".join(f"{number:,} {kind}" for kind, number in run.images.items()) or None,
        "MLflow run": run.run_id,
        "seed": run.seed,
        "determinism setting": run.determinism,
        "the same bits twice": determinism or "not checked",
        "hardware": run.device,
        "threads": run.threads,
        "backend": run.backend,
        "precision": run.precision,
        "weights at the start": run.weights or "random",
        "started": run.started_at.replace("T", " ").replace("+00:00", " UTC"),
        "seconds of training": f"{sum(run.epoch_seconds):,.1f}" if run.epoch_seconds else None,
        "seconds of each epoch": ", ".join(f"{second:.1f}" for second in run.epoch_seconds) or None,
        "stopped, and resumed after epoch": shown(run.resumed_from) if run.resumed_from else "never stopped",
    }
    known |= {f"MD5 of {path}": digest for path, digest in _dependencies(run, data=True).items()}
    known["versions"] = ", ".join(f"{name} {version}" for name, version in run.versions.items()) or None
    return {label: DASH if value is None else shown(value) for label, value in known.items()}


def hashes(run: RunRecord) -> dict[str, dict[str, str]]:
    """Return the other hashes of a run: kind -> name -> hash."""
    groups = {
        "Fingerprints": {_HASHES.get(name, name): value for name, value in run.hashes.items()},
        "MD5 of the code": _dependencies(run, data=False),
    }
    return {kind: group for kind, group in groups.items() if group}


def shared(by_model: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return label -> value of the facts that all models share, and label -> model -> value of the others."""
    labels = dict.fromkeys(label for own in by_model.values() for label in own)
    values = {label: {model: own.get(label, DASH) for model, own in by_model.items()} for label in labels}
    different = {label: by for label, by in values.items() if len(set(by.values())) > 1}
    return {label: next(iter(by.values())) for label, by in values.items() if label not in different}, different


def _dependencies(run: RunRecord, *, data: bool) -> dict[str, str]:
    """Return path -> MD5 of the data (or else of the code) that a run depends on."""
    return {path: digest for path, digest in run.dependencies.items() if path.startswith("data/") == data}


def _commit(git: GitState) -> str | None:
    if git.commit is None or git.dirty is None:
        return git.commit
    return f"{git.commit}, {'with uncommitted changes' if git.dirty else 'nothing uncommitted'}"
