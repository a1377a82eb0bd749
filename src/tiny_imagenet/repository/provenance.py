"""The origin of a training's result: settings, data, code, commit, environment and machine."""

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from tiny_imagenet.backend import devices, runtime
from tiny_imagenet.common.files import fingerprint, md5
from tiny_imagenet.common.schema import flatten
from tiny_imagenet.config.jobs import Job
from tiny_imagenet.config.params import Params
from tiny_imagenet.repository.dvc import dependency_hashes
from tiny_imagenet.repository.git import git_state
from tiny_imagenet.repository.records import TrainingSetup


def training_setup(
    params: Params,
    job: Job,
    *,
    images: Mapping[str, int],
    preprocessing: str,
    architecture: str,
    weights: str | None,
    weights_file: Path | None,
) -> TrainingSetup:
    """Return the setup of a training that starts now in the working directory.

    `architecture` is the source of the architecture, because it may be no dependency of the training. `weights` is None
    (random), "imagenet", or a path.
    """
    num_devices = devices.count(params.devices)
    facts: dict[str, Any] = {
        "profile": params.profile,
        "dataset": params.dataset.name,
        "seed": job.seed,
        "determinism": params.determinism,
        "weights": weights,
        "device": str(runtime.device()),
        "devices": num_devices,
        "threads": runtime.threads(),
        "backend": runtime.backend(),
        "precision": job.recipe.precision,
        "preprocessing": preprocessing,
    }
    dependencies = dependency_hashes(job)
    of_weights = {"weights": md5(weights_file)} if weights_file else {}
    key = training_key(
        job,
        dependencies | of_weights | {"architecture": architecture},
        runtime.numerics() | {"devices": num_devices},
    )
    return TrainingSetup(
        experiment=params.profile,
        **facts,
        params=flatten(job.recipe.model_dump(mode="json")) | facts,
        stage=job.train_stage,
        git=git_state(Path.cwd()),
        dependencies=dependencies,
        hashes={
            "data": fingerprint({path: digest for path, digest in dependencies.items() if path.startswith("data/")}),
            "environment": environment_hash(),
            "params": job.fingerprint,
            "training": key,
            **of_weights,
        },
        platform=f"{platform.platform()} on {platform.node()}",
        versions=runtime.versions(),
        images=dict(images),
        source=params.dataset.source,
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def training_key(job: Job, hashes: Mapping[str, str], numerics: Mapping[str, object]) -> str:
    """Return a fingerprint of everything that decides the bits of a training."""
    return fingerprint({"params": job.fingerprint, "hashes": dict(hashes), "numerics": dict(numerics)})


def environment_hash() -> str:
    """Return a hash of the versions of Python and of all installed packages."""
    installed = {package.metadata["Name"]: package.version for package in distributions()}
    return fingerprint({"python": platform.python_version(), "packages": installed})


def run_tags(setup: TrainingSetup) -> dict[str, str]:
    """Return the tags of the MLflow run of a training."""
    git = setup.git
    return {
        "dvc.stage": setup.stage,
        "git.commit": git.commit or ("refused" if git.problem else "none"),
        "git.dirty": "unknown" if git.dirty is None else str(git.dirty).lower(),
        **{f"{name}_hash": digest for name, digest in setup.hashes.items()},
        "hardware": setup.device,
        "platform": setup.platform,
        **{f"dependency.{path}": digest for path, digest in setup.dependencies.items()},
        **{f"version.{name}": version for name, version in setup.versions.items()},
    }
