"""Plant small faults (mutants) in one room of src, one at a time, and show which ones its tests miss.

    python -m benchmarks.mutants evaluation --limit 40 --seed 1

Cosmic Ray makes the mutants: another operator, comparison or number, a negated condition, a loop that does not run, a
missing decorator. Positions are drawn at random, with one mutant for each, so that an operator with eleven replacements
counts once. Works in a copy: the working tree never has a fault. Each mutant gets a fork of a process that has already
imported TensorFlow and MLflow, so most are caught in some seconds. Prints a line per mutant, then each survivor as a
difference, and the share of caught mutants with its 95 % interval (Wilson).
"""

import ast
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Annotated

import pytest
import typer
from cosmic_ray.commands import init
from cosmic_ray.modules import find_modules
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec
from scipy.stats import binomtest

PACKAGE, TESTS = Path("src/tiny_imagenet"), Path("tests")
_LEFT_OUT = ("core/VariableInserter", "core/VariableReplacer")
"""They need names of variables as input."""
_LIBRARIES = ("keras", "matplotlib.pyplot", "mlflow", "pandas", "scipy.stats", "sklearn.metrics", "tensorflow")
_SECONDS = Path("seconds.json")


def rooms() -> list[str]:
    """Return the rooms that have their own tests."""
    return sorted(path.name for path in TESTS.iterdir() if (PACKAGE / path.name / "__init__.py").is_file())


def mutants(room: Path, limit: int, seed: int) -> list[tuple[MutationSpec, str]]:
    """Return up to `limit` mutants of the modules below a folder, each at another position, in random order.

    Each comes with the source of its module.
    """
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
    return [(chosen, source) for chosen in map(draw.choice, ordered) if (source := _faulty(chosen))]


def _faulty(mutation: MutationSpec) -> str | None:
    """Return the source of a module with its fault; None if Cosmic Ray cannot make it, or it is no Python."""
    operator = get_operator(mutation.operator_name)(**mutation.operator_args)
    try:
        source: str = mutate_code(mutation.module_path.read_text(encoding="utf-8"), operator, mutation.occurrence)
        ast.parse(source)
    except (AttributeError, SyntaxError):  # an operator that does not know Python's newer syntax
        return None
    return source


def annotations(path: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return start and end of each annotation, in which a fault changes nothing or stops the import."""
    nodes = [
        annotation
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for annotation in (getattr(node, "annotation", None), getattr(node, "returns", None))
        if isinstance(annotation, ast.expr)
    ]
    return [((node.lineno, node.col_offset), (node.end_lineno or 0, node.end_col_offset or 0)) for node in nodes]


class QuickestFirst:
    """Runs the quickest files of tests first, and measures the tests."""

    def __init__(self, seconds: dict[str, float]) -> None:
        self.before, self.seconds = seconds, dict[str, float]()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:  # noqa: D102 - pytest's
        totals = defaultdict[str, float](float)
        for test, seconds in self.before.items():
            totals[test.partition("::")[0]] += seconds
        items.sort(key=lambda item: totals[item.nodeid.partition("::")[0]])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:  # noqa: D102 - pytest's
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration


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
        planted = mutants(PACKAGE / room, limit, seed)
        if not planted:
            raise SystemExit(f"error: none of the mutants of {room} that were drawn can be made; raise --limit")
        os.environ |= {"PYTHONPATH": f"{folder}/src", "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        sys.dont_write_bytecode = True  # a module changes twice in a second, and bytecode is matched by the second
        sys.path[:0] = [f"{folder}/src", folder]
        for library in _LIBRARIES:
            import_module(library)
        start = time.monotonic()
        if run_tests(room, {}, 3600):
            raise SystemExit(f"error: the tests fail without a fault: pytest {TESTS / room}")
        seconds = json.loads(_SECONDS.read_text())
        timeout = 30 + 3 * (time.monotonic() - start)
        print(f"{room}: {len(planted)} mutants, seed {seed}; tests without a fault take {(timeout - 30) / 3:.0f} s")
        survivors = list(_survivors(room, planted, seconds, timeout))
    caught = len(planted) - len(survivors)
    low, high = binomtest(caught, len(planted)).proportion_ci(method="wilson")
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


def run_tests(room: str, seconds: dict[str, float], timeout: float) -> int:
    """Run the tests of a room in a fork, until one fails, and return pytest's exit code; 1 after `timeout` seconds."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setsid()  # the processes of the tests are killed with them, unless they start a session of their own
            with Path(os.devnull).open("r+b") as nowhere:
                for stream in range(3):
                    os.dup2(nowhere.fileno(), stream)
            for name in [name for name in sys.modules if name.partition(".")[0] == "keras"]:
                del sys.modules[name]  # the tests set Keras up as they import it, in 0.3 s with TensorFlow there
            plugin = QuickestFirst(seconds)
            code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", str(TESTS / room)], plugins=[plugin])
            _SECONDS.write_text(json.dumps(plugin.seconds))
        finally:
            os._exit(code)
    end = time.monotonic() + timeout
    try:
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return abs(os.waitstatus_to_exitcode(status))
            time.sleep(0.05)
        return 1
    finally:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(child, 0)


def _survivors(
    room: str, planted: list[tuple[MutationSpec, str]], seconds: dict[str, float], timeout: float
) -> Iterable[str]:
    """Yield the difference of each mutant that no test notices."""
    for number, (mutation, faulty) in enumerate(planted, start=1):
        start, path = time.monotonic(), mutation.module_path
        right = path.read_text(encoding="utf-8")
        path.write_text(faulty, encoding="utf-8")
        survived = run_tests(room, seconds, timeout) == 0
        path.write_text(right, encoding="utf-8")
        where = f"{path}:{mutation.start_pos[0]} {mutation.operator_name.removeprefix('core/')}"
        outcome = "SURVIVED" if survived else "caught"
        print(f"{number:3}/{len(planted)}  {outcome:8}  {time.monotonic() - start:4.0f} s  {where}", flush=True)
        if survived:
            yield "\n".join(difflib.unified_diff(right.splitlines(), faulty.splitlines(), where, lineterm=""))


if __name__ == "__main__":
    typer.run(main)
