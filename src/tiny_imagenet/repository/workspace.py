"""State of this working directory in checkpoints/: its id, failures, and the checkpoints of completed trainings.

The checkpoint of a completed training is kept until DVC has recorded the outputs. DVC hashes them after the stage, and
then writes dvc.lock. If DVC is killed before that, it removes the outputs when the stage reruns. The checkpoint has all
epochs, and gives the same outputs without training.
"""

import shutil
from contextlib import suppress
from pathlib import Path
from textwrap import shorten
from uuid import uuid4

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import md5, write_text
from tiny_imagenet.config.jobs import Job
from tiny_imagenet.repository.dvc import locked_files
from tiny_imagenet.repository.paths import CHECKPOINTS, MODELS

_NOTE = "finished"


def workspace_id() -> str:
    """Return the id of this working directory, which distinguishes its runs from those of others.

    It is random, drawn once, and does not change if the folder is moved or the machine is renamed.
    """
    path = CHECKPOINTS / "workspace"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        name = uuid4().hex
        partial = path.with_name(f"{name}.partial")
        partial.write_text(name, encoding="utf-8")
        with suppress(FileExistsError):  # another process was first
            path.hardlink_to(partial)
        partial.unlink()
    return path.read_text(encoding="utf-8")


def require_architecture(job: Job, source: str) -> None:
    """Raise UserError if `source`, of the job's architecture now, differs from the copy that the stage depends on."""
    copy, architecture = MODELS / job.model / "architecture.py", job.recipe.architecture
    if copy.is_file() and copy.read_text(encoding="utf-8") != source:
        raise UserError(
            f"{copy} differs from the source of {architecture}, which was edited after the stage "
            f"`architecture@{job.model}` ran; rerun `dvc repro`"
        )


def lock_file(name: str) -> Path:
    """Return the lock file of a running training."""
    return CHECKPOINTS / f"{name}.lock"


def note_failure(name: str, error: Exception) -> None:
    """Record why a training failed, for the results table. Do nothing if the disk is full."""
    kind = [] if isinstance(error, UserError) else [type(error).__name__]
    with suppress(OSError):
        write_text(_failure(name), f"{': '.join([*kind, *filter(None, [str(error)])])}\n")


def forget_failure(name: str) -> None:
    """Remove the record of a failure."""
    _failure(name).unlink(missing_ok=True)


def why_not_trained(name: str) -> str:
    """Return one line that says why a training has no result, with the error message if it failed."""
    failure = _failure(name)
    if failure.is_file():
        message = shorten(failure.read_text(encoding="utf-8", errors="replace"), 300, placeholder=" ...")
        return f"failed: {message}" if message else "failed"
    return "training not finished" if (CHECKPOINTS / name).is_dir() else "not trained yet"


def _failure(name: str) -> Path:
    return CHECKPOINTS / f"{name}.failed"


def note_finished(name: str) -> None:
    """Record that a training has completed and written its run.json."""
    write_text(CHECKPOINTS / name / _NOTE, f"{md5(MODELS / name / 'run.json')}\n")


def drop_finished_checkpoint(job: Job, *, starting: bool = False) -> None:
    """Remove the checkpoint of a completed training if DVC has recorded its outputs.

    If the stage of the job is `starting`, DVC has already removed outputs of which it has no copy, so an existing
    run.json proves that they are recorded.
    """
    folder, record = CHECKPOINTS / job.name, MODELS / job.name / "run.json"
    note = folder / _NOTE
    if not note.is_file():
        return
    noted = note.read_text(encoding="utf-8").strip()
    if noted == _locked_record(job) or (starting and record.is_file() and noted == md5(record)):
        for run in folder.glob("*.run"):  # first: a run without a checkpoint would resume at epoch 1
            run.unlink()
        shutil.rmtree(folder)


def _locked_record(job: Job) -> str | None:
    """Return the MD5 of the job's run.json in dvc.lock, or None."""
    try:
        return locked_files(Path.cwd(), job.train_stage).get((MODELS / job.name / "run.json").as_posix())
    except UserError:  # the job is not trained yet
        return None
