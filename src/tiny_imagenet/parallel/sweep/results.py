"""The files of a sweep in sweeps/NAME: a record of each trial that is over, and the results of all."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import pandas as pd

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import read_json, write_text
from tiny_imagenet.parallel import params_edit
from tiny_imagenet.parallel.sweep.plan import Trial
from tiny_imagenet.parallel.sweep.schema import Sweep
from tiny_imagenet.reporting.figures import curves

FINISHED, STOPPED, FAILED = "finished", "stopped early", "failed"
_MOST_CURVES = 20


@dataclass
class Record:
    """How a trial went, as `trial.json` in its folder has it."""

    status: str = FINISHED
    """FINISHED, STOPPED early by the sweep, or FAILED for good, such as by diverging."""
    history: list[dict[str, float]] = field(default_factory=list)
    """The metrics of each epoch."""
    run_id: str | None = None
    """The trial's run in MLflow."""
    error: str | None = None
    """Why it failed."""
    in_mlflow: bool = True
    """Whether its run is complete. It is not if the store was away."""

    @property
    def is_ranked(self) -> bool:
        """Whether it can be the best."""
        return self.status != FAILED and bool(self.history)

    def best_epoch(self, sweep: Sweep) -> int:
        """Return the epoch, from 1, that has the best value of the metric."""
        values = [epoch[sweep.metric] for epoch in self.history]
        return values.index(max(values) if sweep.mode == "max" else min(values)) + 1

    def best(self, sweep: Sweep) -> float:
        """Return the best value of the metric."""
        return self.history[self.best_epoch(sweep) - 1][sweep.metric]


def read_record(folder: Path) -> Record | None:
    """Return the record of a trial, or None if it is not over."""
    path = folder / "trial.json"
    if not path.is_file():
        return None
    names = [field.name for field in fields(Record)]
    values = read_json(path, names, remedy=f"remove {folder}: the trial runs again")
    return Record(**{name: values[name] for name in names})


def write_record(folder: Path, record: Record, values: Mapping[str, Any]) -> None:
    """Write the record of a trial, with the values that were drawn for it."""
    write_text(folder / "trial.json", json.dumps({"values": dict(values)} | asdict(record), indent=2) + "\n")


def table(sweep: Sweep, trials: Sequence[Trial], records: Mapping[int, Record]) -> pd.DataFrame:
    """Return a row for each trial that is over, the best first.

    Columns: `trial`, the keys that are searched, `status`, `epochs`, `best_epoch`, the metric and `val_accuracy` of
    that epoch, `run_id`.
    """
    rows = []
    for trial in trials:
        record = records.get(trial.number)
        if record is None:
            continue
        row: dict[str, Any] = {"trial": trial.number}
        row |= {key: value if _is_plain(value) else json.dumps(value) for key, value in trial.values.items()}
        row |= {"status": record.status, "epochs": len(record.history)}
        if record.is_ranked:
            epoch = record.best_epoch(sweep)
            row |= {"best_epoch": epoch, "val_accuracy": record.history[epoch - 1]["val_accuracy"]}
            row[sweep.metric] = record.best(sweep)
        rows.append(row | {"run_id": record.run_id})
    columns = ["trial", *sweep.search, "status", "epochs", "best_epoch", sweep.metric, "val_accuracy", "run_id"]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys(columns))).astype({"best_epoch": "Int64"})
    return frame.sort_values([sweep.metric, "trial"], ascending=[sweep.mode == "min", True], ignore_index=True)


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def best_trial(sweep: Sweep, trials: Sequence[Trial], records: Mapping[int, Record]) -> Trial:
    """Return the trial with the best metric; raises UserError if none has finished an epoch."""
    ranked = [trial for trial in trials if trial.number in records and records[trial.number].is_ranked]
    if not ranked:
        raise UserError("no trial has finished an epoch: there is no best one")
    sign = 1 if sweep.mode == "max" else -1
    return max(ranked, key=lambda trial: (sign * records[trial.number].best(sweep), -trial.number))


def about_best(name: str, sweep: Sweep, trial: Trial, record: Record) -> str:
    """Return where the best block comes from, in a line."""
    return f"trial {trial.number} of the sweep {name}: {sweep.metric} {record.best(sweep):.4f}"


def write_results(
    folder: Path, name: str, sweep: Sweep, trials: Sequence[Trial], records: Mapping[int, Record]
) -> list[Path]:
    """Write results.csv, best.yaml and the learning curves of the best trials, and return the files.

    Raises:
        UserError: no trial has finished an epoch.
    """
    best = best_trial(sweep, trials, records)
    ordered = table(sweep, trials, records)
    write_text(folder / "results.csv", ordered.to_csv(index=False))
    about = about_best(name, sweep, best, records[best.number])
    write_text(folder / "best.yaml", params_edit.block_text(name, best.block, about))
    histories = {
        f"trial {number}": pd.DataFrame(history).assign(epoch=range(1, len(history) + 1))
        for number, history in ((number, records[number].history) for number in ordered["trial"])
        if history
    }
    shown = dict(list(histories.items())[:_MOST_CURVES])
    title = f"{name}: {sweep.metric}, the best {len(shown)} of {len(histories)} trials"
    curves(shown, pd.DataFrame(), sweep.metric, title, folder / "trials", with_logs=False)
    return [folder / "results.csv", folder / "best.yaml", folder / "trials.png"]
