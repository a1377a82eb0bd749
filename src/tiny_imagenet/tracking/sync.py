"""One live run in MLflow for each row of the table, complete, whatever happened to the store or to the trainings."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiny_imagenet import tracking
from tiny_imagenet.backend import runtime
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import BusyError, md5, only_one, read_csv, read_json
from tiny_imagenet.config.params import Params
from tiny_imagenet.models.saved_model import load_model, read_metadata, without_optimizer
from tiny_imagenet.reporting import wording
from tiny_imagenet.repository import dvc, finished

CHECKPOINTS = Path("checkpoints")


def dataset_input(record: Mapping[str, Any]) -> tracking.DatasetInput:
    """Return what MLflow is told of the images, from what run.json has of them."""
    return tracking.DatasetInput(record["dataset"], record["hashes"]["data"], record["source"], record["images"])


def sync(params: Params, table: pd.DataFrame) -> list[str]:
    """Bring what the results in the working directory say into MLflow, and return what was done, in words.

    Runs that died are marked as killed. A run that the store does not have is restored, one that lacks something is
    completed, and the runs that were made here before are marked as superseded. The best model becomes the champion.

    Args:
        params: params.yaml.
        table: of `comparison.results_table`.

    Raises:
        UserError: the store cannot be reached, or another process is at the same work.
    """
    with only_one(CHECKPOINTS / "sync.lock", "another process is bringing these results into MLflow: wait for it"):
        return _sync(params, table)


def _sync(params: Params, table: pd.DataFrame) -> list[str]:
    root, here = dvc.repository_root(), {"workspace": dvc.workspace()}
    is_main = root == Path.cwd()  # and not the copy in which DVC runs an experiment
    done = []
    for model in [*params.active, *params.replicated]:
        try:
            with only_one(CHECKPOINTS / f"{model}.lock", f"{model} is being trained"):
                killed = tracking.mark_killed(root, name=model, tags=here)
                finished.drop(CHECKPOINTS / model, _locked_record(params, model))
        except BusyError:
            continue
        done += [f"{model}: the run {run_id} was dead, and is marked as killed" for run_id in killed]
    runs = {}
    described = {
        str(row["model"]): wording.run_description(row, params)
        for row in table.dropna(subset="run_id").to_dict("records")
    }
    for model, description in (described | _replicates(params)).items():
        if not _is_evaluated(params, model):
            done.append(f"{model}: not evaluated since it was trained: `dvc repro`")
            continue
        result = _result(model, here, description)
        run, restored = tracking.complete(root, result, lambda run_id, model=model: _log_model(run_id, model))  # type: ignore[misc]
        if restored:
            done.append(f"{model}: MLflow did not have the run {result.run_id}; restored as {run.run_id}")
        tracking.supersede(root, run, here)
        if model in described:
            runs[model] = run
    if is_main:
        tracking.describe_experiment(root, params.profile, wording.experiment_description(table, params))
        done += _crown(root, params, table, runs)
    return done


def drop_finished_checkpoint(params: Params, model: str) -> None:
    """Remove the checkpoint of a complete training as it is begun anew, if what it made is there, or noted by DVC."""
    finished.drop(CHECKPOINTS / model, _locked_record(params, model), Path("models") / model / "run.json")


def _locked_record(params: Params, model: str) -> str | None:
    """Return the MD5 that dvc.lock has of a model's run.json, if it has one."""
    try:
        locked = dvc.locked_files(Path.cwd(), params.stage("train", model))
    except UserError:  # not trained before, or no dvc.lock
        return None
    return locked.get(f"models/{model}/run.json")


def _replicates(params: Params) -> dict[str, str]:
    """Return the replicates that have results, each with a description for its run."""
    return {
        name: f"`{model}` with the seed {seed}: its spread is in the table.\n\n{wording.comparability(params)}"
        for name, (model, seed) in params.replicated.items()
        if (Path("models") / name / "run.json").is_file() and (Path("results") / name / "metrics.json").is_file()
    }


def _crown(root: Path, params: Params, table: pd.DataFrame, runs: Mapping[str, tracking.TrackedRun]) -> list[str]:
    """Register the champion, if the profile has one; accuracy is that of one view of each image, as it is served."""
    if params.profile not in params.champion.profiles or not runs:
        return []
    metric = f"final_{params.champion.metric}"

    def served(name: str) -> float:
        metrics = runs[name].metrics
        return metrics.get(f"{metric}_one_view", metrics[metric])

    model = max(runs, key=served)  # of equals the first
    row = table[table["model"] == model].to_dict("records")[0]
    version = tracking.register_champion(root, runs[model], wording.run_description(row, params))
    name = f"{tracking.REGISTERED_MODEL}@{tracking.CHAMPION}"
    return [f"{name}: {model}, version {version}, by {params.champion.metric}"]


def _is_evaluated(params: Params, model: str) -> bool:
    """Return whether results/<model> is of the model that is there now, by dvc.lock."""
    locked = dvc.locked_files(Path.cwd(), params.stage("evaluate", model))
    return all(
        path.is_file() and md5(path) == locked.get(path.as_posix())
        for path in (Path("models") / model / name for name in ("model.keras", "history.csv"))
    )


def _result(model: str, here: dict[str, str], description: str) -> tracking.Result:
    folder = Path("models") / model
    record = read_json(folder / "run.json")
    history = read_csv(folder / "history.csv", ("epoch",))
    return tracking.Result(
        model=model,
        experiment=record["experiment"],
        run_id=record["run_id"],
        started_at=record["started_at"],
        epoch_seconds=record["epoch_seconds"],
        params=record["params"],
        tags=dvc.run_tags(record) | here,
        dataset=dataset_input(record),
        history=history.drop(columns="epoch").to_dict("records"),  # type: ignore[arg-type] # the columns are words
        metrics=read_json(Path("results") / model / "metrics.json"),
        folder=Path("results") / model,
        files=[folder / "history.csv"],
        texts={"git.diff": record["git"]["diff"]} if record["git"].get("diff") else {},
        description=description,
    )


def _log_model(run_id: str, model: str) -> None:
    path = Path("models") / model / "model.keras"
    if "keras" not in sys.modules:
        runtime.prepare(seed=0)  # nothing is drawn
    example = np.load("data/cache/val_images.npy", mmap_mode="r")[:1]
    metadata = read_metadata(path)
    tracking.add_model(
        run_id,
        without_optimizer(load_model(path)),
        path,
        runtime.requirements(),
        {key: metadata[key] for key in ("wnids", "class_names")},
        np.ascontiguousarray(example),
    )
