"""Stage `train@<model>`: one model trained by its recipe, as one MLflow run."""

import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from tiny_imagenet import entry, lineage, runtime, tracking
from tiny_imagenet.files import fingerprint, md5, only_one
from tiny_imagenet.params import Params

CHECKPOINTS = Path("checkpoints")


def main(model: str) -> None:
    """Train MODEL (a block of `models` in params.yaml) on data/cache into models/MODEL.

    A training that was stopped goes on after its last whole epoch, unless params, data, code or machine have changed.
    """
    params = entry.checked_params()
    params.block(model)
    with only_one(
        CHECKPOINTS / f"{model}.lock", f"{model} is being trained by another process: wait for it or stop it"
    ):
        _train(model, params)


def training_key(params: Params, model: str, hashes: Mapping[str, str], numerics: Mapping[str, object]) -> str:
    """Return what differs where anything differs that decides the bits of a training."""
    return fingerprint({"params": params.fingerprint(model), "hashes": dict(hashes), "numerics": dict(numerics)})


def _train(model: str, params: Params) -> None:
    recipe = params.recipe(model)
    root = lineage.repository_root()
    stage = f"train@{model}"

    runtime.prepare(params.seed, exact=params.determinism == "exact")  # before anything that imports Keras
    from tiny_imagenet import model_file, pretrained, training
    from tiny_imagenet.checkpoint import Checkpoint
    from tiny_imagenet.dataset.arrays import open_packed

    packed = open_packed(Path("data/cache"))
    weights_file = pretrained.weights_file(recipe.weights)
    hashes = lineage.dependency_hashes(stage)
    weights = {"weights": md5(weights_file)} if weights_file else {}
    device = str(runtime.device())
    facts = {
        "profile": params.profile,
        "dataset": params.dataset.name,
        "seed": params.seed,
        "determinism": params.determinism,
        "weights": recipe.weights,
        "device": device,
        "threads": runtime.threads(),
        "backend": runtime.backend(),
        "precision": recipe.precision,
    }
    what = tracking.flatten(recipe.model_dump()) | facts
    checkpoint = Checkpoint(CHECKPOINTS / model, training_key(params, model, hashes | weights, runtime.numerics()))
    history = checkpoint.history()
    print(f"{model}: {recipe.architecture}, {recipe.epochs} epochs of {len(packed.train):,} images, on {device}")
    if history:
        print(f"{model}: goes on after epoch {len(history)}, where it was stopped")
    here = {"workspace": f"{platform.node()}:{Path.cwd()}"}
    tags = {"dvc.stage": stage} | here | lineage.git_state(Path.cwd())
    tags |= {f"dependency.{path}": digest for path, digest in (hashes | weights).items()}
    tags |= {f"version.{name}": version for name, version in runtime.versions().items()}
    # Whatever still seems to be running here is dead: this process alone holds the lock.
    tracking.mark_killed(root, name=model, tags=here, but=checkpoint.run_id)
    with tracking.start_run(
        root, experiment=params.profile, name=model, params=what, tags=tags, resume=checkpoint.run_id
    ) as run:
        checkpoint.begin(run.run_id)
        run.log_history(history)
        trained = training.train(
            recipe,
            packed,
            seed=params.seed,
            weights_file=weights_file,
            checkpoint=checkpoint,
            callbacks=[run.epoch_callback()],
        )
        folder = Path("models") / model
        wnids = [str(wnid) for wnid in packed.classes["wnid"]]
        model_file.save_model(trained.model, folder / "model.keras", wnids=wnids, class_names=packed.class_names)
        training.write_history(trained.history, folder / "history.csv")
        record = {
            "run_id": run.run_id,
            "tracking_uri": run.tracking_uri,
            "experiment": params.profile,
            **facts,
            "versions": runtime.versions(),
            "epoch_seconds": trained.epoch_seconds,
            "images_per_second": trained.images_per_second,
            "resumed_from": trained.resumed_from,
            "dependencies": hashes,
        }
        training.write_json(record, folder / "run.json")
        run.log_model(model_file.without_optimizer(trained.model), runtime.requirements(), packed.class_names)
        run.log_artifact(folder / "history.csv")
    checkpoint.remove()


if __name__ == "__main__":
    sys.exit(entry.run_for_model(main))
