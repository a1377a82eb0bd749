"""The state of this working directory: its name, and what trainings have left in checkpoints/.

The checkpoint of a complete training stays until DVC has recorded what the training made. DVC hashes the files after
the stage has ended, and then writes dvc.lock. Killed in between, it removes the files when the stage begins again; the
checkpoint, which has every epoch, then gives the same files without training.
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
    """Return the name of this working directory, which tells apart the runs that were made here.

    It is drawn once. It stays the same if the folder is moved or the machine gets another name.
    """
    path = CHECKPOINTS / "workspace"
    if not path.is_file():
        path.parent.mkdir(exist_ok=True)
        name = uuid4().hex
        drawn = path.with_name(f"{name}.partial")
        drawn.write_text(name, encoding="utf-8")
        with suppress(FileExistsError):  # another process was first
            path.hardlink_to(drawn)
        drawn.unlink()
    return path.read_text(encoding="utf-8")


def require_architecture(job: Job, source: str) -> None:
    """Refuse to train another architecture than the one whose copy is the stage's dependency.

    Args:
        job: the training.
        source: of its architecture, now.

    Raises:
        UserError: the copy in models/ is of another source.
    """
    copy, architecture = MODELS / job.model / "architecture.py", job.recipe.architecture
    if copy.is_file() and copy.read_text(encoding="utf-8") != source:
        raise UserError(
            f"{copy} is not the source of {architecture} as it is now: it was edited after the stage "
            f"`architecture@{job.model}`; run `dvc repro` again"
        )


def lock_file(name: str) -> Path:
    """Return the file that a training locks while it runs."""
    return CHECKPOINTS / f"{name}.lock"


def note_failure(name: str, error: Exception) -> None:
    """Record why a training failed, for the results table. Does nothing if the disk is full."""
    kind = [] if isinstance(error, UserError) else [type(error).__name__]
    with suppress(OSError):
        write_text(_failure(name), f"{': '.join([*kind, *filter(None, [str(error)])])}\n")


def forget_failure(name: str) -> None:
    """Remove the record of a failure."""
    _failure(name).unlink(missing_ok=True)


def why_not_trained(name: str) -> str:
    """Return why a training has no result, in one line: the message of its failure if it failed."""
    failure = _failure(name)
    if failure.is_file():
        message = shorten(failure.read_text(encoding="utf-8", errors="replace"), 300, placeholder=" ...")
        return f"failed: {message}" if message else "failed"
    return "training not finished" if (CHECKPOINTS / name).is_dir() else "not trained yet"


def _failure(name: str) -> Path:
    return CHECKPOINTS / f"{name}.failed"


def note_finished(name: str) -> None:
    """Record that a training is complete and has written its run.json."""
    write_text(CHECKPOINTS / name / _NOTE, f"{md5(MODELS / name / 'run.json')}\n")


def drop_finished_checkpoint(job: Job, *, starting: bool = False) -> None:
    """Remove the checkpoint of a complete training, unless what it made could be lost.

    Args:
        job: the training.
        starting: the job's stage is starting. DVC has removed what it made before unless it keeps a copy, so that a
            run.json that still exists is proof enough.
    """
    folder, record = CHECKPOINTS / job.name, MODELS / job.name / "run.json"
    note = folder / _NOTE
    if not note.is_file():
        return
    made = note.read_text(encoding="utf-8").strip()
    if made == _locked_record(job) or (starting and record.is_file() and made == md5(record)):
        for run in folder.glob("*.run"):  # first: a run without its checkpoint would be resumed from epoch 1
            run.unlink()
        shutil.rmtree(folder)


def _locked_record(job: Job) -> str | None:
    """Return the MD5 that dvc.lock has of the job's run.json, if it has one."""
    try:
        return locked_files(Path.cwd(), job.train_stage).get((MODELS / job.name / "run.json").as_posix())
    except UserError:  # not trained before, or no dvc.lock
        return None
