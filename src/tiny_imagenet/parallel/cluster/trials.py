"""Run trials on Ray Tune, which distributes them, stops bad ones early, and restarts lost ones."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tiny_imagenet.parallel.cluster.machines import TIMES_LOST, Allotment, Cluster
from tiny_imagenet.parallel.sweep.progress import Progress
from tiny_imagenet.parallel.sweep.schema import Sweep

Report = Callable[[Mapping[str, Any]], None]


def run_trials(
    machines: Cluster,
    function: Callable[[int, Report], None],
    sweep: Sweep,
    numbers: list[int],
    *,
    allotment: Allotment,
    scratch: Path,
    known: Mapping[int, Sequence[Mapping[str, float]]],
    progress: Progress,
) -> None:
    """Run the trials `numbers` on Ray Tune.

    `function` runs a trial, given its number and a function to report `epoch` and metrics. ASHA also compares with the
    epochs of earlier trials, `known`. Tune's own files are in the folder `scratch`, on all machines; it is removed.
    """
    tune = machines.ray.tune

    class Bridge(tune.Callback):  # type: ignore[misc, name-defined] # mypy may run without Ray
        def on_trial_start(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            progress.started(trial.config["number"])

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **_: Any) -> None:
            progress.reported(trial.config["number"], result)

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            progress.ended(trial.config["number"], None)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            reason = (str(trial.get_error()).strip() or "lost").splitlines()[-1]
            progress.ended(trial.config["number"], reason)

    def trainable(config: dict[str, int]) -> None:
        function(config["number"], tune.report)

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
    """Return ASHA with the epochs of earlier trials, or a scheduler that stops none."""
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
        for epoch, metrics in enumerate(history, start=1):
            scheduler.on_trial_result(None, stand_in, {"epoch": epoch, **metrics})
    return scheduler
