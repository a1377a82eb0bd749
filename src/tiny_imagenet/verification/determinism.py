"""Check that a seed gives the same bits twice: compare the hashes of weights and history of two short trainings.

python -m tiny_imagenet.verification.determinism MODEL EPOCHS BATCHES      # one training
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tiny_imagenet import entry
from tiny_imagenet.backend import devices, runtime
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import fingerprint, write_text
from tiny_imagenet.config.params import Params
from tiny_imagenet.repository import dvc
from tiny_imagenet.repository.paths import CACHE

_MARK = "result: "


def verify(model: str, params: Params, *, epochs: int = 2, batches: int = 8) -> dict[str, Any]:
    """Train `model` twice for `epochs` of `batches`, in the working directory, and return the outcome.

    Keys: `same` (bool), `weights` and `history` (SHA-256 of each process), `epochs`, `batches`, `params` (fingerprint
    of the recipe and the seed), `dependencies` (fingerprint of data and code), `determinism`, `device`, `threads`,
    `backend`, `versions`. Raise UserError if the data is not packed yet, or a training failed.
    """
    if not (CACHE / "classes.csv").is_file():
        raise UserError("the dataset has not been packed yet: run `dvc repro cache`")
    job = params.job(model)
    first, second = (_in_fresh_process(model, epochs, batches, number) for number in (1, 2))
    hashes = {key: [first.pop(key), second.pop(key)] for key in ("weights", "history")}
    return {
        "same": all(one == two for one, two in hashes.values()),
        **hashes,
        "epochs": epochs,
        "batches": batches,
        "params": job.fingerprint,
        "determinism": params.determinism,
        "dependencies": fingerprint(dvc.dependency_hashes(job)),
        **first,
    }


def record(model: str, outcome: dict[str, Any], path: Path) -> None:
    """Write the outcome for a model to a JSON file that has one for each model."""
    try:
        outcomes = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); `git checkout {path}` restores it") from None
    write_text(path, json.dumps(outcomes | {model: outcome}, indent=2, sort_keys=True) + "\n")


def _in_fresh_process(model: str, epochs: int, batches: int, number: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tiny_imagenet.verification.determinism", model, str(epochs), str(batches)]
    # Without this, hash seeds differ between two processes by chance only.
    done = subprocess.run(
        command, env=os.environ | {"PYTHONHASHSEED": str(number)}, stdout=subprocess.PIPE, text=True, check=False
    )
    marked = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not marked:
        raise UserError(f"training {number} of 2 failed with exit code {done.returncode}, see above")
    return dict(json.loads(marked[-1].removeprefix(_MARK)))


def _train_briefly(model: str, epochs: int, batches: int) -> None:
    params = entry.checked_params()
    job = params.job(model)
    runtime.prepare(job.seed, exact=params.determinism == "exact")
    import keras

    from tiny_imagenet.input_pipeline.packed import PackedDataset, Split, open_packed
    from tiny_imagenet.models import weights as pretrained
    from tiny_imagenet.training import train

    recipe, weights_file = job.recipe, pretrained.weights_file(job.recipe.weights, job.recipe.architecture)
    schedule, tuning = recipe.learning_rate_schedule, recipe.fine_tuning
    head_epochs = min(tuning.head_epochs, epochs - 1) if tuning else 0
    recipe = recipe.model_copy(
        update={
            "epochs": epochs,
            "batches_per_epoch": batches,
            "learning_rate_schedule": schedule
            and schedule.model_copy(update={"warmup_epochs": min(schedule.warmup_epochs, (epochs - head_epochs) / 2)}),
            # With one epoch there is only the second phase.
            "fine_tuning": tuning and tuning.model_copy(update={"head_epochs": head_epochs}),
        }
    )
    packed = open_packed(CACHE)
    few = slice(batches * recipe.batch_size)
    packed = PackedDataset(packed.train, Split(packed.val.images[few], packed.val.labels[few]), packed.classes)
    with devices.shared_by(devices.count(params.devices)) as share:
        trained = train.train(recipe, packed, seed=job.seed, weights_file=weights_file, share=share)
    weights = hashlib.sha256()
    for weight in trained.model.weights:
        weights.update(keras.ops.convert_to_numpy(weight).tobytes())
    outcome = {
        "weights": weights.hexdigest(),
        "history": hashlib.sha256(trained.history.to_csv(index=False).encode()).hexdigest(),
        "device": str(runtime.device()),
        "threads": runtime.threads(),
        "backend": runtime.backend(),
        "versions": runtime.versions(),
    }
    print(_MARK + json.dumps(outcome))  # noqa: T201 - read by the other process


if __name__ == "__main__":
    sys.exit(entry.run(lambda: _train_briefly(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
