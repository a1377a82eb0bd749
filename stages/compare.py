"""Stage `compare`: the table of all active models beside the paper's, in reports/, and on the terminal."""

import shutil
import sys
from pathlib import Path

from tiny_imagenet import comparison, entry, figures, report, results_files, sync
from tiny_imagenet.errors import UserError
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
    write_text(
        DESTINATION / "results.md", results_files.results_markdown(table, params, captions, unconcerned, same_bits)
    )
    summary = report.terminal_table(table, params, unconcerned)
    write_text(DESTINATION / "summary.txt", summary + "\n")
    print(summary)

    # After a bit-identical retrain, which is a new run, `evaluate` has been skipped; a result may come from DVC's cache
    # without its run; MLflow's server may have been away.
    try:
        for line in sync.sync(params, table):
            print(line)
    except UserError as error:
        raise UserError(
            f"the table is complete, see reports/results.md, but its runs in MLflow are not: {error}"
        ) from None


if __name__ == "__main__":
    sys.exit(entry.run(main))
