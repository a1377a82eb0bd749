"""Stages `evaluate@<model>` and `evaluate_replicate@...`: measure a trained model and write results/<model>."""

import sys

from tiny_imagenet import entry, plotting
from tiny_imagenet.backend import runtime
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.repository import dvc
from tiny_imagenet.repository.paths import CACHE, MODELS, RESULTS
from tiny_imagenet.repository.records import RunRecord, read_history
from tiny_imagenet.tracking.results import add_results


def main(name: str) -> None:
    """Evaluate models/MODEL on data/cache and add the metrics to the MLflow run that trained it."""
    job = entry.checked_params().job(name)
    source, destination = MODELS / name, RESULTS / name

    runtime.prepare(seed=0)  # no random numbers are used; before anything that imports Keras
    from tiny_imagenet.evaluation import evaluate, figures
    from tiny_imagenet.input_pipeline.packed import open_packed
    from tiny_imagenet.models import saved_model

    packed = open_packed(CACHE)
    run = RunRecord.read(source / "run.json")  # not a dependency: a bit-identical retrain needs no new evaluation
    trained, history = saved_model.load_model(source / "model.keras"), read_history(source / "history.csv")
    measured = evaluate.evaluate(trained, packed, history, job.recipe, best_epoch=run.best_epoch)
    evaluate.write_evaluation(measured, destination, model_md5=run.model_md5)
    about = plotting.trained_on(run.dataset, run.images, [measured.metrics.epochs])
    figures.draw(measured, packed, f"{name}, clean validation images\n{about}", destination / "figures")
    print(f"{name}: validation accuracy {measured.metrics.val_accuracy:.2%} on {len(packed.val):,} images")
    try:
        exists = add_results(dvc.repository_root(), run.run_id, measured.metrics.as_dict(), destination)
        problem = "" if exists else f"MLflow has no run {run.run_id} (deleted, or made in another store)"
    except UserError as error:
        problem = str(error)
    if problem:
        print(f"{problem}\n{name}: `compare` will complete its run", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(entry.run_for_model(main))
