"""Where a model's figures come from, as run.json has it, in words."""

from collections.abc import Mapping
from typing import Any

from tiny_imagenet.reporting.html.formats import MISSING, shown

_HASHES = {"data": "data, all together", "environment": "Python and packages", "params": "recipe and seed",
           "training": "all that decides the bits", "weights": "pretrained weights"}  # fmt: skip


def facts(run: Mapping[str, Any], determinism: str | None) -> dict[str, str]:
    """Return what is known of a run, label -> value; `determinism` is what a double run showed.

    The addresses of the store and of the data are left out of it: they may hold the name of a machine.
    """
    git, images, params = run.get("git") or {}, run.get("images") or {}, run.get("params") or {}
    seconds = run.get("epoch_seconds") or []
    known: dict[str, Any] = {
        "commit": _commit(git),
        "profile": run.get("profile"),
        "dataset": run.get("dataset"),
        "source of the data": run.get("source"),
        "images": _images(images),
        "MLflow run": run.get("run_id"),
        "seed": run.get("seed"),
        "determinism asked for": params.get("determinism"),
        "the same bits twice": determinism or "not checked",
        "hardware": run.get("device"),
        "threads": params.get("threads"),
        "backend": run.get("backend"),
        "precision": run.get("precision"),
        "weights at the start": run.get("weights") or "random",
        "started": _time(run.get("started_at")),
        "seconds of training": f"{sum(seconds):,.1f}" if seconds else None,
        "seconds of each epoch": ", ".join(f"{second:.1f}" for second in seconds) or None,
        "stopped, and gone on after epoch": shown(run["resumed_from"]) if run.get("resumed_from") else "never stopped",
    }
    known |= {f"MD5 of {path}": digest for path, digest in _dependencies(run, data=True).items()}
    known["versions"] = ", ".join(f"{name} {version}" for name, version in (run.get("versions") or {}).items()) or None
    return {label: MISSING if value is None else shown(value) for label, value in known.items()}


def hashes(run: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Return the other hashes of a run, by kind: what they are of -> hash."""
    fingerprints: Mapping[str, Any] = run.get("hashes") or {}
    groups: dict[str, dict[str, str]] = {
        "Fingerprints": {_HASHES.get(name, name): shown(value) for name, value in fingerprints.items()},
        "MD5 of the code": _dependencies(run, data=False),
    }
    return {kind: group for kind, group in groups.items() if group}


def shared(by_model: Mapping[str, Mapping[str, str]]) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Return what is the same for all models, and label -> model -> value of what is not."""
    labels = list(dict.fromkeys(label for found in by_model.values() for label in found))
    same: dict[str, str] = {}
    different: dict[str, dict[str, str]] = {}
    for label in labels:
        values = {model: found.get(label, MISSING) for model, found in by_model.items()}
        if len(set(values.values())) == 1:
            same[label] = next(iter(values.values()))
        else:
            different[label] = values
    return same, different


def _dependencies(run: Mapping[str, Any], *, data: bool) -> dict[str, str]:
    """Return path -> MD5 of the data, or of the code, that a run depends on."""
    dependencies: Mapping[str, Any] = run.get("dependencies") or {}
    return {path: shown(digest) for path, digest in dependencies.items() if path.startswith("data/") == data}


def _commit(git: Mapping[str, Any]) -> str | None:
    if not git.get("commit"):
        return None
    if git.get("dirty") is None:
        return str(git["commit"])
    return f"{git['commit']}, {'with uncommitted changes' if git['dirty'] else 'nothing uncommitted'}"


def _images(images: Mapping[str, Any]) -> str | None:
    if not images:
        return None
    return ", ".join(f"{number:,} {what}" for what, number in images.items())


def _time(moment: str | None) -> str | None:
    return moment and moment.replace("T", " ").replace("+00:00", " UTC")
