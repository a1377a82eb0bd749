"""Check that each number of the table follows from its model file, data, code, commit and MLflow run.

Called by `tiny-imagenet verify`, in the working directory. Read-only; each failed check suggests a fix.
"""

import filecmp
import functools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tiny_imagenet.backend import runtime
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import hashes_below
from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.table import results_table
from tiny_imagenet.repository import dvc, git, provenance
from tiny_imagenet.repository.paths import CACHE, MODELS, RESULTS, TABLE
from tiny_imagenet.repository.records import RunRecord, read_history
from tiny_imagenet.tracking.results import TrackedRun, model_md5, result_hashes
from tiny_imagenet.verification.evidence import (
    FINAL,
    SIZES,
    Evidence,
    SkippedError,
    differences,
    has_results,
    read_store,
    restore,
    short,
    table_rows,
    written_rows,
)

_SHOWN = 5


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    subject: str
    holds: bool | None
    """None: skipped."""
    detail: str
    """One line: what holds, or what differs and how to fix it, or why the check was skipped."""


def walk(params: Params, models: Sequence[str] = (), *, evaluate: bool = True) -> Iterator[tuple[str, Iterator[Check]]]:
    """Yield the name of each training, and at last "pipeline", with an iterator that makes its checks.

    `models` are names of trainings; by default all active models and all replicates. A training without results fails
    if it is in `models`, and is skipped otherwise. To `evaluate` the models again takes as long as their stages.

    Raise UserError if there is no table, or a model is not active.
    """
    names = [job.name for job in params.jobs]
    jobs = [params.job(name) for name in dict.fromkeys(models or names)]
    for job in jobs:
        if job.name not in names:
            raise UserError(f"'{job.name}' has a block in params.yaml, but `active` does not name it")
    if not TABLE.is_file():
        raise UserError(f"there is no {TABLE}: run `dvc repro`")
    with_results = [job.name for job in jobs if has_results(job.name)]
    path_md5 = functools.cache(dvc.path_md5)  # several stages depend on the same large files
    changed, store, failures = None, None, []
    try:
        changed = dvc.changed_since_lock(Path.cwd())
    except (UserError, OSError) as error:
        failures.append(_failed("stages", error))
    try:
        store = read_store(with_results)
    except UserError as error:
        failures.append(_failed("MLflow", error))
    for job in jobs:
        if job.name in with_results:
            yield job.name, _checks(Evidence(job, store, path_md5), changed, params, evaluate=evaluate)
        else:
            yield job.name, iter([Check("results", False if models else None, "there are none: run `dvc repro`")])
    if changed is not None:
        failures.append(_check("stages", lambda: _stages("", changed)))
    wrong = differences("compare", path_md5)
    files = _check("files", lambda: _require_no_differences([*wrong], "the table and the report"))
    yield "pipeline", iter([*failures, files, _check("table", lambda: _other_rows(params))])


def _checks(evidence: Evidence, changed: Sequence[str] | None, params: Params, *, evaluate: bool) -> Iterator[Check]:
    """Yield the checks of one training, in the order in which to fix failures."""
    yield _check("files", lambda: _files(evidence))
    yield _check("stages", lambda: _stages(evidence.job.name, changed))
    yield _check("recipe", lambda: _recipe(evidence))
    yield _check("commit", lambda: _commit(evidence))
    yield _check("run", lambda: _run(evidence))
    yield _check("final metrics", lambda: _final_metrics(evidence))
    yield _check("epochs", lambda: _epochs(evidence))
    yield _check("run's files", lambda: _files_of_run(evidence))
    if not evidence.job.is_replicate:
        yield _check("table", lambda: _row(evidence, params))
    yield _check("evaluation", lambda: _evaluation(evidence, evaluate=evaluate))


def _check(subject: str, question: Callable[[], str]) -> Check:
    """Run a check. `question` returns what holds, or raises UserError with what does not."""
    try:
        return Check(subject, True, question())
    except SkippedError as reason:
        return Check(subject, None, str(reason))
    except (UserError, OSError) as error:
        return _failed(subject, error)
    except Exception as error:  # Keras may raise any error for a damaged file
        return _failed(subject, f"a file is damaged ({type(error).__name__}: {error}): see `files`")


def _failed(subject: str, error: object) -> Check:
    return Check(subject, False, " ".join(str(error).split()))


# --- the checks ---


def _files(evidence: Evidence) -> str:
    """Compare the files of training and evaluation with dvc.lock, and the dependencies of training with run.json."""
    try:
        recorded, unreadable = evidence.record.dependencies, None
    except UserError as error:
        recorded, unreadable = None, error
    stages = {evidence.job.train_stage: recorded, evidence.job.evaluate_stage: None}
    wrong = [pair for stage, known in stages.items() for pair in differences(stage, evidence.path_md5, known)]
    said = _require_no_differences(wrong, "data, code, model and results")
    if unreadable:
        raise unreadable
    return said


def _require_no_differences(wrong: Sequence[tuple[str, str]], subject: str) -> str:
    """Raise UserError with the first differences and their remedies if there are any."""
    remedies = dict(wrong)
    _require_none([*remedies], "; ".join(dict.fromkeys([*remedies.values()][:_SHOWN])))
    return f"{subject} are as in dvc.lock"


def _stages(name: str, changed: Sequence[str] | None) -> str:
    """Check that `dvc status` reports no change in the stages of a training. "": in all other stages."""
    if changed is None:
        raise SkippedError("`dvc status` fails, see below")
    _require_none([line for line in changed if line.split(":")[0].partition("@")[2] == name], "`dvc repro`")
    return "`dvc status` reports no change"


def _recipe(evidence: Evidence) -> str:
    """Check that params.yaml still has the recipe that was trained, and that pretrained weights are unchanged."""
    record, by_params = evidence.record, evidence.job.fingerprint
    by_run, digest = record.hashes.get("params"), record.hashes.get("weights")
    if by_params != by_run:
        raise UserError(
            f"params.yaml gives {by_params}, run.json has {by_run}: `git checkout params.yaml`, or `dvc repro`"
        )
    if record.weights not in (None, "imagenet"):  # a file; ImageNet's are verified before each use
        path = Path(record.weights).expanduser()
        if (current := dvc.path_md5(path)) != digest:
            raise UserError(
                f"the pretrained weights {path} are {short(current)}, {short(digest)} in run.json: put the file back, "
                f"or {_retrain(evidence)}"
            )
    return f"{by_params}, in params.yaml and run.json"


def _commit(evidence: Evidence) -> str:
    """Check that git has the commit."""
    state = evidence.record.git
    if state.problem:
        raise UserError(f"unknown: git did not answer ({state.problem}): fix this, then run {_retrain(evidence)}")
    if state.commit is None:
        return "none: trained without git"
    if not git.commit_exists(Path.cwd(), state.commit):
        raise UserError(f"git does not have {state.commit}: `git fetch`, or {_retrain(evidence)}")
    if not state.dirty:
        return f"{state.commit[:12]}, without changes"
    return f"{state.commit[:12]}; later changes are in run.json, and in git.diff of the run"


def _run(evidence: Evidence) -> str:
    """Check that MLflow has the run: finished, current, and with the tags, params and model of run.json."""
    record, name = evidence.record, evidence.job.name
    if evidence.store is not None and name not in evidence.store:
        raise UserError(f"MLflow does not have the run {record.run_id}: `tiny-imagenet sync` restores it")
    run = evidence.tracked.run
    if run.name != name:
        path = MODELS / name / "run.json"
        raise UserError(f"the run {run.run_id} of {path} is named {run.name}: {restore(path)}, or rename the run")
    if run.status != "FINISHED" or not run.is_current:
        state = "superseded by another" if run.status == "FINISHED" else f"{run.status}, not FINISHED"
        raise UserError(f"the run {run.run_id} is {state}: `tiny-imagenet sync`")
    tags = provenance.run_tags(record)
    by_run = {f"tag {key}": value for key, value in tags.items()}
    by_run |= {f"param {key}": _plain(value) for key, value in record.params.items()}
    by_store = {f"tag {key}": value for key, value in run.tags.items() if key in tags}
    by_store |= {f"param {key}": _plain(value) for key, value in run.params.items()}
    _require_same(by_store, by_run, ("in MLflow", "in run.json"), _restore_run(run))
    logged = model_md5(dvc.repository_root(), run.run_id)
    if logged != record.model_md5:
        raise UserError(
            f"the run's model is {short(logged)}, {short(record.model_md5)} in run.json: {_restore_run(run)}"
        )
    origin = "" if run.run_id == record.run_id else f", restored from {record.run_id}"
    return f"{run.run_id}{origin}: finished, current, {len(by_run)} tags and params and the model as in run.json"


def _final_metrics(evidence: Evidence) -> str:
    """Check that the run's final metrics are those of metrics.json."""
    run, written = evidence.tracked.run, evidence.metrics
    logged = {name.removeprefix(FINAL): value for name, value in run.metrics.items() if name.startswith(FINAL)}
    _require_same(logged, written, ("in MLflow", "in metrics.json"), f"`tiny-imagenet sync`, or {_restore_run(run)}")
    return f"{len(logged)}, as in metrics.json"


def _epochs(evidence: Evidence) -> str:
    """Check that the run has exactly the metrics of each epoch in history.csv."""
    tracked, history = evidence.tracked, evidence.history
    written = {f"{name} of epoch {epoch}": value for name in history for epoch, value in history[name].items()}
    remedy = f"`tiny-imagenet sync`, or {_restore_run(tracked.run)}"
    _require_same(tracked.epochs, written, ("in MLflow", "in history.csv"), remedy)
    return f"{len(history)}, with {len(written)} metrics, as in history.csv"


def _files_of_run(evidence: Evidence) -> str:
    """Check that the result files of the run are those on disk."""
    run, name = evidence.tracked.run, evidence.job.name
    on_disk = {f"results/{path}": digest for path, digest in hashes_below(RESULTS / name).items()}
    on_disk["history.csv"] = evidence.path_md5(MODELS / name / "history.csv") or ""
    logged = result_hashes(dvc.repository_root(), run.run_id)
    wrong = [
        f"{path} is {short(logged.get(path))} in MLflow, {short(digest)} on disk"
        for path, digest in on_disk.items()
        if logged.get(path) != digest
    ]
    _require_none(wrong, f"`tiny-imagenet sync`, or {_restore_run(run)}")
    return f"{len(on_disk)}, as on disk"


def _row(evidence: Evidence, params: Params) -> str:
    """Check that the row of the table follows from the files."""
    name, _ = evidence.job.name, (evidence.record, evidence.metrics, evidence.sizes)  # reading raises if one is damaged
    alone = params.model_copy(update={"active": (name,)})
    table = results_table(alone).frame
    rows = table_rows(name)
    if len(rows) != 1:
        raise UserError(f"{TABLE} has {len(rows)} rows of {name}: {restore(TABLE)}")
    remedy = f"`rm -r reports results/{name}` and `dvc checkout reports results/{name}`"
    _require_same(rows[0], written_rows(table)[0], (f"in {TABLE}", "by the files"), remedy)
    return f"{TABLE} follows from the files"


def _other_rows(params: Params) -> str:
    """Check that each row of the table is of an active model."""
    others = {row["model"] for row in table_rows()} - set(params.active)
    _require_none([f"{TABLE} has a row of {name}, which is not active" for name in sorted(others)], "`dvc repro`")
    return f"{TABLE} has rows of active models only"


def _evaluation(evidence: Evidence, *, evaluate: bool) -> str:
    """Evaluate the model again, and check that metrics.json and the other result files are the same."""
    if not evaluate:
        raise SkippedError("the model was not evaluated again")
    job, record, written = evidence.job, evidence.record, evidence.metrics | evidence.sizes
    if "keras" not in sys.modules:
        runtime.prepare(seed=0)  # like the stage
    from tiny_imagenet.evaluation import evaluate as evaluation
    from tiny_imagenet.input_pipeline.packed import open_packed
    from tiny_imagenet.models import saved_model

    trained = saved_model.load_model(MODELS / job.name / "model.keras")
    history = read_history(MODELS / job.name / "history.csv")
    logging.disable(logging.WARNING)  # the backend warns of several models in one process
    try:
        measured = evaluation.evaluate(trained, open_packed(CACHE), history, job.recipe, best_epoch=record.best_epoch)
    finally:
        logging.disable(logging.NOTSET)
    metrics = measured.metrics.as_dict() | {key: measured.architecture[key] for key in SIZES}
    remedy = f"fix the failures above; if there are none, `dvc repro --force {job.evaluate_stage}`{_elsewhere(record)}"
    _require_same(metrics, written, ("measured again", "written"), remedy)
    with TemporaryDirectory(prefix="evaluation") as temporary:
        folder, results = Path(temporary), RESULTS / job.name
        evaluation.write_evaluation(
            measured, folder, model_md5=str(evidence.path_md5(MODELS / job.name / "model.keras"))
        )
        files = sorted(path.name for path in folder.iterdir())
        _, others, missing = filecmp.cmpfiles(folder, results, files, shallow=False)
        wrong = [f"{results / file} differs from what the model gives" for file in sorted(others + missing)]
        _require_none(wrong, remedy)
    return f"{len(metrics)} metrics measured again, the same to the last digit; {len(files)} files, to the last byte"


# --- messages ---


def _require_same(first: Mapping[str, Any], second: Mapping[str, Any], where: tuple[str, str], remedy: str) -> None:
    """Raise UserError if two mappings differ, numbers to the last digit; `where` describes each of them."""
    wrong = []
    for key in dict.fromkeys([*second, *first]):
        one, two = first.get(key, ""), second.get(key, "")
        if one == two or (one != one and two != two):  # both are NaN
            continue
        by = f" ({one - two:+.2g})" if isinstance(one, int | float) and isinstance(two, int | float) else ""
        shown = ["nothing" if value == "" else value for value in (one, two)]
        wrong.append(f"{key} is {shown[0]} {where[0]}, {shown[1]} {where[1]}{by}")
    _require_none(wrong, remedy)


def _require_none(wrong: Sequence[str], remedy: str) -> None:
    """Raise UserError with the first differences in `wrong` if there are any."""
    if wrong:
        more = f"; ... {len(wrong)} in all" if len(wrong) > _SHOWN else ""
        raise UserError(f"{'; '.join(wrong[:_SHOWN])}{more}: {remedy}")


def _plain(value: object) -> str:
    """Return a param as text, with lists as in JSON. In MLflow some are tuples, unless the run was restored."""
    return str(value).translate(str.maketrans("()", "[]"))


def _retrain(evidence: Evidence) -> str:
    return f"`dvc repro --force {evidence.job.train_stage}` and `dvc repro`"


def _restore_run(run: TrackedRun) -> str:
    return f"`mlflow runs delete --run-id {run.run_id}` and `tiny-imagenet sync`, which restores it from the files"


def _elsewhere(record: RunRecord) -> str:
    """Return the end of a message: how this machine differs from the one that trained, if it does."""
    then = {"device": record.device, "threads": record.threads, "backend": record.backend} | record.versions
    now = {"device": str(runtime.device()), "threads": runtime.threads(), "backend": runtime.backend()}
    now |= runtime.versions()
    differing = [f"{key} {now.get(key)}, not {then.get(key)}" for key in then | now if now.get(key) != then.get(key)]
    return f"; here, the last digits may differ ({', '.join(differing)})" if differing else ""
