"""Print, record and log to MLflow the progress of a sweep, in the process that started it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import write_text
from tiny_imagenet.common.progress import say
from tiny_imagenet.common.schema import flatten
from tiny_imagenet.config.params import Params
from tiny_imagenet.parallel.sweep import results
from tiny_imagenet.parallel.sweep.plan import Plan, Trial
from tiny_imagenet.parallel.sweep.results import FAILED, FINISHED, STOPPED, Record
from tiny_imagenet.repository import dvc
from tiny_imagenet.tracking.run import Run
from tiny_imagenet.tracking.sweeps import open_run


def open_parent(params: Params, plan: Plan, noted: Path) -> Run:
    """Open the run of the whole sweep.

    The number of trials is not among its parameters: a sweep may grow, and a run's parameters cannot change.
    """
    values = plan.sweep.model_dump(mode="json", exclude_unset=True, exclude={"trials"})
    return _open(params, plan, plan.name, flatten(values) | {"profile": params.profile}, noted)


def _open(
    params: Params, plan: Plan, name: str, values: Mapping[str, Any], noted: Path, parent: Run | None = None
) -> Run:
    """Open a run: the one named in the file `noted`, or a new one, whose id is then written there.

    The models of the table are in another MLflow experiment.
    """
    run = open_run(
        dvc.repository_root(),
        experiment=f"{params.profile}-sweeps",
        name=name,
        params=values,
        tags={"sweep": plan.name, "model": plan.sweep.model},
        parent=parent,
        resume=noted.read_text(encoding="utf-8").strip() if noted.is_file() else None,
    )
    write_text(noted, f"{run.run_id}\n")
    return run


class Progress:
    """Receive the reports of the trials: print them, record them, log them to MLflow.

    `folders` and `records` are by the number of the trial. The records of trials that end now are added.
    """

    def __init__(
        self,
        params: Params,
        plan: Plan,
        parent: Run,
        folders: Mapping[int, Path],
        records: dict[int, Record],
    ):
        self._params, self._plan, self._sweep, self._parent = params, plan, plan.sweep, parent
        self._trials = {trial.number: trial for trial in plan.trials}
        self._folders, self._records = folders, records
        self._running: dict[int, Record] = {}
        self._runs: dict[int, Run] = {}
        self._refused: dict[int, str] = {}
        self.lost: dict[int, str] = {}
        """Trial -> why it was lost: its process or node failed too often, or its images or code changed."""

    def started(self, number: int) -> None:
        """Open the run of a trial that starts, unless it restarts after it was lost."""
        if number in self._running:
            return
        self._running[number] = Record(status=STOPPED)
        try:
            self._runs[number] = self._open(self._trials[number])
        except UserError as error:
            say(f"trial {number}: {error}\ntrial {number}: continues; its run is created when the store answers again")

    def _open(self, trial: Trial) -> Run:
        number, name = trial.number, f"{self._plan.name}-{trial.number}"
        values = flatten(trial.recipe.model_dump(mode="json")) | {"trial": number}
        return _open(self._params, self._plan, name, values, self._folders[number] / "run", self._parent)

    def reported(self, number: int, report: Mapping[str, Any]) -> None:
        """Receive an epoch or the outcome of a trial. A restarted trial reports all of its epochs again."""
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
        """Write the trial's record and end its run. A lost trial (`error`) gets none, so the next call retries it."""
        error = error or self._refused.pop(number, None)
        record = self._running.pop(number, None) or Record(status=STOPPED)  # it may have died before it started
        if len(record.history) == self._sweep.epochs and record.status == STOPPED:
            record.status = FINISHED  # the message after the last epoch was lost
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

    def deliver(self) -> None:
        """Log the finished trials that MLflow lacks. If the store does not answer, the next call does."""
        for number, trial in self._trials.items():
            record = self._records.get(number)
            if record is None or record.in_mlflow:
                continue
            try:
                run = self._open(trial)
            except UserError as error:
                say(f"{error}\nrerun `tiny-imagenet sweep {self._plan.name}` to log the trials to MLflow")
                return
            run.log_history(record.history)
            record.run_id, record.in_mlflow = run.run_id, _end(run, record)
            results.write_record(self._folders[number], record, trial.values)

    def close(self) -> None:
        """Mark the runs of stopped trials as killed. The next call resumes them."""
        for run in self._runs.values():
            run.end("KILLED")


def _end(run: Run, record: Record) -> bool:
    """End the run of a trial, and return whether the store has everything."""
    return run.end("FAILED" if record.status == FAILED else "FINISHED")
