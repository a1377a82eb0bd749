"""The progress of a sweep, in the process that started it: terminal, record of each trial, MLflow runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import write_text
from tiny_imagenet.common.progress import say
from tiny_imagenet.common.schema import flatten
from tiny_imagenet.config.params import Params
from tiny_imagenet.parallel.sweep import results
from tiny_imagenet.parallel.sweep.plan import Trial, sweep_named
from tiny_imagenet.parallel.sweep.results import FAILED, FINISHED, STOPPED, Record
from tiny_imagenet.repository import dvc
from tiny_imagenet.tracking.run import Run
from tiny_imagenet.tracking.sweeps import open_run


def experiment(params: Params) -> str:
    """Return the MLflow experiment of the sweeps of a profile, which the models of the table are not in."""
    return f"{params.profile}-sweeps"


def open_parent(params: Params, name: str, noted: Path) -> Run:
    """Open the run of the whole sweep: the one named in the file `noted`, or a new one, which is then noted.

    The number of trials is no parameter of it: a sweep may grow, and parameters of a run cannot change.
    """
    sweep = sweep_named(params, name)
    values = sweep.model_dump(mode="json", exclude_unset=True, exclude={"trials"})
    run = open_run(
        dvc.repository_root(),
        experiment=experiment(params),
        name=name,
        params=flatten(values) | {"profile": params.profile},
        tags={"sweep": name, "model": sweep.model},
        resume=noted.read_text(encoding="utf-8").strip() if noted.is_file() else None,
    )
    write_text(noted, f"{run.run_id}\n")
    return run


class Progress:
    """Receive what the trials report: print it, record it, log it to MLflow.

    Args:
        name: of the sweep.
        params: params.yaml.
        parent: the sweep's run.
        trials: those that run now, by number.
        folders: of all trials, by number.
        records: of the trials that are over; those that end now are added.
    """

    def __init__(
        self,
        name: str,
        params: Params,
        parent: Run,
        trials: Mapping[int, Trial],
        folders: Mapping[int, Path],
        records: dict[int, Record],
    ):
        self._name, self._params, self._parent = name, params, parent
        self._sweep = sweep_named(params, name)
        self._trials, self._folders, self._records = trials, folders, records
        self._running: dict[int, Record] = {}
        self._runs: dict[int, Run] = {}
        self._refused: dict[int, str] = {}
        self.lost: dict[int, str] = {}
        """Trials whose process or node was lost too often, or whose images or code changed -> the reason."""

    def started(self, number: int) -> None:
        """Open the trial's run. A trial that was lost and is restarted has one already."""
        if number in self._running:
            return
        self._running[number] = Record(status=STOPPED)
        try:
            self._runs[number] = self._open(self._trials[number])
        except UserError as error:
            say(f"trial {number}: {error}\ntrial {number}: continues; its run is made when the store is back")

    def _open(self, trial: Trial) -> Run:
        """Return the trial's run: the one noted in its folder, or a new one, which is then noted."""
        number, noted = trial.number, self._folders[trial.number] / "run"
        run = open_run(
            dvc.repository_root(),
            experiment=experiment(self._params),
            name=f"{self._name}-{number}",
            params=flatten(trial.recipe.model_dump(mode="json")) | {"trial": number},
            tags={"sweep": self._name, "model": self._sweep.model},
            parent=self._parent,
            resume=noted.read_text(encoding="utf-8").strip() if noted.is_file() else None,
        )
        write_text(noted, f"{run.run_id}\n")
        return run

    def reported(self, number: int, report: Mapping[str, Any]) -> None:
        """Receive an epoch's metrics, unless they are known; or that the trial is finished, or has failed."""
        record = self._running[number]
        if "failed" in report:
            record.status, record.error = FAILED, report["failed"]
        elif "refused" in report:
            self._refused[number] = report["refused"]
        elif "finished" in report:
            record.status = FINISHED
        elif report["epoch"] == len(record.history) + 1:
            record.history.append(dict(report["metrics"]))
            if number in self._runs:
                self._runs[number].log_epoch(report["epoch"], record.history[-1])
            metric = record.history[-1][self._sweep.metric]
            say(f"trial {number}: epoch {report['epoch']}/{self._sweep.epochs}  {self._sweep.metric} {metric:.4f}")

    def ended(self, number: int, error: str | None) -> None:
        """Write the trial's record and end its run. A trial that was lost or refused has no record, and is retried."""
        error = error or self._refused.pop(number, None)
        record = self._running.pop(number, None) or Record(status=STOPPED)  # its process may have died at once
        if len(record.history) == self._sweep.epochs and record.status == STOPPED:
            record.status = FINISHED  # the last epoch was reported; the message that follows it was lost
        run = self._runs.pop(number, None)
        if error is not None:
            self.lost[number] = error
            if run:
                run.end("FAILED")
            say(f"trial {number}: lost: {error}")
            return
        record.run_id, record.in_mlflow = (run.run_id, _end(run, record)) if run else (None, False)
        results.write_record(self._folders[number], record, self._trials[number].values)
        for checkpoint in self._folders[number].glob("*.checkpoint"):
            checkpoint.unlink()
        self._records[number] = record
        say(f"trial {number}: {record.status}" + (f": {record.error}" if record.error else ""))

    def deliver(self, trials: Sequence[Trial]) -> None:
        """Log to MLflow what it lacks of trials that are over. If the store is away, the next call does it."""
        for trial in trials:
            record = self._records.get(trial.number)
            if record is None or record.in_mlflow:
                continue
            try:
                run = self._open(trial)
            except UserError as error:
                say(f"{error}\nrerun `tiny-imagenet sweep {self._name}` to bring the trials into MLflow")
                return
            run.log_history(record.history)
            record.run_id, record.in_mlflow = run.run_id, _end(run, record)
            results.write_record(self._folders[trial.number], record, trial.values)

    def close(self) -> None:
        """Mark the runs of trials that were stopped as killed. The next call resumes them."""
        for run in self._runs.values():
            run.end("KILLED")


def _end(run: Run, record: Record) -> bool:
    """End the run of a trial, and return whether the store has all of it."""
    return run.end("FAILED" if record.status == FAILED else "FINISHED")
