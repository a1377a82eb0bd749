"""Stage `compare`: the table of all active models beside the paper's, in reports/, and on the terminal."""

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from tiny_imagenet import entry, plotting
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import read_json, replaced, write_text
from tiny_imagenet.config.params import Params
from tiny_imagenet.evaluation import figures as result_figures
from tiny_imagenet.reporting import audit, claims, documents, html, significance, wording
from tiny_imagenet.reporting import table as comparison
from tiny_imagenet.repository import dvc
from tiny_imagenet.repository.paths import OVERVIEW
from tiny_imagenet.tracking import sync

MODELS, RESULTS, DESTINATION = Path("models"), Path("results"), Path("reports")
FIGURES = DESTINATION / "figures"
DETERMINISM = Path("docs/results/determinism.json")
CURVES = {
    "training_accuracy": ("accuracy", "Training accuracy"),
    "validation_accuracy": ("val_accuracy", "Validation accuracy"),
    "training_loss": ("loss", "Training loss"),
    "validation_loss": ("val_loss", "Validation loss"),
}
PICTURES = {"classes": "Some classes", "augmentation": "The shared augmentation in params.yaml"}
OF_PAPER = {
    "accuracy_beside_paper": "figure 10", "training_accuracy": "figure 11", "validation_accuracy": "figure 12",
    "classes": "figures 1 to 4",
}  # fmt: skip


def main() -> None:
    """Write the table, the figures and the audit; see that every run in MLflow has its final metrics."""
    params = entry.checked_params()
    evidence = _evidence(params)
    table, paired = evidence.table, evidence.paired
    captions = _draw(evidence)
    same_bits = comparison.determinism(params, MODELS, DETERMINISM)
    figures_audited, claims_audited = (
        audit.figures_audit(params, table, evidence.metrics, _replicates(evidence)),
        claims.claims_audit(evidence),
    )
    write_text(DESTINATION / "results.csv", table.to_csv(index=False))
    write_text(DESTINATION / "differences.csv", paired.to_csv(index=False))
    write_text(DESTINATION / "results.tex", documents.results_latex(table, params))
    write_text(
        DESTINATION / "results.md",
        documents.results_markdown(table, params, captions, same_bits, paired),
    )
    write_text(DESTINATION / "audit.md", audit.audit_markdown(figures_audited, claims_audited, params))
    page = html.results_html(
        params=params, table=table, audit_figures=figures_audited, audit_claims=claims_audited, paired=paired,
        models=MODELS, results=RESULTS, figures=FIGURES, captions=captions, determinism=same_bits,
    )  # fmt: skip
    write_text(DESTINATION / "results.html", page)
    summary = wording.terminal_table(table, params)
    write_text(DESTINATION / "summary.txt", summary + "\n")
    print(summary)
    print("reports/results.html has all of it: figures, the audit against the paper, a page per model")

    # After a bit-identical retrain, which is a new run, `evaluate` has been skipped; a result may come from DVC's cache
    # without its run; MLflow's server may have been away.
    try:
        for line in sync.sync(
            params, wording.run_descriptions(table, params), wording.experiment_description(table, params)
        ):
            print(line)
    except UserError as error:
        raise UserError(
            f"the table is complete, see reports/results.md, but its runs in MLflow are not: {error}"
        ) from None


def _evidence(params: Params) -> claims.Evidence:
    """Gather what there is of the models and of the images."""
    data = comparison.images_report(params, OVERVIEW)
    table = comparison.results_table(params, MODELS, RESULTS, dvc.locked_images(Path.cwd()))
    models = list(table.dropna(subset="val_accuracy")["model"])
    return claims.Evidence(
        params=params, table=table, data=data,
        metrics={model: read_json(RESULTS / model / "metrics.json") for model in models},
        histories=comparison.read_histories(table, MODELS),
        paired=significance.paired_tests(RESULTS, models),
    )  # fmt: skip


def _replicates(evidence: claims.Evidence) -> dict[str, dict[str, Any]]:
    """Return replicate -> metrics.json, of those that have results."""
    missing = evidence.table.attrs["missing_replicates"]
    return {
        job.name: read_json(RESULTS / job.name / "metrics.json")
        for job in evidence.params.jobs
        if job.is_replicate and job.name not in missing
    }


def _draw(evidence: claims.Evidence) -> dict[str, str]:
    """Draw what concerns all models, and return the name of each figure -> its caption."""
    params, table, metrics = evidence.params, evidence.table, evidence.metrics
    histories, logs = evidence.histories, _logs(params.active)
    with_paper, captions = wording.comparable(params), _captions(params)
    epochs = table["epochs"].dropna()
    about = plotting.trained_on(params.dataset.name, evidence.data["used"], epochs)
    titles = {name: f"{caption}\n{about}" for name, caption in captions.items()}
    for name, (column, _) in CURVES.items():
        plotting.curves(histories, logs, column, titles[name], FIGURES / name, with_logs=with_paper)
    plotting.parameter_counts(table, FIGURES / "parameters")
    result_figures.accuracy_by_parameters(
        table, metrics, titles["accuracy_by_parameters"], FIGURES / "accuracy_by_parameters", with_paper=with_paper
    )
    result_figures.accuracy_bars(
        table, metrics, titles["accuracy_beside_paper"], FIGURES / "accuracy_beside_paper", with_paper=with_paper
    )
    for name in PICTURES:
        with replaced(FIGURES / f"{name}.png") as partial:
            shutil.copyfile(OVERVIEW / f"{name}.png", partial)
    return captions


def _captions(params: Params) -> dict[str, str]:
    """Return name of a figure -> its caption, which names the paper's where the two are of the same images."""
    others = [model for model in params.active if params.recipe(model).augmentation != params.shared_augmentation]
    captions = {
        "accuracy_beside_paper": "Accuracy",
        **{name: title for name, (_, title) in CURVES.items()},
        "parameters": "Parameters (the paper's figure 9)",
        "accuracy_by_parameters": "Accuracy and size",
        **PICTURES,
    }
    if others:
        concerned = "all models" if len(others) == len(params.active) else ", ".join(others)
        captions["augmentation"] += f" (another here: {concerned})"
    if not wording.comparable(params):
        return captions
    captions |= {name: f"{captions[name]} (the paper's {figure})" for name, figure in OF_PAPER.items()}
    return captions | {
        name: f"{captions[name]}: ours on images as they are, the authors' on augmented ones"
        for name in ("validation_accuracy", "validation_loss")
    }


def _logs(models: Iterable[str]) -> pd.DataFrame:
    """Return the authors' logs; a model that does what their run did has its base's, under its own name, too."""
    logs = comparison.authors_logs()
    published = {model: model.removesuffix(comparison.PUBLISHED) for model in models}
    own = [logs[logs["model"] == base].assign(model=model) for model, base in published.items() if model != base]
    return pd.concat([logs, *own])


if __name__ == "__main__":
    sys.exit(entry.run(main))
