"""Stages `train@<model>` and `replicate@<model>-<seed>`: train one model by its recipe, as one MLflow run."""

import sys
from functools import partial

from tiny_imagenet import entry
from tiny_imagenet.backend import devices, processor, runtime
from tiny_imagenet.common.files import md5, only_one
from tiny_imagenet.config.jobs import Job
from tiny_imagenet.config.params import Params
from tiny_imagenet.models import registry, weights
from tiny_imagenet.repository import provenance, workspace
from tiny_imagenet.repository.paths import CACHE, CHECKPOINTS, MODELS
from tiny_imagenet.repository.records import RunRecord
from tiny_imagenet.tracking.run import training_run


def main(name: str) -> None:
    """Train MODEL (a block of `models` in params.yaml, or a replicate) on data/cache into models/MODEL.

    A stopped training resumes after its last completed epoch, unless params, data, code or machine changed.
    """
    params = entry.checked_params()
    job = params.job(name)
    if devices.process() > 0:  # only the first process writes files and the run
        _train(params, job)
        return
    with only_one(workspace.lock_file(name), f"{name} is being trained by another process: wait for it or stop it"):
        workspace.forget_failure(name)
        workspace.drop_finished_checkpoint(job, starting=True)
        try:
            _train(params, job)
        except Exception as error:  # also unforeseen ones, such as a GPU out of memory
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
    from tiny_imagenet.training.checkpoint import open_checkpoint

    packed, weights_file = open_packed(CACHE), weights.weights_file(recipe.weights, recipe.architecture)
    setup = provenance.training_setup(
        params,
        job,
        images={"classes": packed.num_classes, "train": len(packed.train), "val": len(packed.val)},
        preprocessing=registry.preprocessing_of(recipe.architecture, recipe.preprocessing),
        architecture=source,
        weights=weights.origin(recipe.weights, recipe.architecture, weights_file),
        weights_file=weights_file,
    )
    images, where = f"{len(packed.train):,} images", setup.device
    print(f"{job.name}: {recipe.architecture}, {recipe.epochs} epochs of {images}, on {where}", flush=True)
    if runtime.device().kind == "cpu" and (reason := processor.slow_precision(recipe.precision)):
        print(f"{job.name}: {reason}", flush=True)
    checkpoint = open_checkpoint(CHECKPOINTS / job.name, setup.hashes["training"])
    fit = partial(training.train, recipe, packed, seed=job.seed, weights_file=weights_file, checkpoint=checkpoint)
    if devices.process() > 0:
        with devices.shared_by(setup.devices) as share:
            fit(share=share)
        return
    with training_run(setup, job.name, resume=checkpoint.run_id, history=checkpoint.history()) as run:
        checkpoint.begin(run.run_id)
        with devices.shared_by(setup.devices) as share:
            trained = fit(callbacks=[run.epoch_callback()], share=share)
        model, history = (MODELS / job.name / file for file in ("model.keras", "history.csv"))
        saved_model.save_model(trained.model, model, **packed.class_lists)
        training.write_history(trained.history, history)
        run.log_artifact(history)
        served = saved_model.without_optimizer(trained.model)
        model_uri = run.log_model(served, model, runtime.requirements(), packed.class_lists, packed.val.images[:1])
        RunRecord(
            **setup.as_dict(), run_id=run.run_id, tracking_uri=run.tracking_uri, artifact_uri=run.artifact_uri,
            model_uri=model_uri, model_md5=md5(model), epoch_seconds=trained.epoch_seconds,
            images_per_second=trained.images_per_second, resumed_from=trained.resumed_from,
            best_epoch=trained.best_epoch,
        ).write(MODELS / job.name / "run.json")  # fmt: skip
    workspace.note_finished(job.name)


if __name__ == "__main__":
    sys.exit(entry.run_for_model(main))
