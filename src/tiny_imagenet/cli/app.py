"""The command `tiny-imagenet`.

Each command imports what it needs when it runs: together the imports take seconds, which `--help` need not wait for.
"""

import atexit
import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tiny_imagenet import entry
from tiny_imagenet.cli import scale_commands
from tiny_imagenet.common import signals
from tiny_imagenet.common.errors import UserError

if TYPE_CHECKING:
    from tiny_imagenet.config.params import Params

REFERENCE = Path("docs/reference")
_ANSWERS = {True: "ok", False: "FAILS", None: "skipped"}

app = typer.Typer(
    help="Work with the results of the Tiny ImageNet pipeline, which `dvc repro` makes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


app.command()(scale_commands.train)
app.command()(scale_commands.sweep)


@app.command()
def results() -> None:
    """Print the table of results of the last `dvc repro`."""
    from tiny_imagenet.repository import dvc
    from tiny_imagenet.repository.paths import SUMMARY

    path = dvc.repository_root() / SUMMARY
    if not path.is_file():
        raise UserError("there are no results yet: run `dvc repro`")
    print(path.read_text(encoding="utf-8"), end="")


@app.command()
def keep(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Folder of docs/results to write.")],
    about: Annotated[str, typer.Option(metavar="TEXT", help="One sentence about these results.")],
) -> None:
    """Keep the current results in docs/results/NAME for git: data and provenance.

    Replaces an earlier folder of that name.
    """
    from tiny_imagenet.reporting import kept_results
    from tiny_imagenet.reporting.table import data_report, results_table
    from tiny_imagenet.repository import dvc

    os.chdir(dvc.repository_root())
    params = entry.checked_params()
    data_report(params)
    folder = kept_results.keep(name, about, params, results_table(params))
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}; run `make readme` to update README")


@app.command()
def readme(
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit with 1 if a page is out of date.")
    ] = False,
) -> None:
    """Write the generated pages: README's results, docs/results, docs/reference."""
    from tiny_imagenet.cli import reference
    from tiny_imagenet.common.files import write_text
    from tiny_imagenet.reporting import kept_results
    from tiny_imagenet.repository import dvc
    from tiny_imagenet.repository.paths import KEPT_RESULTS

    os.chdir(dvc.repository_root())
    path = Path("README.md")
    pages = {path: kept_results.updated(path.read_text(encoding="utf-8"))} | {
        KEPT_RESULTS / "README.md": kept_results.index(),
        REFERENCE / "params.md": reference.params_reference(),
        REFERENCE / "params.schema.json": reference.params_schema(),
        REFERENCE / "commands.md": reference.commands_reference(app),
    }
    stale = [page for page, text in pages.items() if not page.is_file() or page.read_text(encoding="utf-8") != text]
    if stale and check:
        raise UserError(f"{', '.join(map(str, stale))}: out of date; run `tiny-imagenet readme`")
    for page in stale:
        write_text(page, pages[page])
    print(f"{len(pages)} generated pages are up to date")


@app.command()
def data() -> None:
    """Describe the packed dataset: counts, stray files, duplicates."""
    from tiny_imagenet.reporting import wording
    from tiny_imagenet.repository import dvc
    from tiny_imagenet.repository.paths import OVERVIEW
    from tiny_imagenet.repository.records import DataReport

    path = dvc.repository_root() / OVERVIEW / "report.json"
    if not path.is_file():
        raise UserError("the dataset has not been packed yet: run `dvc repro cache`")
    print(wording.data_summary(DataReport.read(path)))


@app.command()
def unpack(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder for the new folders `train` and `val`.")],
) -> None:
    """Write the images as class folders of JPEG files, for other tools."""
    from tiny_imagenet.dataset import unpack as unpacking
    from tiny_imagenet.repository import dvc
    from tiny_imagenet.repository.paths import IMAGES

    for split, count in unpacking.unpack(dvc.repository_root() / IMAGES, folder).items():
        print(f"{folder / split}: {count:,} images")


@app.command()
def sync() -> None:
    """Log to MLflow what it lacks of the current results: whole runs or parts.

    `dvc repro` does the same when it makes the table.
    """
    from tiny_imagenet.reporting import wording
    from tiny_imagenet.reporting.table import results_table
    from tiny_imagenet.repository import dvc
    from tiny_imagenet.tracking import sync as synchronization

    os.chdir(dvc.repository_root())
    params = entry.checked_params()
    table = results_table(params)
    for line in synchronization.sync(
        params, wording.run_descriptions(table, params), wording.experiment_description(table, params)
    ):
        print(line)
    print(f"MLflow has the runs of {len(table.with_results)} of {len(params.active)} active models")


@app.command()
def check(
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Also check that this model is active.")] = None,
) -> None:
    """Check params.yaml and pretrained weights, and print what `dvc repro` will use.

    Fetches missing weights. Removes a truncated dvc.lock.
    """
    from tiny_imagenet.backend import processor
    from tiny_imagenet.models import weights
    from tiny_imagenet.parallel.sweep import plan
    from tiny_imagenet.reporting import wording
    from tiny_imagenet.repository import dvc
    from tiny_imagenet.repository.paths import PARAMS

    if dvc.remove_broken_lock(dvc.repository_root()):
        print("removed dvc.lock: it was truncated when DVC was killed; `dvc repro` restores it from DVC's cache")
    params = entry.checked_params(dvc.repository_root() / PARAMS)
    if model is not None:
        params.job(model)
        if model not in params.active:
            raise UserError(f"'{model}' is not active: add it to `active` in params.yaml")
    for name in params.active:
        recipe = params.recipe(name)
        weights.weights_file(recipe.weights, recipe.architecture)
    print(f"params.yaml is valid: profile {params.profile}, dataset {params.dataset.name} ({params.dataset.source})")
    print(f"models: {', '.join(params.active)}")
    changes = [change.replace("`", "") for change in wording.override_lines(params)]
    if changes:
        print("\n  ".join(["the profile changes their recipes:", *changes]))
    for name in params.active:
        if reason := processor.slow_precision(params.recipe(name).precision):
            print(f"warning: without a GPU, {name} in {reason}")
    for name in params.sweeps:  # a warning only: no stage needs sweeps
        try:
            plan.plan(params, name)
        except UserError as error:
            print(f"warning: `dvc repro` will work, but `tiny-imagenet sweep {name}` would fail: {error}")


@app.command()
def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="MODEL", help="Models or replicates.", show_default="all active ones with results"),
    ] = None,
    no_evaluation: Annotated[bool, typer.Option("--no-evaluation", help="Do not evaluate the models again.")] = False,
    determinism_of: Annotated[
        list[str] | None,
        typer.Option("--determinism", metavar="MODEL", help="Train MODEL briefly, twice, and compare. Repeatable."),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="With --determinism: epochs per training.")] = 2,
    batches: Annotated[int, typer.Option(min=1, metavar="N", help="With --determinism: batches per epoch.")] = 8,
) -> None:
    """Check that each number of the table follows from its model, data, code and run.

    Exits with 1 if a check fails. With --determinism, check instead that a seed
    gives the same bits twice; the result goes to docs/results/determinism.json
    and the next report.
    """
    from tiny_imagenet.repository import dvc

    os.chdir(dvc.repository_root())
    params = entry.checked_params()
    if determinism_of and models:
        raise UserError("name models either with --determinism or without it, not both")
    if determinism_of:
        _verify_determinism(params, determinism_of, epochs, batches)
    else:
        _verify_results(params, models or [], evaluate=not no_evaluation)


def _verify_results(params: "Params", models: list[str], *, evaluate: bool) -> None:
    from tiny_imagenet.verification import checks as verification

    answers: list[bool | None] = []
    for heading, checks in verification.walk(params, models, evaluate=evaluate):
        print(heading)
        for check in checks:
            print(f"  {_ANSWERS[check.holds]:<9}  {check.subject:<13}  {check.detail}", flush=True)
            answers.append(check.holds)
    held, failed, skipped = (answers.count(answer) for answer in (True, False, None))
    if failed:
        raise UserError(f"{failed} of {held + failed} checks failed, see above")
    print(f"{held} checks passed" + (f"; skipped: {skipped}" if skipped else ""))


def _verify_determinism(params: "Params", models: list[str], epochs: int, batches: int) -> None:
    from tiny_imagenet.repository.paths import DETERMINISM
    from tiny_imagenet.verification import determinism

    for model in models:
        params.job(model)
    differing = []
    for model in models:
        print(f"{model}: training twice, {epochs} epochs of {batches} batches")
        outcome = determinism.verify(model, params, epochs=epochs, batches=batches)
        determinism.record(model, outcome, DETERMINISM)
        for name in ("weights", "history"):
            one, two = outcome[name]
            print(f"{name}: {one[:16]} and {two[:16]}: {'the same' if one == two else 'NOT the same'}")
        if outcome["same"]:
            print(f"{model}: the same bits twice, on {outcome['device']}")
        else:
            differing.append(model)
    if differing:
        raise UserError(f"{', '.join(differing)}: two trainings with one seed differ on {outcome['device']}")
    print("`dvc repro` adds this to the report")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files, or folders of them.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="A trained model, a .keras file, or `champion` for the one in MLflow.",
            show_default="the active model with the highest validation accuracy",
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, metavar="N", help="Number of classes per image.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Predict the classes of images of any size and format.

    Exits with 1 if an image cannot be read, after predicting the others.
    """
    from tiny_imagenet.cli import predict as prediction

    with _model_file(model) as (path, name):
        classes = prediction.read_classes(path)
        sources, refusals = prediction.find_sources(images)
        answers = prediction.predict(
            sources,
            classes,
            lambda: prediction.load_classifier(path, classes),
            top=top,
            refusals=refusals,
            on_refusal=lambda refusal: print(f"error: {prediction.printable(refusal)}", file=sys.stderr),
        )
    if answers.skipped:
        print(f"skipped {answers.skipped:,} files in folders that are not images", file=sys.stderr)
    if as_json:
        json.dump({"model": name, **vars(answers)}, sys.stdout, indent=2, allow_nan=False)
        print()
    elif answers.images:
        print("\n".join(prediction.table_lines(answers.images)))
    sys.stdout.flush()
    if answers.errors:
        raise UserError(f"{len(answers.errors):,} not predicted, see above; {len(answers.images):,} predicted")
    if not answers.images:
        raise UserError("none of these files is an image")


@contextmanager
def _model_file(model: str | None) -> Iterator[tuple[Path, str]]:
    """Yield the file and the name of a model, by default of the best one; print the name on stderr."""
    from tiny_imagenet.cli import predict as prediction
    from tiny_imagenet.reporting.formats import percent
    from tiny_imagenet.repository import dvc
    from tiny_imagenet.repository.paths import PARAMS
    from tiny_imagenet.tracking.results import CHAMPION, REGISTERED_MODEL, champion_file

    with ExitStack() as stack:
        if model == CHAMPION:
            path, trained = stack.enter_context(champion_file(dvc.repository_root()))
            name, why = f"{REGISTERED_MODEL}@{CHAMPION}", f"which is {trained}"
        elif model:
            path = Path(model) if model.endswith(".keras") else prediction.trained_model(dvc.repository_root(), model)
            name, why = str(path), "as requested"
        else:
            root = dvc.repository_root()
            path, accuracy = prediction.best_model(root, entry.checked_params(root / PARAMS).active)
            name = str(path)
            why = f"the best active model, with a validation accuracy of {percent(accuracy)} %"
        print(f"model: {prediction.printable(name)} ({why})", file=sys.stderr)
        yield path, name


def main() -> None:
    """Run the command and exit with the code of `entry.run`."""
    atexit.register(gc.freeze)  # a garbage collection at exit would take up to 2 seconds
    sys.exit(entry.run(_run))


def _run() -> None:
    signals.exit_on_interrupt()
    app()
