"""Several processes that write runs to one MLflow store at the same moment: trainings without the training."""

import os
import subprocess
import sys
from pathlib import Path

EPOCHS = 5
# Waits when all is imported, so that all reach the store together.
WRITER = f"""
import sys
from pathlib import Path

import mlflow

from tiny_imagenet.tracking.results import add_results
from tiny_imagenet.tracking.run import start_run

root, name = Path(sys.argv[1]), sys.argv[2]
folder = root / "results" / name
folder.mkdir(parents=True)
(folder / "metrics.json").write_text(name)
print("ready", flush=True)
sys.stdin.readline()
with start_run(root, experiment="demo", name=name, params={{"model": name}}, tags={{"model": name}}) as run:
    for epoch in range(1, {EPOCHS} + 1):
        run.log_epoch(epoch, {{"loss": epoch / 10, "accuracy": 1 - epoch / 10}})
    run.log_artifact(folder / "metrics.json")
assert add_results(root, run.run_id, {{"val_accuracy": 0.5}}, folder)
"""


def write_at_once(root: Path, names: list[str]) -> None:
    """Let one process per name write its run to the store of `root`, and check that all succeed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(root), name], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for name in names
    ]  # fmt: skip
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("go\n")
        writer.stdin.flush()
    printed = [writer.communicate(timeout=300)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * len(names), "\n".join(printed)


def assert_nothing_is_lost(root: Path, names: list[str]) -> None:
    """Check that the store of `root` is whole and has each run with all that its process wrote."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("demo")
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in runs) == sorted(names)
    for run in runs:
        name = run.info.run_name
        assert run.info.status == "FINISHED"
        assert run.data.params == {"model": name}
        assert run.data.tags["model"] == name
        assert run.data.metrics == {"loss": EPOCHS / 10, "accuracy": 1 - EPOCHS / 10, "final_val_accuracy": 0.5}
        for metric, values in {
            "loss": [epoch / 10 for epoch in range(1, EPOCHS + 1)],
            "accuracy": [1 - epoch / 10 for epoch in range(1, EPOCHS + 1)],
        }.items():
            logged = client.get_metric_history(run.info.run_id, metric)
            assert [(point.step, point.value) for point in logged] == list(enumerate(values, start=1))
        artifacts = root / "mlruns" / "demo" / run.info.run_id / "artifacts"
        assert (artifacts / "metrics.json").read_text() == name
        assert (artifacts / "results" / "metrics.json").read_text() == name
