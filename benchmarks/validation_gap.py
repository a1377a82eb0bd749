"""Test why two of the authors' models lose a third of their accuracy on validation images.

    dvc repro train@model_1 train@model_2         # 200 classes of real images, as many as there are
    python -m benchmarks.validation_gap           # half a minute; --workspace DIR for a trained pipeline elsewhere

The blocks of model_1 and model_2 in params.yaml need `paper_protocol_every_epoch: true`, which is off by default: the
curves are of augmented validation images, as the authors' are. docs/validation-gap.md has the whole edit.

Without model_2, the figures of model_1 are complete, and nothing is said of model_2.

Reads the models, their curves and the packed images of a workspace, and the authors' logs. Applies every candidate to
the predictions of our model 1, whose validation images are intact. Then fits the remaining one to the authors' curves
twice, by accuracy and by loss, which need not agree. Writes docs/results/validation_gap.
"""

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer

from tiny_imagenet import entry, plotting
from tiny_imagenet.backend import runtime
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import write_text
from tiny_imagenet.reporting import paper
from tiny_imagenet.repository.records import RunRecord, read_history

DESTINATION = Path("docs/results/validation_gap")
SUSPECT, OTHER = "model_1", "model_2"
PROTOCOL = "val_accuracy_paper_protocol"
SETTLED = 3
"""The first epoch whose running training accuracy is not mostly that of an untrained model."""


@dataclass(frozen=True)
class Cause:
    """The effect of a candidate on the validation accuracy of our model 1; fractions."""

    cause: str
    accuracy_before: float
    accuracy_after: float
    kept: float


def main(workspace: Annotated[Path, typer.Option(help="A pipeline with these models trained.")] = Path()) -> None:
    """Measure what each candidate costs, and fit the shifted class index to the authors' curves."""
    destination = DESTINATION.absolute()
    os.chdir(workspace)
    params = entry.checked_params()
    models = [SUSPECT] + [OTHER] * (Path("models") / OTHER / "history.csv").is_file()
    epochs = pd.concat(by_epoch(name) for name in models)
    runtime.prepare(seed=0)
    from tiny_imagenet.config.recipe import PAPER_AUGMENTATION
    from tiny_imagenet.evaluation import evaluate
    from tiny_imagenet.input_pipeline.packed import open_packed
    from tiny_imagenet.models import saved_model

    packed = open_packed(Path("data/cache"))
    if packed.num_classes != 200:
        raise UserError(f"{packed.num_classes} classes in {workspace}/data/cache; the 200 are needed")
    model = saved_model.load_model(Path("models") / SUSPECT / "model.keras")
    labels = packed.val.labels
    clean = evaluate.predict(model, packed.val, "validation, clean")
    augmented = evaluate.predict(model, packed.val, "validation, paper protocol", PAPER_AUGMENTATION)
    train = evaluate.predict_labels(model, packed.train, "training, clean")

    right = float((augmented.argmax(1) == labels).mean())
    by_missing = pd.DataFrame([shifted(augmented, labels, missing) for missing in range(200)])
    without_one = by_missing["accuracy_without_shift"]
    clean_right, train_right = float((clean.argmax(1) == labels).mean()), float((train == packed.train.labels).mean())
    causes = [
        Cause("augmented validation images", clean_right, right, right / clean_right),
        Cause("9,950 images: the class least missed is left out", right, without_one.max(), without_one.max() / right),
        Cause("9,950 images: the class most missed is left out", right, without_one.min(), without_one.min() / right),
        Cause("overfitting: from training to validation images", train_right, clean_right, clean_right / train_right),
    ]
    for missing in (50, 100, 150):
        accuracy = float(by_missing["accuracy"][missing])
        causes.append(Cause(f"the first {missing} classes shifted by one", right, accuracy, accuracy / right))

    final = epochs[epochs["model"] == SUSPECT].iloc[-1]
    penalty = float(sum(model.losses))  # of the weights, in the training loss as in the validation loss
    fits = fit(epochs, by_missing, right, train_loss=float(final["loss"]) - penalty)
    origin: dict[str, Any] = {
        "models": {name: trained(name) for name in models},
        "device": str(runtime.device()),
        "backend": runtime.backend(),
    }
    write(destination, causes, epochs, by_missing, fits, origin)
    draw(destination, epochs, by_missing, fits, right, params.dataset.name, origin["models"])
    print(pd.DataFrame([asdict(cause) for cause in causes]).round(4).to_string(index=False))
    print(json.dumps(fits, indent=2))


def shifted(probabilities: Any, labels: Any, missing: int) -> dict[str, float]:
    """Return the scores for a validation folder that lacks one class and has an empty folder that sorts first.

    Folders are numbered in their order: the classes before the missing one get the number after their own, the others
    keep theirs. `loss` is the cross-entropy.
    """
    used = labels != missing
    own = labels[used]
    given = np.where(own < missing, own + 1, own)
    chances = probabilities[used]
    return {
        "missing": missing,
        "share_shifted": float((own < missing).mean()),
        "accuracy": float((chances.argmax(1) == given).mean()),
        "accuracy_without_shift": float((chances.argmax(1) == own).mean()),
        "loss": cross_entropy(chances, given),
        "loss_without_shift": cross_entropy(chances, own),
    }


def cross_entropy(probabilities: Any, labels: Any) -> float:
    """Return the mean of -log of the probability of the label, as Keras clips it."""
    chosen = np.clip(probabilities[np.arange(len(labels)), labels].astype(np.float64), 1e-7, 1)
    return float(-np.log(chosen).mean())


def trained(model: str) -> dict[str, Any]:
    """Return the provenance of a model, from its run.json."""
    run = RunRecord.read(Path("models") / model / "run.json")
    shown = ("run_id", "started_at", "seed", "images", "device", "backend", "versions")
    return {key: getattr(run, key) for key in shown} | {
        "commit": run.git.commit,
        "changes_since_the_commit": run.git.dirty,
        "epochs": len(run.epoch_seconds),
        "seconds": round(sum(run.epoch_seconds), 1),
        "packed_images_fingerprint": run.hashes["data"],
    }


def by_epoch(model: str) -> pd.DataFrame:
    """Return the curves of a model, ours beside the authors', with the ratio of validation to training accuracy."""
    history = read_history(Path("models") / model / "history.csv").assign(model=model)
    if PROTOCOL not in history or history[PROTOCOL].isna().any():
        raise UserError(
            f"models/{model}/history.csv has no {PROTOCOL} of every epoch: set `paper_protocol_every_epoch: true` in "
            f"models.{model} of params.yaml, and run `dvc repro train@{model}`"
        )
    logs = paper.authors_logs()
    theirs = logs[logs["model"] == model].set_index("epoch")[["accuracy", "val_accuracy", "loss", "val_loss"]]
    epochs = history.join(theirs.add_suffix("_authors"), on="epoch")
    epochs["ratio"] = epochs[PROTOCOL] / epochs["accuracy"]
    epochs["ratio_authors"] = epochs["val_accuracy_authors"] / epochs["accuracy_authors"]
    epochs["kept"] = epochs["ratio_authors"] / epochs["ratio"]
    return epochs


def fit(epochs: pd.DataFrame, by_missing: pd.DataFrame, right: float, train_loss: float) -> dict[str, Any]:
    """Return the share of shifted classes that explains the authors' curves of each model.

    By accuracy, for each epoch: the shift that keeps the same share of accuracy as theirs has of ours. By loss, for the
    model whose predictions we have: the shift that gives the same gap between validation and training loss as theirs.
    """
    shares, kept = by_missing["share_shifted"], by_missing["accuracy"] / right
    found: dict[str, Any] = {}
    for model, frame in epochs.groupby("model"):
        settled = frame[frame["epoch"] >= SETTLED]
        asked = np.interp(-settled["kept"], -np.maximum.accumulate(kept[::-1])[::-1], shares)
        found[str(model)] = {
            "share_by_accuracy": {
                "median": round(float(np.median(asked)), 3),
                "lowest": round(float(asked.min()), 3),
                "highest": round(float(asked.max()), 3),
                "first_epochs": round(float(np.median(asked[:4])), 3),
                "last_epochs": round(float(np.median(asked[-4:])), 3),
            }
        }
    last = epochs[epochs["model"] == SUSPECT].iloc[-1]
    gap = float(last["val_loss_authors"] - last["loss_authors"])
    ours = by_missing["loss"] - train_loss
    found[SUSPECT]["share_by_loss"] = round(float(np.interp(gap, ours, shares)), 3)
    found[SUSPECT]["loss_gap_authors"] = round(gap, 3)
    found[SUSPECT]["loss_gap_without_shift"] = round(float(by_missing["loss_without_shift"].mean() - train_loss), 3)
    return found


def write(
    folder: Path, causes: list[Cause], epochs: pd.DataFrame, by_missing: pd.DataFrame, fits: dict[str, Any], origin: Any
) -> None:
    """Write the results as data."""
    causes_frame = pd.DataFrame([asdict(cause) for cause in causes])
    write_text(folder / "causes.csv", causes_frame.round(5).to_csv(index=False))
    write_text(folder / "epochs.csv", epochs.round(5).to_csv(index=False))
    write_text(folder / "shift.csv", by_missing.round(5).to_csv(index=False))
    write_text(folder / "fits.json", json.dumps({"fits": fits, "origin": origin}, indent=2) + "\n")


def draw(
    folder: Path,
    epochs: pd.DataFrame,
    by_missing: pd.DataFrame,
    fits: dict[str, Any],
    right: float,
    dataset: str,
    runs: Mapping[str, Any],
) -> None:
    """Draw the ratio of validation to training accuracy by epoch, and the accuracy that a shift keeps.

    `runs` is model -> `trained`; all have the same images.
    """
    logs = paper.authors_logs()
    images = runs[SUSPECT]["images"]
    about = plotting.trained_on(dataset, images, [run["epochs"] for run in runs.values()])
    title = f"Validation as a share of training accuracy\nours: {about}"
    with plotting.new_figure(folder / "ratios", 6.4, 4, title=title) as (_, axes):
        axis = axes[0, 0]
        models = sorted(logs["model"].unique())
        for colour, model in zip(plotting.cycle(len(models)), models, strict=True):
            log = logs[logs["model"] == model]
            axis.plot(
                log["epoch"], log["val_accuracy"] / log["accuracy"], "--", color=colour, label=f"authors' {model}"
            )
            ours = epochs[epochs["model"] == model]
            if len(ours):
                axis.plot(ours["epoch"], ours["ratio"], "o-", markersize=3, color=colour, label=f"our {model}")
        axis.axhline(1, color="gray", linewidth=1)
        axis.set(xlabel="epoch", ylabel="ratio", ylim=(0, 2.3))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    about = plotting.trained_on(dataset, images, [runs[SUSPECT]["epochs"]])
    title = f"Our model 1 with a shifted class index\n{about}"
    with plotting.new_figure(folder / "shift", 6.4, 3.6, title=title) as (_, axes):
        axis = axes[0, 0]
        axis.plot(
            by_missing["share_shifted"],
            by_missing["accuracy"] / right,
            color=plotting.COLOURS[0],
            label="accuracy that is kept",
        )
        axis.plot(
            by_missing["share_shifted"],
            by_missing["loss_without_shift"].mean() / by_missing["loss"],
            color=plotting.COLOURS[1],
            label="loss without a shift / with it",
        )
        asked = fits[SUSPECT]["share_by_accuracy"]
        axis.axvspan(
            asked["lowest"],
            asked["highest"],
            color=plotting.COLOURS[0],
            alpha=0.2,
            label="asked for by the authors' accuracies",
        )
        axis.axvline(
            fits[SUSPECT]["share_by_loss"],
            color=plotting.COLOURS[1],
            linestyle="--",
            label="asked for by their last losses",
        )
        axis.set(
            xlabel="share of the classes that are shifted",
            ylabel="share that is kept",
            ylim=(0, 1.05),
        )
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))


if __name__ == "__main__":
    sys.exit(entry.run(lambda: typer.run(main)))
