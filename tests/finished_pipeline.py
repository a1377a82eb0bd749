"""A copy of this repository after `dvc repro` of two small models, made once for all processes of a test run."""

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from repository_copy import Copy, copy_of_repository
from standin import small_models

MODELS = ["model_1", "model_2"]  # all five, whose starts alone take two minutes: tests/e2e
FOLDER = Path("Ordner mit ä, 'Strich' & (Klammern)") / "é"


def copy_of_pipeline(root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Copy, str]:
    """Copy the finished pipeline to a new folder `root`. Return the copy, and what `dvc repro` printed."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all processes
    finished, printed = Copy(shared / "pipeline" / FOLDER), shared / "pipeline.txt"
    with FileLock(shared / "pipeline.lock"):
        if not printed.exists():
            shutil.rmtree(shared / "pipeline", ignore_errors=True)  # of an attempt that failed
            copy_of_repository(finished.root)
            finished.edit(lambda params: (small_models(params), params.update(active=MODELS)))
            finished.commit()
            output = finished.succeed("dvc", "repro")
            printed.write_text(output, encoding="utf-8")
    return finished.copied_to(root), printed.read_text(encoding="utf-8")
