"""A copy of this repository to run the real pipeline in, on a few images of the embedded digits."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ROOT = Path(__file__).parents[1]


@dataclass
class Copy:
    root: Path

    def copied_to(self, root: Path) -> "Copy":
        """Copy all of it to a new folder. DVC's files stay hard links to its cache, as DVC has made them."""
        copies: dict[tuple[int, int], str] = {}

        def copy(source: str, target: str) -> str:
            status = Path(source).stat()
            first = copies.setdefault((status.st_dev, status.st_ino), target)
            if first == target:
                shutil.copy2(source, target)
            else:
                os.link(first, target)
            return target

        shutil.copytree(self.root, root, symlinks=True, copy_function=copy)
        return Copy(root)

    def environment(self) -> dict[str, str]:
        dropped = ("MLFLOW_", "DVC_", "PYTHONDONTWRITEBYTECODE")  # the last would compile the code in each process
        variables = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
        return variables | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.root / "src"),
        }

    def run(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=self.root, env=self.environment() | environment, capture_output=True, text=True, timeout=1800
        )

    def start(self, *command: str, **environment: str) -> subprocess.Popen[str]:
        """Start a command in a process group of its own, so that it and its children can be sent a signal."""
        return subprocess.Popen(
            command, cwd=self.root, env=self.environment() | environment, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def succeed(self, *command: str, **environment: str) -> str:
        done = self.run(*command, **environment)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def commit(self) -> None:
        self.succeed("git", "init", "--quiet")
        self.succeed("git", "add", "--all")
        author = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        self.succeed("git", *author, "commit", "--quiet", "--message", "copy")

    def edit(self, change) -> None:
        path = self.root / "params.yaml"
        params = yaml.safe_load(path.read_text())
        change(params)
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    @contextmanager
    def edited(self, change) -> Iterator[None]:
        """Edit params.yaml for the block alone."""
        before = (self.root / "params.yaml").read_text()
        try:
            self.edit(change)
            yield
        finally:
            (self.root / "params.yaml").write_text(before)

    def would_run(self) -> set[str]:
        return set(stages_run(self.succeed("dvc", "repro", "--dry")))

    @property
    def mlflow(self) -> Any:
        """An MLflow client of the store, in this process: a process of its own takes seconds to import MLflow."""
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.root / 'mlflow.db'}")

    def runs(self, experiment: str = "demo") -> pd.DataFrame:
        """Return a row per run, the newest first, with the columns of `mlflow.search_runs`."""
        client = self.mlflow
        rows = []
        for run in client.search_runs([client.get_experiment_by_name(experiment).experiment_id]):
            row = {name: getattr(run.info, name) for name in ("run_id", "status", "start_time", "artifact_uri")}
            for kind in ("params", "metrics", "tags"):
                row |= {f"{kind}.{name}": value for name, value in getattr(run.data, kind).items()}
            rows.append(row)
        return pd.DataFrame(rows)

    def experiment(self, name: str = "demo") -> dict[str, str]:
        """Return the tags of an MLflow experiment."""
        return dict(self.mlflow.get_experiment_by_name(name).tags)


def stages_run(printed: str) -> list[str]:
    """Return the stages that ran, from what `dvc repro` printed."""
    return [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running stage '")]


def tiny(params: dict) -> None:
    demo = params["profiles"]["demo"]
    demo["dataset"]["images_per_class"] = {"train": 4, "val": 2}
    demo["training"] |= {"epochs": 2, "batch_size": 8}
    params["models"]["model_3"]["build"]["dense_units"] = [64, 32]  # the real one needs 2 GB and a minute


def copy_of_repository(root: Path) -> Copy:
    """Copy what git would commit, without dvc.lock, so that everything has to run."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and name != "dvc.lock":
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    return Copy(root)
