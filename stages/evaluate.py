"""Stages `evaluate@<model>` and `evaluate_replicate@...`: how good one trained model is, into results/<model>."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from tiny_imagenet import entry, plotting, tracking
from tiny_imagenet.backend import runtime
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import read_json
from tiny_imagenet.evaluation import figures as result_figures
from tiny_imagenet.repository import dvc

if TYPE_CHECKING:  # both import Keras, which `runtime.prepare` comes before
    from tiny_imagenet.dataset.packing import PackedDataset
    from tiny_imagenet.evaluation.evaluate import Evaluation


def main(model: str) -> None:
    """Evaluate models/MODEL on data/cache and add the figures to the MLflow run that trained it."""
    params = entry.checked_params()
    recipe = params.recipe(model)
    source, destination = Path("models") / model, Path("results") / model

    runtime.prepare(seed=0)  # nothing is drawn; before anything that imports Keras
    from tiny_imagenet.dataset.packing import open_packed
    from tiny_imagenet.evaluation import evaluate
    from tiny_imagenet.models import saved_model

    packed = open_packed(Path("data/cache"))
    # run.json is no dependency, so that a bit-identical retrain does not evaluate again.
    run = read_json(source / "run.json", ("run_id", "model_md5", "dataset", "images"))
    trained = saved_model.load_model(source / "model.keras")
    history = pd.read_csv(source / "history.csv")
    measured = evaluate.evaluate(trained, packed, history, recipe)
    evaluate.write_evaluation(measured, destination, model_md5=run["model_md5"])
    about = plotting.trained_on(run["dataset"], run["images"], [measured.metrics["epochs"]])
    _draw(measured, packed, f"{model}, clean validation images\n{about}", destination)
    print(f"{model}: validation accuracy {measured.metrics['val_accuracy']:.2%} on {len(packed.val):,} images")
    try:
        found = tracking.add_results(dvc.repository_root(), run["run_id"], measured.metrics, destination)
        later = "" if found else f"MLflow has no run {run['run_id']} (deleted, or made in another store)"
    except UserError as error:
        later = str(error)
    if later:
        print(f"{later}\n{model}: `compare` will see to its run", file=sys.stderr)


def _draw(measured: "Evaluation", packed: "PackedDataset", title: str, destination: Path) -> None:
    names = packed.class_names
    result_figures.confusion_matrix(measured.confusion, names, title, destination / "confusion")
    result_figures.best_and_worst_classes(measured.per_class, title, destination / "classes")
    result_figures.calibration(measured.calibration, title, destination / "calibration")
    result_figures.gallery(packed.val.images, measured.predictions, names, title, destination / "gallery")


if __name__ == "__main__":
    sys.exit(entry.run_for_model(main))
