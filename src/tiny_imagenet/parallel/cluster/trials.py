"""Trials on Ray Tune: it spreads them over the machines, stops bad ones early, and begins lost ones again."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from tiny_imagenet.parallel.cluster.machines import TIMES_LOST, Allotment, Cluster
from tiny_imagenet.parallel.sweep.schema import Sweep

Report = Callable[[Mapping[str, Any]], None]


class Observer(Protocol):
    """Is told, in the process that started them, how trials go."""

    def started(self, number: int) -> None:
        """Take note that a trial begins, or begins again after it was lost."""

    def reported(self, number: int, figures: Mapping[str, Any]) -> None:
        """Take what a trial reports; after it was lost, it reports all of its epochs again."""

    def ended(self, number: int, error: str | None) -> None:
        """Take note that a trial is over: done, stopped early, or lost too often (`error`)."""


def run_trials(
    machines: Cluster,
    function: Callable[[int, Report], None],
    sweep: Sweep,
    numbers: list[int],
    *,
    allotment: Allotment,
    scratch: Path,
    known: Mapping[int, Sequence[Mapping[str, float]]],
    observer: Observer,
) -> None:
    """Run trials on Ray Tune, which stops bad ones early and begins lost ones again.

    Args:
        machines: where they run.
        function: what a trial does, with its number and a way to report figures; `epoch` is among them.
        sweep: the metric, and how bad trials are stopped.
        numbers: the trials that are to be run.
        allotment: how many at once, on what.
        scratch: a folder for Tune's own files, which all machines see; it is removed.
        known: the epochs of trials that were run before, by which ASHA judges the others.
        observer: is told of everything.
    """
    tune = machines.ray.tune

    class Bridge(tune.Callback):  # type: ignore[misc, name-defined] # Ray may be missing as types are checked
        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            observer.started(trial.config["number"])

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            observer.reported(trial.config["number"], result)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            observer.ended(trial.config["number"], None)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            lost = trial.get_error()
            reason = (str(lost).strip() or "lost").splitlines()[-1]
            observer.ended(trial.config["number"], reason)

    def trainable(config: dict[str, int]) -> None:
        def report(figures: Mapping[str, Any]) -> None:
            tune.report(dict(figures))

        function(config["number"], report)

    shutil.rmtree(scratch, ignore_errors=True)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": allotment.cores, "gpu": allotment.gpus}),
        param_space={"number": tune.grid_search(numbers)},
        tune_config=tune.TuneConfig(
            scheduler=scheduler(tune, sweep, known), max_concurrent_trials=allotment.workers, reuse_actors=False
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(scratch.absolute()),
            failure_config=tune.FailureConfig(max_failures=TIMES_LOST),
            callbacks=[Bridge()],
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def scheduler(tune: Any, sweep: Sweep, known: Mapping[int, Sequence[Mapping[str, float]]]) -> Any:
    """Return ASHA, which knows what trials of an earlier call have reached; or what stops none."""
    if sweep.stop_early is None:
        return tune.schedulers.FIFOScheduler()
    scheduler = tune.schedulers.ASHAScheduler(
        time_attr="epoch",
        metric=sweep.metric,
        mode=sweep.mode,
        max_t=sweep.epochs,
        grace_period=sweep.stop_early.grace_epochs,
        reduction_factor=sweep.stop_early.reduction_factor,
        stop_last_trials=False,
    )
    for number, history in known.items():
        stand_in = SimpleNamespace(trial_id=f"known {number}")
        scheduler.on_trial_add(None, stand_in)
        for epoch, figures in enumerate(history, start=1):
            scheduler.on_trial_result(None, stand_in, {"epoch": epoch, **figures})
    return scheduler
