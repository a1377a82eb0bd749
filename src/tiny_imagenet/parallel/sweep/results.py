"""The files of a sweep in sweeps/NAME: a record of each finished trial, and the results of all."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import read_json, write_text
from tiny_imagenet.parallel import params_edit
from tiny_imagenet.parallel.sweep.plan import Plan, Trial
from tiny_imagenet.parallel.sweep.schema import Sweep
from tiny_imagenet.reporting.figures import curves

FINISHED, STOPPED, FAILED = "finished", "stopped early", "failed"
_MOST_CURVES = 20


@dataclass
class Record:
    """The outcome of a trial: `trial.json` in its folder."""

    status: str = FINISHED
    """FINISHED, STOPPED early by the sweep, or FAILED, such as by diverging."""
    history: list[dict[str, float]] = field(default_factory=list)
    """The metrics of each epoch."""
    run_id: str | None = None
    """The trial's run in MLflow."""
    error: str | None = None
    """Why it failed."""
    in_mlflow: bool = True
    """Whether its MLflow run is complete. It is not if the store did not answer."""

    @property
    def is_ranked(self) -> bool:
        """Whether it can be the best."""
        return self.status != FAILED and bool(self.history)

    def best_epoch(self, sweep: Sweep) -> int:
        """Return the epoch, from 1, with the best value of the metric."""
        values = [epoch[sweep.metric] for epoch in self.history]
        return values.index(max(values) if sweep.mode == "max" else min(values)) + 1


def read_record(folder: Path) -> Record | None:
    """Return the record of a trial, or None if the trial is not over."""
    path = folder / "trial.json"
    if not path.is_file():
        return None
    names = [field.name for field in fields(Record)]
    values = read_json(path, names, remedy=f"remove {folder}: the trial runs again")
    return Record(**{name: values[name] for name in names})


def write_record(folder: Path, record: Record, values: Mapping[str, Any]) -> None:
    """Write the record of a trial with its drawn values."""
    write_text(folder / "trial.json", json.dumps({"values": dict(values)} | asdict(record), indent=2) + "\n")


def table(plan: Plan, records: Mapping[int, Record]) -> pd.DataFrame:
    """Return a row for each trial that is over, the best first.

    Columns: `trial`, the searched keys, `status`, `epochs`, `best_epoch`, the metric and `val_accuracy` of that epoch,
    `run_id`.
    """
    sweep, rows = plan.sweep, []
    for trial in plan.trials:
        record = records.get(trial.number)
        if record is None:
            continue
        row: dict[str, Any] = {"trial": trial.number}
        row |= {key: value if _is_plain(value) else json.dumps(value) for key, value in trial.values.items()}
        row |= {"status": record.status, "epochs": len(record.history)}
        if record.is_ranked:
            epoch = record.best_epoch(sweep)
            best = record.history[epoch - 1]
            row |= {"best_epoch": epoch, "val_accuracy": best["val_accuracy"], sweep.metric: best[sweep.metric]}
        rows.append(row | {"run_id": record.run_id})
    columns = ["trial", *sweep.search, "status", "epochs", "best_epoch", sweep.metric, "val_accuracy", "run_id"]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys(columns))).astype({"best_epoch": "Int64"})
    return frame.sort_values([sweep.metric, "trial"], ascending=[sweep.mode == "min", True], ignore_index=True)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def best_trial(plan: Plan, records: Mapping[int, Record]) -> tuple[Trial, str]:
    """Return the trial with the best metric, and one line about it; raise UserError if no trial finished an epoch."""
    ranked = table(plan, records).dropna(subset=[plan.sweep.metric])
    if ranked.empty:
        raise UserError(f"no trial of the sweep {plan.name} has finished an epoch, so there is no best one")
    number, metric = ranked[["trial", plan.sweep.metric]].iloc[0]
    about = f"trial {number:.0f} of the sweep {plan.name}: {plan.sweep.metric} {metric:.4f}"
    return next(trial for trial in plan.trials if trial.number == number), about


def write_results(folder: Path, plan: Plan, records: Mapping[int, Record]) -> list[Path]:
    """Write results.csv, best.yaml and the learning curves of the best trials, and return the files.

    Raise UserError if no trial has finished an epoch.
    """
    best, about = best_trial(plan, records)
    ordered = table(plan, records)
    write_text(folder / "results.csv", ordered.to_csv(index=False))
    write_text(folder / "best.yaml", params_edit.block_text(plan.name, best.block, about))
    histories = {
        f"trial {number}": pd.DataFrame(history).assign(epoch=range(1, len(history) + 1))
        for number in ordered["trial"]
        if (history := records[number].history)
    }
    shown = dict(list(histories.items())[:_MOST_CURVES])
    title = f"{plan.name}: {plan.sweep.metric}, the best {len(shown)} of {len(histories)} trials"
    curves(shown, plan.sweep.metric, title, folder / "trials", with_logs=False)
    return [folder / "results.csv", folder / "best.yaml", folder / "trials.png"]
