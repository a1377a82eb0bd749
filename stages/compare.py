"""Stage `compare`: the table of all active models beside the paper's, in reports/, and on the terminal."""

import json
import shutil
import sys
from pathlib import Path

from tiny_imagenet import comparison, entry, figures, lineage, report, tracking
from tiny_imagenet.files import replaced, write_text

CACHE, MODELS, RESULTS, DESTINATION = Path("data/cache"), Path("models"), Path("results"), Path("reports")
DETERMINISM = Path("docs/results/determinism.json")
FIGURES = {
    "training_accuracy": ("accuracy", "Training accuracy (the paper's figure 11)"),
    "validation_accuracy": ("val_accuracy", "Validation accuracy (the paper's figure 12)"),
}
PICTURES = {"classes": "Some classes (the paper's figures 1 to 4)", "augmentation": "The augmentation"}


def main() -> None:
    """Write the table and the figures; see that every run in MLflow has its final metrics."""
    params = entry.checked_params()
    table = comparison.results_table(params, MODELS, RESULTS)
    histories, logs = comparison.read_histories(params, MODELS), comparison.authors_logs()
    like_the_paper = params.dataset.name == "tiny-imagenet-200"
    captions = {}
    for name, (column, caption) in FIGURES.items():
        figures.accuracy_curves(
            histories, logs, column, caption, DESTINATION / "figures" / name, with_logs=like_the_paper
        )
        captions[caption] = f"figures/{name}.png"
    for name, caption in PICTURES.items():
        with replaced(DESTINATION / "figures" / f"{name}.png") as partial:
            shutil.copyfile(CACHE / f"{name}.png", partial)
        captions[caption] = f"figures/{name}.png"
    figures.parameter_counts(table, DESTINATION / "figures" / "parameters")
    captions["Parameters (the paper's figure 9)"] = "figures/parameters.png"
    write_text(DESTINATION / "results.csv", table.to_csv(index=False))
    unconcerned = comparison.without_batch_normalization(params, RESULTS)
    same_bits = comparison.determinism(params, MODELS, DETERMINISM)
    write_text(DESTINATION / "results.md", report.results_markdown(table, params, captions, unconcerned, same_bits))
    summary = report.terminal_table(table, params, unconcerned)
    write_text(DESTINATION / "summary.txt", summary + "\n")
    print(summary)

    # A bit-identical retrain is a new run, and `evaluate` has been skipped: its metrics are copied here.
    root = lineage.repository_root()
    for row in table.dropna(subset="run_id").to_dict("records"):
        metrics = json.loads((RESULTS / row["model"] / "metrics.json").read_text(encoding="utf-8"))
        if not tracking.add_results(root, row["run_id"], metrics):
            print(f"{row['model']}: MLflow has no run {row['run_id']} (deleted, or made in another store)")


if __name__ == "__main__":
    sys.exit(entry.run(main))
