"""Stages `train@<model>` and `replicate@<model>-<seed>`: one model trained by its recipe, as one MLflow run."""

import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from tiny_imagenet import entry, tracking
from tiny_imagenet.backend import devices, runtime
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import fingerprint, md5, only_one, write_text
from tiny_imagenet.config.params import Params
from tiny_imagenet.models.registry import architecture_source
from tiny_imagenet.repository import dvc, finished
from tiny_imagenet.tracking import sync

CHECKPOINTS = Path("checkpoints")


def main(model: str) -> None:
    """Train MODEL (a block of `models` in params.yaml, or a replicate) on data/cache into models/MODEL.

    A training that was stopped goes on after its last whole epoch, unless params, data, code or machine have changed.
    """
    params = entry.checked_params()
    params.block(model)
    if devices.process() > 0:  # it computes beside the first process, which alone writes files and the run
        _train(model, params)
        return
    failure = CHECKPOINTS / f"{model}.failed"
    with only_one(
        CHECKPOINTS / f"{model}.lock", f"{model} is being trained by another process: wait for it or stop it"
    ):
        failure.unlink(missing_ok=True)
        sync.drop_finished_checkpoint(params, model)  # trained again, though nothing may have changed
        try:
            _train(model, params)
        except Exception as error:  # also what nobody foresaw, as a GPU's memory that is full
            with suppress(OSError):  # the disk may be full
                kind = [] if isinstance(error, UserError) else [type(error).__name__]
                why = ": ".join([*kind, *filter(None, [str(error)])])
                write_text(failure, f"{why}\n")  # the table says so in the model's row
            raise


def training_key(params: Params, model: str, hashes: Mapping[str, str], numerics: Mapping[str, object]) -> str:
    """Return what differs where anything differs that decides the bits of a training."""
    return fingerprint({"params": params.fingerprint(model), "hashes": dict(hashes), "numerics": dict(numerics)})


def _see_architecture(params: Params, model: str) -> None:
    """Refuse to train another architecture than the one whose copy, beside the model, is the stage's dependency."""
    base, _ = params.replicated.get(model, (model, 0))
    copy, architecture = Path("models") / base / "architecture.py", params.block(model).architecture
    if copy.is_file() and copy.read_text(encoding="utf-8") != architecture_source(architecture):
        raise UserError(
            f"{copy} is not the source of {architecture} as it is now: it was edited after the stage "
            f"`architecture@{base}`; run `dvc repro` again"
        )


def _train(model: str, params: Params) -> None:
    started_at = datetime.now(UTC)
    recipe, seed = params.recipe(model), params.seed_of(model)
    root = dvc.repository_root()
    _see_architecture(params, model)

    runtime.prepare(seed, exact=params.determinism == "exact")  # before anything that imports Keras
    devices.join()
    from tiny_imagenet.dataset.packing import open_packed
    from tiny_imagenet.models import saved_model
    from tiny_imagenet.models import weights as pretrained
    from tiny_imagenet.models.registry import preprocessing_of
    from tiny_imagenet.training import train
    from tiny_imagenet.training.checkpoint import Checkpoint

    num_devices = devices.count(params.devices)
    packed = open_packed(Path("data/cache"))
    weights_file = pretrained.weights_file(recipe.weights, recipe.architecture)
    facts = {
        "profile": params.profile,
        "dataset": params.dataset.name,
        "seed": seed,
        "determinism": params.determinism,
        "weights": recipe.weights,
        "device": str(runtime.device()),
        "devices": num_devices,
        "threads": runtime.threads(),
        "backend": runtime.backend(),
        "precision": recipe.precision,
        "preprocessing": preprocessing_of(recipe.architecture, recipe.preprocessing),
    }
    record: dict[str, Any] = {
        "experiment": params.profile,
        **facts,
        "params": tracking.flatten(recipe.model_dump(mode="json")) | facts,
        **dvc.provenance(params.stage("train", model)),
        "versions": runtime.versions(),
        "images": {"classes": packed.num_classes, "train": len(packed.train), "val": len(packed.val)},
        "source": params.dataset.source,
    }
    weights = {"weights": md5(weights_file)} if weights_file else {}
    numerics = runtime.numerics() | {"devices": num_devices}
    architecture = {"architecture": architecture_source(recipe.architecture)}  # of which there may be no copy yet
    key = training_key(params, model, record["dependencies"] | weights | architecture, numerics)
    record["hashes"] |= {"params": params.fingerprint(model), "training": key} | weights
    is_first = devices.process() == 0
    checkpoint = Checkpoint(CHECKPOINTS / model, key, read_only=not is_first)
    history = checkpoint.history()
    devices.require_same("params, data, code, versions or processor", key)
    devices.require_same(f"the epochs that {CHECKPOINTS} has: they need one folder, shared by all", str(history))
    print(
        f"{model}: {recipe.architecture}, {recipe.epochs} epochs of {len(packed.train):,} images, on {facts['device']}"
    )
    if history:
        print(f"{model}: goes on after epoch {len(history)}, where it was stopped")
    elif checkpoint.other:
        print(
            f"{model}: begins anew; {checkpoint.other} is of other params, data, code, versions, processor or threads, "
            "and stays until this training is complete"
        )
    fit = partial(train.train, recipe, packed, seed=seed, weights_file=weights_file, checkpoint=checkpoint)
    if not is_first:
        with devices.shared_by(num_devices) as share:
            fit(share=share)
        return
    here = {"workspace": dvc.workspace()}
    # Whatever still seems to be running here is dead: this process alone holds the lock.
    tracking.mark_killed(root, name=model, tags=here, but=checkpoint.run_id)
    with tracking.start_run(
        root,
        experiment=params.profile,
        name=model,
        params=record["params"],
        tags=dvc.run_tags(record) | here,
        resume=checkpoint.run_id,
    ) as run:
        checkpoint.begin(run.run_id)
        run.log_history(history)
        run.log_dataset(sync.dataset_input(record))
        if record["git"]["dirty"]:
            run.log_text(dvc.git_diff(Path.cwd()), "git.diff")
        with devices.shared_by(num_devices) as share:
            trained = fit(callbacks=[run.epoch_callback()], share=share)
        folder = Path("models") / model
        classes = {"wnids": [str(wnid) for wnid in packed.classes["wnid"]], "class_names": packed.class_names}
        saved_model.save_model(trained.model, folder / "model.keras", **classes)
        train.write_history(trained.history, folder / "history.csv")
        run.log_artifact(folder / "history.csv")
        model_uri = run.log_model(
            saved_model.without_optimizer(trained.model),
            folder / "model.keras",
            runtime.requirements(),
            classes,
            packed.val.images[:1],
        )
        where = {"run_id": run.run_id, "tracking_uri": run.tracking_uri, "artifact_uri": run.artifact_uri}
        course = {
            "model_uri": model_uri,
            "model_md5": md5(folder / "model.keras"),
            "started_at": started_at.isoformat(timespec="seconds"),
            "epoch_seconds": trained.epoch_seconds,
            "images_per_second": trained.images_per_second,
            "resumed_from": trained.resumed_from,
        }
        train.write_json(where | record | course, folder / "run.json")
    finished.note(CHECKPOINTS / model, folder / "run.json")


if __name__ == "__main__":
    sys.exit(entry.run_for_model(main))
