"""Stage `evaluate@<model>`: metrics and predictions of one trained model, into results/<model>."""

import json
import sys
from pathlib import Path

import pandas as pd

from tiny_imagenet import entry, figures, lineage, runtime, tracking
from tiny_imagenet.errors import UserError


def main(model: str) -> None:
    """Evaluate models/MODEL on data/cache and add the figures to the MLflow run that trained it."""
    params = entry.checked_params()
    block = params.block(model)
    source, destination = Path("models") / model, Path("results") / model

    runtime.prepare(seed=0)  # nothing is drawn; before anything that imports Keras
    from tiny_imagenet import evaluation, model_file
    from tiny_imagenet.dataset.arrays import open_packed

    packed = open_packed(Path("data/cache"))
    trained = model_file.load_model(source / "model.keras")
    history = pd.read_csv(source / "history.csv")
    measured = evaluation.evaluate(trained, packed, history, block)
    evaluation.write_evaluation(measured, destination)
    figures.confusion_matrix(
        measured.confusion, packed.class_names, f"{model}, clean validation images", destination / "confusion"
    )
    print(f"{model}: validation accuracy {measured.metrics['val_accuracy']:.2%} on {len(packed.val):,} images")

    # run.json names the run; it is no dependency, so that a bit-identical retrain does not evaluate again.
    run = json.loads((source / "run.json").read_text(encoding="utf-8"))
    try:
        found = tracking.add_results(lineage.repository_root(), run["run_id"], measured.metrics, destination)
        later = "" if found else f"MLflow has no run {run['run_id']} (deleted, or made in another store)"
    except UserError as error:
        later = str(error)
    if later:
        print(f"{later}\n{model}: `compare` will see to its run", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(entry.run_for_model(main))
