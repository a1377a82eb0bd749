"""MLflow's store: `mlflow.db` and `mlruns/` in the repository's root, or what MLFLOW_TRACKING_URI names.

Plain `mlflow ui` in the root finds the former.
"""

import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock
from requests import RequestException
from sqlalchemy.exc import SQLAlchemyError

from tiny_imagenet.common.errors import UserError

_DATABASE = "mlflow.db"
# Table, column of each absolute path. MLflow has no call that changes one: decisions/0029 says why this is SQL.
_ARTIFACT_PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
CHATTY = ("mlflow.store", "mlflow.system_metrics", "alembic.runtime.migration", "urllib3")
"""Loggers whose warnings say nothing to a user."""
# With MLflow's defaults a training would wait for minutes, in every epoch, for a server that is away.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it may have a password in it
}


def mlflow() -> Any:
    """Return the module mlflow. It is imported late: it takes seconds, and its settings have to be set before."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def client() -> Any:
    """Return a client of the store that `connect` pointed at."""
    return mlflow().MlflowClient()


def store_errors() -> tuple[type[Exception], ...]:
    """Return what MLflow raises if its store is missing, broken or away, or the database's driver is missing."""
    return (mlflow().exceptions.MlflowException, SQLAlchemyError, sqlite3.Error, RequestException, ImportError)


def is_missing(error: Exception) -> bool:
    """Return whether MLflow says that the requested object does not exist."""
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def reason(error: Exception) -> str:
    """Return the first line of what MLflow says, without passwords."""
    return public((str(error).strip() or type(error).__name__).splitlines()[0])


@contextmanager
def connected(root: Path) -> Iterator[str]:
    """Connect to the store for the block, and yield its address; raise a UserError if the store fails in the block."""
    errors = store_errors()  # now: after Ctrl-C in the block, MLflow may be half imported
    try:
        yield connect(root)
    except errors as error:
        raise UserError(
            f"MLflow's store {public(tracking_uri(root))} cannot be used: {reason(error)}\n"
            "Start its server, correct MLFLOW_TRACKING_URI, make mlflow.db writable, or move a broken one away: a new "
            "one is created."
        ) from None


def tracking_uri(root: Path) -> str:
    """Return the address of the store: MLFLOW_TRACKING_URI, or the database in the repository's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / _DATABASE}"


def public(text: str) -> str:
    """Return a text without the `user:password@` of addresses, for files that are shared."""
    return re.sub(r"(?<=://)[^/\s]\S*@", "", text)


def connect(root: Path) -> str:
    """Point MLflow at the store, create the database if it is missing, and return the address.

    Several processes may do this at once. Two that create one SQLite file together would corrupt it, so one of them
    creates it, under a lock and a temporary name.
    """
    uri = tracking_uri(root)
    database = root / _DATABASE
    if uri == f"sqlite:///{database}":
        with FileLock(root / f"{_DATABASE}.lock"):
            if not database.exists():
                _create_database(database)
            else:
                _follow_move(database, root / "mlruns")
    mlflow().set_tracking_uri(uri)
    return uri


def _follow_move(database: Path, artifacts: Path) -> None:
    """Correct the absolute paths in a database that was moved together with the folder `artifacts`.

    An experiment whose folder is not in `artifacts` keeps its path.
    """
    with closing(sqlite3.connect(database, timeout=60)) as connection, connection:
        rows = connection.execute("SELECT artifact_location FROM experiments").fetchall()
        for old in {Path(location).parent for (location,) in rows if location and location.startswith("/")}:
            moved = [location for (location,) in rows if location and Path(location).parent == old]
            if old == artifacts or not any((artifacts / Path(location).name).is_dir() for location in moved):
                continue
            for table, column in _ARTIFACT_PATHS:
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} LIKE ? || '/%'",  # noqa: S608 - fixed names
                    (str(artifacts), len(str(old)) + 1, str(old)),
                )


def _create_database(database: Path) -> None:
    partial = database.with_name(f"{database.name}.{uuid4().hex}.partial")  # MLflow keeps a store of each name
    for leftover in database.parent.glob(f"{database.name}.*partial*"):
        leftover.unlink()
    with contextlib.chdir(database.parent):  # the artifacts of experiments without a location go into ./mlruns
        mlflow().MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
    partial.replace(database)


def experiment_id(name: str, root: Path) -> str:
    """Return the id of an experiment, created if it is missing; another process may create it at the same time."""
    experiment = client().get_experiment_by_name(name)
    if experiment is None:
        local = tracking_uri(root).startswith("sqlite:")
        location = str(root / "mlruns" / name) if local else None
        try:
            return str(client().create_experiment(name, artifact_location=location))
        except mlflow().exceptions.MlflowException:
            experiment = client().get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise UserError(
            f"the MLflow experiment '{name}' was deleted; restore it with "
            f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`"
        )
    return str(experiment.experiment_id)
