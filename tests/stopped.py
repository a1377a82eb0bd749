"""A training in a copy of the repository that tests start from scratch, stop and resume."""

import json
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
from repository_copy import Copy

from tiny_imagenet.common.files import md5

OUTPUTS = ("model.keras", "history.csv")


@dataclass
class Training:
    copy: Copy
    model: str
    epochs: int

    @property
    def folder(self) -> Path:
        return self.copy.root / "models" / self.model

    def copied_to(self, root: Path) -> "Training":
        """Return the training in a copy of its repository, which is made in a new folder."""
        return replace(self, copy=self.copy.copied_to(root))

    def run(self) -> str:
        """Run or resume the training to its end by `dvc repro`, and return the output."""
        return self.copy.succeed("dvc", "repro", f"train@{self.model}")

    def start_from_scratch(self) -> subprocess.Popen[str]:
        """Start the training after removing its results everywhere."""
        self.forget()
        return self.copy.start("dvc", "repro", f"train@{self.model}")

    def forget(self) -> None:
        """Remove the results, also from DVC's run cache and its cache of files."""
        cache = self.copy.root / ".dvc" / "cache"
        shutil.rmtree(cache / "runs", ignore_errors=True)
        for name in (*OUTPUTS, "run.json"):
            digest = md5(self.folder / name)
            (cache / "files" / "md5" / digest[:2] / digest[2:]).unlink(missing_ok=True)
            (self.folder / name).unlink()

    def outputs(self) -> dict[str, str]:
        return {name: md5(self.folder / name) for name in OUTPUTS}

    def record(self) -> dict:
        return json.loads((self.folder / "run.json").read_text())

    def own_runs(self) -> pd.DataFrame:
        """Return the model's runs, the newest last."""
        runs = self.copy.runs()
        return runs[runs["tags.mlflow.runName"] == self.model].sort_values("start_time")

    def newest_run(self) -> pd.Series:
        return self.own_runs().iloc[-1]

    def logged(self, run_id: str) -> dict:
        """Return the logged steps of each metric, in their order, and the number of models."""
        client = self.copy.mlflow
        experiment = client.get_run(run_id).info.experiment_id
        names = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
        return {
            "steps": {name: [point.step for point in client.get_metric_history(run_id, name)] for name in names},
            "models": len(client.search_logged_models([experiment], f"source_run_id = '{run_id}'")),
        }

    def resume(self, expected: dict[str, str]) -> dict:
        """Resume by `dvc repro`, check the result, and return run.json."""
        return self.check(expected, self.run())

    def check(self, expected: dict[str, str], printed: str) -> dict:
        """Check outputs, run and checkpoint of a resumed training, and return run.json."""
        assert self.outputs() == expected, printed
        record, runs = self.record(), self.own_runs()
        run = runs.iloc[-1]
        assert run["run_id"] == record["run_id"]
        assert run["status"] == "FINISHED"
        assert "RUNNING" not in set(runs["status"])
        logged = self.logged(run["run_id"])
        assert logged["models"] == 1
        epochs = len(pd.read_csv(self.folder / "history.csv"))
        assert set(map(tuple, logged["steps"].values())) == {tuple(range(1, epochs + 1))}
        assert len(record["epoch_seconds"]) == epochs
        assert (self.copy.root / "checkpoints" / self.model / "finished").is_file()
        return record


def wait_for_epoch(process: subprocess.Popen[str], epoch: int) -> None:
    """Wait until a training has printed the line of an epoch."""
    wait_for_line(process, f"epoch {epoch:>2}/")


def wait_for_line(process: subprocess.Popen[str], start: str) -> None:
    """Wait until a process has printed a line that starts so."""
    printed = ""
    assert process.stdout is not None
    for line in process.stdout:
        printed += line
        if line.startswith(start):
            return
    raise AssertionError(printed)
