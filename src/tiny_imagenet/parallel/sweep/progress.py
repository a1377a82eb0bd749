"""How a sweep goes, in the process that started it: lines on the terminal, a record of each trial, MLflow's runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tiny_imagenet import tracking
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import write_text
from tiny_imagenet.common.progress import say
from tiny_imagenet.common.schema import flatten
from tiny_imagenet.config.params import Params
from tiny_imagenet.parallel.sweep import results
from tiny_imagenet.parallel.sweep.plan import Trial, sweep_named
from tiny_imagenet.parallel.sweep.results import FAILED, FINISHED, STOPPED, Record
from tiny_imagenet.repository import dvc


def experiment(params: Params) -> str:
    """Return the MLflow experiment of the sweeps of a profile: apart from the models of the table."""
    return f"{params.profile}-sweeps"


def open_parent(params: Params, name: str, noted: Path) -> tracking.Run:
    """Open the run of the whole sweep: the one that is `noted` in a file, or a new one that is noted then.

    It does not say how many trials there are: a sweep may be given more, and a run's parameters cannot change.
    """
    sweep = sweep_named(params, name)
    values = sweep.model_dump(mode="json", exclude_unset=True, exclude={"trials"})
    run = tracking.open_run(
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
    """Takes what the trials report: prints it, keeps it, and tells MLflow.

    Args:
        name: of the sweep.
        params: params.yaml.
        parent: the sweep's run.
        trials: those that run now, by their numbers.
        folders: of all trials.
        records: of the trials that are over; those that end now are added.
    """

    def __init__(
        self,
        name: str,
        params: Params,
        parent: tracking.Run,
        trials: Mapping[int, Trial],
        folders: Mapping[int, Path],
        records: dict[int, Record],
    ):
        self._name, self._params, self._parent = name, params, parent
        self._sweep = sweep_named(params, name)
        self._trials, self._folders, self._records = trials, folders, records
        self._running: dict[int, Record] = {}
        self._runs: dict[int, tracking.Run] = {}
        self._refused: dict[int, str] = {}
        self.lost: dict[int, str] = {}
        """Trials whose process or node was lost too often, or whose images or code changed, and what was said of it."""

    def started(self, number: int) -> None:
        """Open the trial's run; a trial that was lost and is begun again has one."""
        if number in self._running:
            return
        self._running[number] = Record(status=STOPPED)
        try:
            self._runs[number] = self._open(self._trials[number])
        except UserError as error:
            say(f"trial {number}: {error}\ntrial {number}: goes on, and has its run when the store is back")

    def _open(self, trial: Trial) -> tracking.Run:
        """Return the trial's run: the one that is noted in its folder, or a new one that is noted then."""
        number, noted = trial.number, self._folders[trial.number] / "run"
        run = tracking.open_run(
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

    def reported(self, number: int, figures: Mapping[str, Any]) -> None:
        """Take an epoch's figures, unless they are known; or that the trial is through, or has failed."""
        record = self._running[number]
        if "failed" in figures:
            record.status, record.error = FAILED, figures["failed"]
        elif "refused" in figures:
            self._refused[number] = figures["refused"]
        elif "finished" in figures:
            record.status = FINISHED
        elif figures["epoch"] == len(record.history) + 1:
            record.history.append(dict(figures["figures"]))
            if number in self._runs:
                self._runs[number].log_epoch(figures["epoch"], record.history[-1])
            metric = record.history[-1][self._sweep.metric]
            say(f"trial {number}: epoch {figures['epoch']}/{self._sweep.epochs}  {self._sweep.metric} {metric:.4f}")

    def ended(self, number: int, error: str | None) -> None:
        """Write the trial's record and end its run; one that was lost or refused has none, and is tried again."""
        error = error or self._refused.pop(number, None)
        record = self._running.pop(number, None) or Record(status=STOPPED)  # its process may have died as it began
        if len(record.history) == self._sweep.epochs and record.status == STOPPED:
            record.status = FINISHED  # the last epoch was reported, and what follows it got lost
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
        """Bring into MLflow what it lacks of trials that are over; what it does not take waits for the next call."""
        for trial in trials:
            record = self._records.get(trial.number)
            if record is None or record.in_mlflow:
                continue
            try:
                run = self._open(trial)
            except UserError as error:
                say(f"{error}\nstart `tiny-imagenet sweep {self._name}` again to bring the trials into MLflow")
                return
            run.log_history(record.history)
            record.run_id, record.in_mlflow = run.run_id, _end(run, record)
            results.write_record(self._folders[trial.number], record, trial.values)

    def close(self) -> None:
        """Mark the runs of trials that were stopped as killed; they are gone on with by the next call."""
        for run in self._runs.values():
            run.end("KILLED")


def _end(run: tracking.Run, record: Record) -> bool:
    """End the run of a trial, and return whether the store has all of it."""
    return run.end("FAILED" if record.status == FAILED else "FINISHED")
