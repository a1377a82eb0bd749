"""Stages `train@<model>` and `replicate@<model>-<seed>`: one model trained by its recipe, as one MLflow run."""

import sys
from functools import partial

from tiny_imagenet import entry, tracking
from tiny_imagenet.backend import devices, runtime
from tiny_imagenet.common.files import md5, only_one
from tiny_imagenet.config.jobs import Job
from tiny_imagenet.config.params import Params
from tiny_imagenet.models import registry, weights
from tiny_imagenet.repository import dvc, provenance, workspace
from tiny_imagenet.repository.paths import CACHE, CHECKPOINTS, MODELS
from tiny_imagenet.repository.records import RunRecord


def main(name: str) -> None:
    """Train MODEL (a block of `models` in params.yaml, or a replicate) on data/cache into models/MODEL.

    A training that was stopped resumes after its last complete epoch, unless params, data, code or machine changed.
    """
    params = entry.checked_params()
    job = params.job(name)
    if devices.process() > 0:  # it computes beside the first process, which alone writes files and the run
        _train(params, job)
        return
    with only_one(workspace.lock_file(name), f"{name} is being trained by another process: wait for it or stop it"):
        workspace.forget_failure(name)
        workspace.drop_finished_checkpoint(job, starting=True)
        try:
            _train(params, job)
        except Exception as error:  # also those that nobody foresaw, such as a GPU out of memory
            workspace.note_failure(name, error)
            raise


def _train(params: Params, job: Job) -> None:
    recipe, source = job.recipe, registry.architecture_source(job.recipe.architecture)
    workspace.require_architecture(job, source)

    runtime.prepare(job.seed, exact=params.determinism == "exact")  # before anything that imports Keras
    devices.join()
    from tiny_imagenet.input_pipeline.packed import open_packed
    from tiny_imagenet.models import saved_model
    from tiny_imagenet.training import train as training
    from tiny_imagenet.training.checkpoint import Checkpoint

    packed = open_packed(CACHE)
    weights_file = weights.weights_file(recipe.weights, recipe.architecture)
    setup = provenance.training_setup(
        params,
        job,
        images={"classes": packed.num_classes, "train": len(packed.train), "val": len(packed.val)},
        preprocessing=registry.preprocessing_of(recipe.architecture, recipe.preprocessing),
        architecture=source,
        weights_file=weights_file,
    )
    is_first = devices.process() == 0
    checkpoint = Checkpoint(CHECKPOINTS / job.name, setup.hashes["training"], read_only=not is_first)
    history = checkpoint.history()
    devices.require_same("params, data, code, versions or processor", setup.hashes["training"])
    devices.require_same(f"the epochs that {CHECKPOINTS} has: they need one folder, shared by all", str(history))
    print(
        f"{job.name}: {recipe.architecture}, {recipe.epochs} epochs of {len(packed.train):,} images, on {setup.device}"
    )
    if history:
        print(f"{job.name}: resuming after epoch {len(history)}")
    elif checkpoint.other:
        print(
            f"{job.name}: starting from scratch; checkpoint {checkpoint.other} (other params, data, code, versions, "
            "processor or threads) is kept until this training is complete"
        )
    fit = partial(training.train, recipe, packed, seed=job.seed, weights_file=weights_file, checkpoint=checkpoint)
    if not is_first:
        with devices.shared_by(setup.devices) as share:
            fit(share=share)
        return
    root, here = dvc.repository_root(), {"workspace": workspace.workspace_id()}
    # Runs that still seem to be running here are dead: this process alone holds the lock.
    tracking.mark_killed(root, name=job.name, tags=here, but=checkpoint.run_id)
    with tracking.start_run(
        root,
        experiment=params.profile,
        name=job.name,
        params=setup.params,
        tags=provenance.run_tags(setup) | here,
        resume=checkpoint.run_id,
    ) as run:
        checkpoint.begin(run.run_id)
        run.log_history(history)
        run.log_dataset(setup)
        if setup.git.dirty:
            run.log_text(setup.git.diff, "git.diff")
        with devices.shared_by(setup.devices) as share:
            trained = fit(callbacks=[run.epoch_callback()], share=share)
        folder = MODELS / job.name
        classes = {"wnids": [str(wnid) for wnid in packed.classes["wnid"]], "class_names": packed.class_names}
        saved_model.save_model(trained.model, folder / "model.keras", **classes)
        training.write_history(trained.history, folder / "history.csv")
        run.log_artifact(folder / "history.csv")
        model_uri = run.log_model(
            saved_model.without_optimizer(trained.model),
            folder / "model.keras",
            runtime.requirements(),
            classes,
            packed.val.images[:1],
        )
        RunRecord(
            **setup.as_dict(),
            run_id=run.run_id,
            tracking_uri=run.tracking_uri,
            artifact_uri=run.artifact_uri,
            model_uri=model_uri,
            model_md5=md5(folder / "model.keras"),
            epoch_seconds=trained.epoch_seconds,
            images_per_second=trained.images_per_second,
            resumed_from=trained.resumed_from,
            best_epoch=trained.best_epoch,
        ).write(folder / "run.json")
    workspace.note_finished(job.name)


if __name__ == "__main__":
    sys.exit(entry.run_for_model(main))
