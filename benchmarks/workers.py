"""Measure many trainings at once: two workers against one, with one core per training in both cases.

    python -m benchmarks.workers                                  # model_1 and model_2, two seeds each, two rounds
    python -m benchmarks.workers model_2 --seeds 4 --rounds 3

Uses copies of the repository's committed files and the data of its params.yaml (by default the demo's digits). Runs
`tiny-imagenet train MODELS --seeds N --cores 1` with 1 and 2 workers in turn, starting from packed images. The time
includes the start of Ray and of each process, and the table. Then all bits are compared.
"""

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from tiny_imagenet.backend import runtime

_OUTPUTS = ("models/*/model.keras", "models/*/history.csv", "results/*/metrics.json")


def main(
    models: Annotated[list[str] | None, typer.Argument(metavar="[MODELS]...")] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 2,
    rounds: Annotated[int, typer.Option(min=1)] = 2,
) -> None:
    """Measure and print a table."""
    chosen = models or ["model_1", "model_2"]
    seconds: dict[int, list[float]] = {1: [], 2: []}
    found: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds):
            for workers in (1, 2):
                root = _copy(Path(folder) / f"{number}-{workers}")
                stages = ["cache", *(f"architecture@{model}" for model in chosen)]
                _run(root, "dvc", "repro", "--quiet", *stages)
                options = ["--seeds", str(seeds), "--workers", str(workers), "--cores", "1"]
                began = time.perf_counter()
                _run(root, "tiny_imagenet", "train", *chosen, *options)
                seconds[workers].append(time.perf_counter() - began)
                print(f"round {number + 1}, {workers} at once: {seconds[workers][-1]:.0f} s", flush=True)
                found.add(_bits(root))
                shutil.rmtree(root)
    _print_table(len(chosen) * seeds, seconds, same=len(found) == 1)


def _copy(root: Path) -> Path:
    files = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.splitlines()
    for name in files:
        if name != "dvc.lock" and Path(name).is_file():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(name, root / name)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return root


def _run(root: Path, module: str, *arguments: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(root / "src")}
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def _bits(root: Path) -> str:
    digest = hashlib.sha256()
    for pattern in _OUTPUTS:
        for path in sorted(root.glob(pattern)):
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _print_table(num_trainings: int, seconds: dict[int, list[float]], *, same: bool) -> None:
    one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
    print(
        f"\n| at once | seconds for {num_trainings} trainings, median (each round) | speed-up |\n| ---: | --- | ---: |"
    )
    for workers, median in ((1, one), (2, two)):
        each = ", ".join(f"{value:.0f}" for value in seconds[workers])
        print(f"| {workers} | {median:.0f} ({each}) | {one / median:.2f} |")
    print(f"\nThe bits are {'the same' if same else 'NOT the same'} in all {2 * len(seconds[1])} runs.")
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "tensorflow", "keras"))
    load = os.getloadavg()[0]
    runtime.prepare(0)
    print(f"{runtime.device()}; {versions}; load of the machine {load:.1f}")


if __name__ == "__main__":
    typer.run(main)
