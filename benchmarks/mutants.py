"""Plant small faults (mutants) in one room of src, one at a time, and show which ones its tests miss.

    python -m benchmarks.mutants evaluation --limit 40 --seed 1

Cosmic Ray makes the mutants: another operator, comparison or number, a negated condition, a loop that does not run, a
missing decorator. Positions are drawn at random, with one mutant for each, so that an operator with eleven replacements
counts once. Works in a copy: the working tree never has a fault. Prints a line per mutant, then each survivor as a
difference, and the share of caught mutants with its 95 % interval (Wilson).
"""

import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import psutil
import typer
from cosmic_ray.commands import init
from cosmic_ray.modules import find_modules
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome

from tiny_imagenet.evaluation.metrics import wilson_interval

PACKAGE, TESTS = Path("src/tiny_imagenet"), Path("tests")
_LEFT_OUT = ("core/VariableInserter", "core/VariableReplacer")
"""They need names of variables as input."""


def rooms() -> list[str]:
    """Return the rooms that have their own tests."""
    return sorted(path.name for path in TESTS.iterdir() if (PACKAGE / path.name / "__init__.py").is_file())


def mutants(room: Path, limit: int, seed: int) -> list[MutationSpec]:
    """Return up to `limit` mutants of the modules below a folder, each at another position, in random order."""
    with tempfile.TemporaryDirectory() as folder, use_db(f"{folder}/mutants.sqlite", WorkDB.Mode.create) as database:
        init(sorted(find_modules([room])), database, {})
        mutations = [mutation for item in database.work_items for mutation in item.mutations]
    spans = {path: annotations(path) for path in {mutation.module_path for mutation in mutations}}
    by_position = defaultdict(list)
    for mutation in mutations:
        start = mutation.start_pos
        annotated = any(first <= start < last for first, last in spans[mutation.module_path])
        if not annotated and mutation.operator_name not in _LEFT_OUT:
            by_position[str(mutation.module_path), start].append(mutation)
    draw = random.Random(seed)  # noqa: S311 - no secret
    positions = draw.sample(sorted(by_position), min(limit, len(by_position)))
    ordered = (sorted(by_position[key], key=lambda one: (one.operator_name, one.occurrence)) for key in positions)
    return [draw.choice(candidates) for candidates in ordered]


def annotations(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return start and end of each annotation, in which a fault changes nothing or stops the import."""
    nodes = [
        annotation
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if isinstance(annotation, ast.expr)
    ]
    return [((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)) for node in nodes]


def main(
    room: Annotated[str, typer.Argument(help="A folder of src/tiny_imagenet that has tests.")],
    limit: Annotated[int, typer.Option(min=1, help="Number of mutants.")] = 40,
    seed: Annotated[int, typer.Option(help="Seed of the choice.")] = 1,
) -> None:
    """Plant faults in a room, one at a time, and print those that its tests miss. Exits with 1 if there are any."""
    if room not in rooms():
        raise SystemExit(f"error: no room '{room}' with tests; known: {', '.join(rooms())}")
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copy_tree(Path(folder))
        os.chdir(folder)
        os.environ |= {"PYTHONPATH": str(Path(folder) / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        command = f"{sys.executable} -m pytest -q -x -p no:cacheprovider {TESTS / room}"
        start = time.monotonic()
        if subprocess.run(command.split(), check=False, stdout=subprocess.DEVNULL).returncode:
            raise SystemExit(f"error: the tests fail without a fault: {command}")
        timeout = 30 + 3 * (time.monotonic() - start)
        planted = mutants(PACKAGE / room, limit, seed)
        print(f"{room}: {len(planted)} mutants, seed {seed}; tests without a fault take {(timeout - 30) / 3:.0f} s")
        try:
            survivors = list(_survivors(planted, command, timeout))
        except KeyboardInterrupt:
            for child in psutil.Process().children(recursive=True):
                child.kill()  # Cosmic Ray starts the tests in a session of their own, which Ctrl-C does not reach
            raise
    caught = len(planted) - len(survivors)
    low, high = wilson_interval(caught, len(planted))
    print(*survivors, sep="\n\n")
    print(f"{room}: {caught} of {len(planted)} caught, {caught / len(planted):.0%} ({low:.0%} to {high:.0%})")
    raise typer.Exit(1 if survivors else 0)


def copy_tree(destination: Path) -> None:
    """Clone the repository, with what is not committed yet."""
    git = ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
    changed = subprocess.run(git, check=True, capture_output=True, text=True).stdout
    subprocess.run(["git", "clone", "-q", ".", str(destination)], check=True)
    for name in filter(None, changed.split("\0")):
        (destination / name).unlink(missing_ok=True)
        if Path(name).is_file():
            (destination / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(name, destination / name)


def _survivors(planted: list[MutationSpec], command: str, timeout: float) -> Iterable[str]:
    """Yield the difference of each mutant that no test notices."""
    for number, mutation in enumerate(planted, start=1):
        start = time.monotonic()
        result = mutate_and_test([mutation], command, timeout)
        survived = result.test_outcome == TestOutcome.SURVIVED
        where = f"{mutation.module_path}:{mutation.start_pos[0]} {mutation.operator_name.removeprefix('core/')}"
        outcome = "SURVIVED" if survived else "caught"
        print(f"{number:3}/{len(planted)}  {outcome:8}  {time.monotonic() - start:4.0f} s  {where}", flush=True)
        if survived:
            yield result.diff or where


if __name__ == "__main__":
    typer.run(main)
