"""Whether each number of the table still follows from its model file, data, code, commit and MLflow run.

What `tiny-imagenet verify` asks, in the working directory. Nothing is mended; whatever does not hold comes with what
would mend it.
"""

import filecmp
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from tiny_imagenet import tracking
from tiny_imagenet.backend import runtime
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.table import results_table
from tiny_imagenet.repository import dvc, git, provenance
from tiny_imagenet.verification.evidence import (
    FINAL,
    MODELS,
    RESULTS,
    SIZES,
    TABLE,
    Evidence,
    NotAskedError,
    ask_store,
    current_md5,
    has_results,
    parse_table,
    restore,
    see_folder,
    table_rows,
)

_CACHE = Path("data/cache")
_SHOWN = 5


@dataclass(frozen=True)
class Check:
    """The answer to one question."""

    subject: str
    holds: bool | None
    """None: not asked."""
    detail: str
    """One line: what holds; or what was found, what was expected, what mends it; or why it was not asked."""


def walk(params: Params, models: Sequence[str] = (), *, evaluate: bool = True) -> Iterator[tuple[str, Iterator[Check]]]:
    """Yield each model with the answers to all that is asked of it, as they are found; in the end "pipeline".

    A model without results does not hold if it is named, and is not asked otherwise.

    Args:
        params: params.yaml.
        models: to look at; none: all active ones and all replicates.
        evaluate: measure the models anew, too, which takes as long as their stages `evaluate` do.

    Raises:
        UserError: there is no table, or a model is not an active one.
    """
    for model in models:
        params.job(model)
        if model not in {job.name for job in params.jobs}:
            raise UserError(f"'{model}' has a block in params.yaml, but `active` does not name it")
    if not TABLE.is_file():
        raise UserError(f"there is no {TABLE}: run `dvc repro`")
    chosen = list(dict.fromkeys(models or [job.name for job in params.jobs]))
    made = [model for model in chosen if has_results(model)]
    changed, store, away = None, None, []
    try:
        changed = dvc.changed_since_lock(Path.cwd())
    except (UserError, OSError) as error:
        away.append(_failed("stages", error))
    try:
        store = ask_store(made)
    except UserError as error:
        away.append(_failed("MLflow", error))
    for model in chosen:
        if model in made:
            job = params.job(model)
            stages = {"train": job.train_stage, "evaluate": job.evaluate_stage}
            yield model, _checks(Evidence(model, stages, changed, store), params, evaluate=evaluate)
        else:
            yield model, iter([Check("results", False if models else None, "there are none: `dvc repro` makes them")])
    away += [] if changed is None else [_check("stages", lambda: _stages(Evidence("", {}, changed, store)))]
    away.append(_check("reports", lambda: _folder(TABLE.parent, "compare")))
    yield "pipeline", iter([*away, _check("table", lambda: _rows_of_others(params))])


def _checks(evidence: Evidence, params: Params, *, evaluate: bool) -> Iterator[Check]:
    """Yield the answers of one model, in the order in which what does not hold is best mended."""
    yield _check("files", lambda: _files(evidence))
    yield _check("results", lambda: _folder(RESULTS / evidence.model, evidence.stages["evaluate"]))
    yield _check("stages", lambda: _stages(evidence))
    yield _check("recipe", lambda: _recipe(evidence, params))
    yield _check("data and code", lambda: _data_and_code(evidence))
    yield _check("commit", lambda: _commit(evidence))
    yield _check("run", lambda: _run(evidence))
    yield _check("final metrics", lambda: _final_metrics(evidence))
    yield _check("epochs", lambda: _epochs(evidence))
    yield _check("run's files", lambda: _files_of_run(evidence))
    if evidence.model in params.active:
        yield _check("table", lambda: _row(evidence, params))
    yield _check("evaluation", lambda: _evaluation(evidence, params, evaluate=evaluate))


def _check(subject: str, ask: Callable[[], str]) -> Check:
    """Ask a question, which returns what holds, or raises UserError with what does not."""
    try:
        return Check(subject, True, ask())
    except NotAskedError as reason:
        return Check(subject, None, str(reason))
    except (UserError, OSError) as error:
        return _failed(subject, error)
    except Exception as error:  # over files that are not what they were, Keras above all may raise anything
        return _failed(subject, f"a file is not as it was made ({type(error).__name__}: {error}): see `files`")


def _failed(subject: str, error: object) -> Check:
    return Check(subject, False, " ".join(str(error).split()))


# --- the questions ---


def _files(evidence: Evidence) -> str:
    """See that the trained model is the one that dvc.lock has."""
    for path in evidence.trained:
        found, wanted = current_md5(path), evidence.locked.get(path.as_posix())
        if found is None or found != wanted:
            raise UserError(f"{path} is {_short(found)}, {_short(wanted)} in dvc.lock: {restore(path, found, wanted)}")
    return f"{', '.join(path.name for path in evidence.trained)} are those of dvc.lock"


def _folder(folder: Path, stage: str) -> str:
    """See that every file of a folder is the one that dvc.lock has as an output of a stage."""
    see_folder(folder, dvc.locked_files(Path.cwd(), stage).get(folder.as_posix()))
    return f"{folder} is that of dvc.lock"


def _stages(evidence: Evidence) -> str:
    """See that DVC finds nothing to do for the model; where that is "", in the stages of no model."""
    if evidence.changed is None:
        raise NotAskedError("`dvc status` fails, see below")
    own = [line for line in evidence.changed if line.split(":")[0].partition("@")[2] == evidence.model]
    _none(own, "`dvc repro`")
    return "nothing has changed, says `dvc status`"


def _recipe(evidence: Evidence, params: Params) -> str:
    """See that the recipe in params.yaml is the one that was trained."""
    found, wanted = params.job(evidence.model).fingerprint, evidence.record["hashes"].get("params")
    if found != wanted:
        raise UserError(f"params.yaml gives {found}, run.json has {wanted}: `git checkout params.yaml`, or `dvc repro`")
    weights, digest = evidence.record["weights"], evidence.record["hashes"].get("weights")
    if weights not in (None, "imagenet"):  # a file; those of ImageNet have their digest checked before each use
        path = Path(weights).expanduser()
        if (there := current_md5(path)) != digest:
            raise UserError(
                f"the pretrained weights {path} are {_short(there)}, {_short(digest)} in run.json: put the file back, "
                f"or `dvc repro --force {evidence.stages['train']}` and `dvc repro`"
            )
    return f"{found}, by params.yaml and run.json"


def _data_and_code(evidence: Evidence) -> str:
    """See that what the model was trained from is what is here, by run.json and by dvc.lock."""
    recorded, locked = evidence.record["dependencies"], evidence.locked
    wrong: dict[str, str] = {}
    for name in sorted((recorded.keys() | locked.keys()) - {path.as_posix() for path in evidence.trained}):
        found, by_run, by_lock = current_md5(Path(name)), recorded.get(name), locked.get(name)
        if found is not None and found == by_run == by_lock:
            continue
        if by_run != by_lock:
            remedy = "`git checkout dvc.lock`, or `dvc repro`"
        elif name.startswith(("data/", "models/")):
            remedy = restore(Path(name), found, by_run)
        else:
            remedy = f"`git checkout {name}`, or `dvc repro`"
        wrong[f"{name} is {_short(found)}, {_short(by_run)} in run.json, {_short(by_lock)} in dvc.lock"] = remedy
    _none([*wrong], "; ".join(dict.fromkeys([*wrong.values()][:_SHOWN])))
    return f"{len(recorded)} files are those of run.json and dvc.lock"


def _commit(evidence: Evidence) -> str:
    """See that git has the commit."""
    record = evidence.record
    commit = record["git"]["commit"]
    if commit is None:
        return "none: it was trained without git"
    if not git.commit_exists(Path.cwd(), commit):
        anew = f"`dvc repro --force {evidence.stages['train']}` and `dvc repro`"
        raise UserError(f"git does not have {commit}: `git fetch`, or train anew: {anew}")
    if not record["git"]["dirty"]:
        return f"{commit[:12]}, without changes"
    return f"{commit[:12]}; changes since are in run.json, and in the git.diff of the run"


def _run(evidence: Evidence) -> str:
    """See that MLflow has the run: finished, current, with the tags and params of run.json."""
    record, path = evidence.record, MODELS / evidence.model / "run.json"
    if evidence.store is not None and evidence.model not in evidence.store:
        raise UserError(f"MLflow does not have the run {record['run_id']}: `tiny-imagenet sync` makes it anew")
    run = evidence.tracked.run
    if run.name != evidence.model:
        raise UserError(f"{path} has the run {run.run_id}, which is named {run.name}: {restore(path)}, or rename it")
    if run.status != "FINISHED" or not run.is_current:
        state = "superseded by another" if run.status == "FINISHED" else f"{run.status}, not FINISHED"
        raise UserError(f"the run {run.run_id} is {state}: `tiny-imagenet sync`")
    tags = provenance.run_tags(record)
    needed = {f"tag {key}": value for key, value in tags.items()}
    needed |= {f"param {key}": _plain(value) for key, value in record["params"].items()}
    there = {f"tag {key}": value for key, value in run.tags.items() if key in tags}
    there |= {f"param {key}": _plain(value) for key, value in run.params.items()}
    _same(there, needed, ("in MLflow", "in run.json"), _anew(run))
    found = tracking.model_md5(dvc.repository_root(), run.run_id)
    wanted = evidence.locked.get(evidence.trained[0].as_posix())
    if found != wanted:
        raise UserError(f"the run's model is {_short(found)}, {_short(wanted)} in dvc.lock: {_anew(run)}")
    origin = "" if run.run_id == record["run_id"] else f", restored from {record['run_id']}"
    same = f"{len(needed)} tags and params as in run.json, the model as in dvc.lock"
    return f"{run.run_id}{origin}: finished, current, {same}"


def _final_metrics(evidence: Evidence) -> str:
    """See that the run's final metrics are those of metrics.json."""
    run, wanted = evidence.tracked.run, evidence.metrics
    found = {name.removeprefix(FINAL): value for name, value in run.metrics.items() if name.startswith(FINAL)}
    _same(found, wanted, ("in MLflow", "in metrics.json"), f"`tiny-imagenet sync`, or {_anew(run)}")
    return f"{len(found)}, as in metrics.json"


def _epochs(evidence: Evidence) -> str:
    """See that the run's metrics of each epoch are those of history.csv, no more and no fewer."""
    tracked, history = evidence.tracked, evidence.history
    wanted = {f"{name} of epoch {epoch:g}": value for name in history for epoch, value in history[name].items()}
    _same(tracked.epochs, wanted, ("in MLflow", "in history.csv"), f"`tiny-imagenet sync`, or {_anew(tracked.run)}")
    return f"{len(history)}, with {len(wanted)} metrics, as in history.csv"


def _files_of_run(evidence: Evidence) -> str:
    """See that the files which the run has of the results are those that are here."""
    run = evidence.tracked.run
    folder = RESULTS / evidence.model
    here = {f"results/{name}": folder / name for name in hashes_below(folder)}
    here["history.csv"] = MODELS / evidence.model / "history.csv"
    found = tracking.result_hashes(dvc.repository_root(), run.run_id)
    wrong = [
        f"{name} is {_short(found.get(name))} in MLflow, {_short(current_md5(path))} here"
        for name, path in here.items()
        if found.get(name) != current_md5(path)
    ]
    _none(wrong, f"`tiny-imagenet sync`, or {_anew(run)}")
    return f"{len(here)}, as they are here"


def _row(evidence: Evidence, params: Params) -> str:
    """See that the row of the table is what the files give."""
    model, _ = evidence.model, (evidence.record, evidence.metrics, evidence.architecture)  # named where one is broken
    alone = params.model_copy(update={"active": (model,)})
    table = results_table(alone).frame
    rows = table_rows(model)
    if len(rows) != 1:
        raise UserError(f"{TABLE} has {len(rows)} rows of {model}: {restore(TABLE)}")
    remedy = f"`rm -r reports results/{model}` and `dvc checkout reports results/{model}`"
    _same(rows[0], parse_table(table.to_csv(index=False))[0], (f"in {TABLE}", "by the files"), remedy)
    return f"{TABLE} has what the files give"


def _rows_of_others(params: Params) -> str:
    """See that no row of the table is of a model that is not active."""
    others = {str(row.get("model")) for row in table_rows()} - set(params.active)
    _none([f"{TABLE} has a row of {name}, which is not active" for name in sorted(others)], "`dvc repro`")
    return f"{TABLE} has rows of active models alone"


def _evaluation(evidence: Evidence, params: Params, *, evaluate: bool) -> str:
    """See that the model, measured anew, gives metrics.json and all other data of its results."""
    if not evaluate:
        raise NotAskedError("the model was not measured anew")
    record, architecture = evidence.record, evidence.architecture
    wanted = evidence.metrics | {key: architecture[key] for key in SIZES}
    if "keras" not in sys.modules:
        runtime.prepare(seed=0)  # as the stage does
    from tiny_imagenet.evaluation import evaluate as evaluation
    from tiny_imagenet.input_pipeline.packed import open_packed
    from tiny_imagenet.models import saved_model

    trained = saved_model.load_model(MODELS / evidence.model / "model.keras")
    history = pd.read_csv(MODELS / evidence.model / "history.csv")  # as the stage does
    logging.disable(logging.WARNING)  # the backend does not expect several models in one process
    try:
        measured = evaluation.evaluate(trained, open_packed(_CACHE), history, params.job(evidence.model).recipe)
    finally:
        logging.disable(logging.NOTSET)
    found = measured.metrics | {key: measured.architecture[key] for key in SIZES}
    stage = evidence.stages["evaluate"]
    remedy = f"what mends the failures above, or else `dvc repro --force {stage}`{_elsewhere(record)}"
    _same(found, wanted, ("measured anew", "written"), remedy)
    with TemporaryDirectory(prefix="evaluation") as name:
        folder, model_md5 = Path(name), current_md5(MODELS / evidence.model / "model.keras")
        evaluation.write_evaluation(measured, folder, model_md5=str(model_md5))
        there = RESULTS / evidence.model
        files = sorted(path.name for path in folder.iterdir())
        others = [name for name in files if not _are_same(folder / name, there / name)]
        _none([f"{there / name} is not what the model gives" for name in others], remedy)
    return f"{len(found)} figures measured anew, the same to the last digit; {len(files)} files, to the last byte"


def _are_same(one: Path, two: Path) -> bool:
    return two.is_file() and filecmp.cmp(one, two, shallow=False)


# --- their words ---


def _same(found: Mapping[str, Any], wanted: Mapping[str, Any], where: tuple[str, str], remedy: str) -> None:
    """Raise UserError where two mappings are not the same, numbers to the last digit."""
    wrong = []
    for key in dict.fromkeys([*wanted, *found]):
        one, two = found.get(key, ""), wanted.get(key, "")
        if one == two or (one != one and two != two):  # the latter is NaN twice
            continue
        by = f" ({one - two:+.2g})" if isinstance(one, int | float) and isinstance(two, int | float) else ""
        shown = ["nothing" if value == "" else value for value in (one, two)]
        wrong.append(f"{key} is {shown[0]} {where[0]}, {shown[1]} {where[1]}{by}")
    _none(wrong, remedy)


def _none(wrong: Sequence[str], remedy: str) -> None:
    if wrong:
        more = f"; ... {len(wrong)} in all" if len(wrong) > _SHOWN else ""
        raise UserError(f"{'; '.join(wrong[:_SHOWN])}{more}: {remedy}")


def _plain(value: object) -> str:
    """Return a param as text, lists as JSON has them: MLflow has some as tuples, unless the run was restored."""
    return str(value).translate(str.maketrans("()", "[]"))


def _short(digest: str | None) -> str:
    return digest[:8] if digest else "missing"


def _anew(run: tracking.TrackedRun) -> str:
    return f"`mlflow runs delete --run-id {run.run_id}` and `tiny-imagenet sync`, which makes it anew from the files"


def _elsewhere(record: Mapping[str, Any]) -> str:
    """Return in what this machine differs from the one that trained: there the last digits may differ, too."""
    then = {key: record[key] for key in ("device", "threads", "backend")} | record["versions"]
    now = {"device": str(runtime.device()), "threads": runtime.threads(), "backend": runtime.backend()}
    now |= runtime.versions()
    differing = [f"{key} {now.get(key)}, not {then.get(key)}" for key in then | now if now.get(key) != then.get(key)]
    return f"; here, the last digits may differ ({', '.join(differing)})" if differing else ""
