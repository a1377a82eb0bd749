"""Stage `train@<model>`: one model trained by its recipe, as one MLflow run."""

import sys
from pathlib import Path

from tiny_imagenet import entry, lineage, runtime, tracking


def main(model: str) -> None:
    """Train MODEL (a block of `models` in params.yaml) on data/cache into models/MODEL."""
    params = entry.checked_params()
    recipe = params.recipe(model)
    root = lineage.repository_root()
    stage = f"train@{model}"

    runtime.prepare(params.seed)  # before anything that imports Keras
    from tiny_imagenet import model_file, pretrained, training
    from tiny_imagenet.dataset.arrays import open_packed

    packed = open_packed(Path("data/cache"))
    weights_file = pretrained.weights_file(recipe.weights)
    hashes = lineage.dependency_hashes(stage)
    device = runtime.device()
    print(f"{model}: {recipe.architecture}, {recipe.epochs} epochs of {len(packed.train):,} images, on {device}")
    facts = {
        "profile": params.profile,
        "dataset": params.dataset.name,
        "seed": params.seed,
        "weights": recipe.weights,
        "device": str(device),
        "backend": runtime.backend(),
        "precision": runtime.precision(),
    }
    tags = {"dvc.stage": stage, "weights": str(recipe.weights), "device": str(device)} | lineage.git_state(Path.cwd())
    tags |= {f"dependency.{path}": digest for path, digest in hashes.items()}
    tags |= {f"version.{name}": version for name, version in runtime.versions().items()}
    logged = tracking.flatten(recipe.model_dump()) | facts
    with tracking.start_run(root, experiment=params.profile, name=model, params=logged, tags=tags) as run:
        trained = training.train(
            recipe, packed, seed=params.seed, weights_file=weights_file, callbacks=[run.epoch_callback()]
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
            "resumed_from": [],
            "dependencies": hashes,
        }
        training.write_json(record, folder / "run.json")
        run.log_model(model_file.without_optimizer(trained.model), runtime.requirements(), packed.class_names)
        run.log_artifact(folder / "history.csv")


if __name__ == "__main__":
    sys.exit(entry.run_for_model(main))
