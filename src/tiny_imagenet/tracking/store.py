"""MLflow's store: `mlflow.db` and `mlruns/` in the root of the repository, or the one in MLFLOW_TRACKING_URI.

`mlflow ui` in the root finds the former without options. MLFLOW_REGISTRY_URI may name another store for registered
models.
"""

import contextlib
import glob
import ipaddress
import logging
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

import sqlalchemy
from filelock import FileLock
from requests.utils import get_environ_proxies
from sqlalchemy.exc import SQLAlchemyError

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.imports import without_garbage_collection

_DATABASE = "mlflow.db"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
# Table and column of each absolute path. MLflow has no call to change them, so SQL does: see decisions/0029.
_ARTIFACT_PATHS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
CHATTY = ("mlflow.store", "mlflow.system_metrics", "alembic.runtime.migration", "urllib3")
"""Loggers whose warnings do not help a user."""
# With MLflow's defaults a training would wait for minutes in each epoch if the server is down.
_DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it may contain a password
}
# Remedies for errors of SQLite, by the first two words of their names.
_SQLITE_REMEDIES = {
    "SQLITE_NOTADB": "{file} is damaged: move it away. `tiny-imagenet sync` restores the runs of the results.",
    "SQLITE_READONLY": "Make {file} and its folder writable for this user, or name another store in {variable}.",
    "SQLITE_CANTOPEN": "Make {file} and its folder readable and writable for this user, or name another in {variable}.",
    "SQLITE_BUSY": "Another process is writing to {file}: wait for it and rerun.",
    "SQLITE_FULL": "Make room on the disk of {file} and rerun.",
}
_SQLITE_REMEDIES |= {"SQLITE_CORRUPT": _SQLITE_REMEDIES["SQLITE_NOTADB"]}
_OF_OBJECTS = (
    "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_PARAMETER_VALUE", "INVALID_STATE",
)  # fmt: skip
_OF_PERMISSIONS = ("UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED")


def mlflow() -> Any:
    """Return the module mlflow. Importing it takes seconds, and its settings must be set before."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    with without_garbage_collection():
        import mlflow

    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def client() -> Any:
    """Return a client of the store that `connect` selected."""
    with without_garbage_collection():  # imports the code for its kind of store
        return mlflow().MlflowClient()


def store_errors() -> tuple[type[Exception], ...]:
    """Return the errors that MLflow raises if its store or a database driver is missing, damaged or unreachable.

    OSError comes from requests, and from artifacts in a folder that this user may not write.
    """
    return (mlflow().exceptions.MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError)


def is_missing(error: Exception) -> bool:
    """Return whether the error means that the requested object does not exist."""
    return getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST"


def reason(error: Exception) -> str:
    """Return the first line of the message of SQLite or MLflow, without passwords."""
    error = _sqlite_error(error) or error
    return public((str(error).strip() or type(error).__name__).splitlines()[0])


@contextmanager
def connected(root: Path) -> Iterator[str]:
    """Connect to the store and yield its address; raise UserError if the store fails in the block."""
    with _explained(root):
        yield connect(root)


@contextmanager
def _explained(root: Path, only: str | None = None) -> Iterator[None]:
    """Convert errors of the store and the registry, or of `only` one of them, to a UserError."""
    errors = store_errors()  # before the block: a Ctrl-C in it may leave MLflow half imported
    try:
        yield
    except errors as error:
        if isinstance(error, OSError) and error.filename:
            raise UserError(f"{error.filename2 or error.filename}: {error.strerror}; fix this and rerun") from None
        stores = {uri: variable for uri, variable in _stores(root).items() if only in (None, uri)}
        named = " or its registry ".join(public(uri) for uri in stores)
        raise UserError(f"MLflow's store {named} cannot be used: {reason(error)}\n{_remedy(stores, error)}") from None


def _remedy(stores: dict[str, str], error: BaseException) -> str:
    """Return the remedy for an error of one of the stores."""
    (uri, variable), *_ = stores.items()
    if isinstance(error, ImportError):
        return f"Install this package, or correct {variable}."
    if isinstance(error, mlflow().tracking.registry.UnsupportedModelRegistryStoreURIException):
        return f"Correct {' or '.join(stores.values())}."
    if sqlite_error := _sqlite_error(error):
        kind = "_".join(sqlite_error.sqlite_errorname.split("_")[:2])
        files = " or ".join(str(file) for file in map(_sqlite_file, stores) if file)
        return _SQLITE_REMEDIES.get(kind, "Look at {file}.").format(file=files, variable=variable)
    if getattr(error, "error_code", None) in _OF_OBJECTS:
        return (
            "The store answers, but the object may have been changed or deleted in MLflow. `tiny-imagenet sync` "
            "restores the runs and models of the current results."
        )
    if getattr(error, "error_code", None) in _OF_PERMISSIONS:
        return "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or ask the owner of the store for access."
    if uri.startswith("http"):
        proxy = "".join(
            f" Requests go through the proxy {public(address)}: to bypass it, add the server to no_proxy."
            for scheme, address in get_environ_proxies(uri).items()
            if scheme == urlsplit(uri).scheme
        )
        return f"Start its server, or correct {variable}.{proxy}"
    return f"Correct {variable}, or follow the message."


def _sqlite_error(error: BaseException | None) -> sqlite3.Error | None:
    """Return the error of SQLite that caused an error, or None."""
    while error is not None and not isinstance(error, sqlite3.Error):
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return error if error is not None and hasattr(error, "sqlite_errorname") else None


def tracking_uri(root: Path) -> str:
    """Return the address of the store: MLFLOW_TRACKING_URI, or the database in the root of the repository."""
    return os.environ.get("MLFLOW_TRACKING_URI") or sqlite_uri(root / _DATABASE)


def _stores(root: Path) -> dict[str, str]:
    """Return the addresses of the store and of a separate registry -> the variables that set them."""
    registry = os.environ.get("MLFLOW_REGISTRY_URI")
    return {tracking_uri(root): "MLFLOW_TRACKING_URI"} | ({registry: "MLFLOW_REGISTRY_URI"} if registry else {})


def sqlite_uri(database: Path) -> str:
    """Return the address of an SQLite file.

    If its path has a character with a special meaning in addresses, quote all of it, including slashes: MLflow creates
    the folder of the address before it decodes the address.
    """
    path = str(database)
    return f"sqlite:///{quote(path, safe='') if set('%?') & set(path) else path}"


def artifact_uri(folder: Path) -> str:
    """Return the address of a folder of artifacts: its path, or a file URI if the path needs quotes."""
    return folder.as_uri() if set("%?#") & set(str(folder)) else str(folder)


def local_path(uri: str) -> Path | None:
    """Return the path of an address of artifacts, or None if it is not on this disk."""
    if uri.startswith("file:"):
        return Path(unquote(urlsplit(uri).path))
    return Path(unquote(uri)) if uri.startswith("/") else None  # MLflow also decodes paths


def public(text: str) -> str:
    """Return a text without the `user:password@` of its addresses, for shared files."""
    return re.sub(r"(?<=://)[^/\s]\S*@", "", text)


def connect(root: Path) -> str:
    """Make MLflow use the store, create the database if it is missing, and return the address.

    Several processes may call this at once. Two that create the same SQLite file would corrupt it. So one of them
    creates it, under a lock and a temporary name.
    """
    stores = _stores(root)
    for uri, variable in stores.items():
        _require_address(uri, variable)
        _require_quoted(uri, variable)
    for uri in stores:
        _bypass_proxies(uri)
        with _explained(root, uri):
            if database := _sqlite_file(uri):
                _create_if_missing(database)
            if _is_database(uri):
                _require_mlflow_tables(uri)
            if database == root / _DATABASE:
                _follow_move(database, root / "mlruns")
    uri = tracking_uri(root)
    mlflow().set_tracking_uri(uri)
    return uri


def _require_address(uri: str, variable: str) -> None:
    """Refuse what is no address: MLflow would raise any error for it, or none."""
    try:
        uri.encode()
        if _is_database(uri):
            sqlalchemy.make_url(uri)
        elif "://" in uri and urlsplit(uri).scheme in ("http", "https"):
            urlsplit(uri).port  # noqa: B018 - raises if it is no number
    except UnicodeEncodeError:
        raise UserError(f"MLflow cannot use the address {uri!r}, which is not UTF-8: rename the folder") from None
    except (ValueError, SQLAlchemyError):  # its message may show a password
        raise UserError(
            f"{variable} is {public(uri)}, which is not an address; correct host and port. In a password, write / "
            "as %2F and @ as %40"
        ) from None
    if re.match(r"sqlite(\w+:|\w*)//", uri):
        raise UserError(f"{variable} is {uri}; the address of an SQLite file starts with sqlite:///")


def _is_database(uri: str) -> bool:
    return uri.partition(":")[0].partition("+")[0] in _DATABASES


def _require_quoted(uri: str, variable: str) -> None:
    """Refuse the address of a file if an unquoted character changes its path."""
    text, _, query = uri.partition("?")
    path = _sqlite_file(uri) or local_path(uri)
    is_wrong = path is not None and (
        ("%" in text and not path.parent.is_dir())
        or (uri.startswith("sqlite:") and "/" in query)
        or (uri.startswith("file:") and ("?" in uri or "#" in uri))
    )
    if is_wrong:
        raise UserError(
            f"{variable} is {public(uri)}, which means {path}; in an address, write % as %25, ? as %3F and # as %23"
        )


def _bypass_proxies(uri: str) -> None:
    """Make requests to a server on this machine bypass the proxy in `http_proxy`."""
    host = urlsplit(uri).hostname if uri.startswith("http") else None
    if host is None or not _is_loopback(host):
        return
    bypassed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if not {host, "*"} & {name.strip() for name in bypassed.split(",")}:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, (bypassed, host)))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _sqlite_file(uri: str) -> Path | None:
    """Return the file of an SQLite address, or None."""
    if not uri.startswith("sqlite"):
        return None
    url = sqlalchemy.make_url(uri)
    is_file = url.database not in (None, "", ":memory:") and "uri" not in url.query
    return Path(str(url.database)).absolute() if is_file else None


def _create_if_missing(database: Path) -> None:
    try:
        if not _has_content(database):
            with FileLock(_lock(database)):
                if not _has_content(database):
                    _create_database(database)
    except OSError as error:
        raise UserError(
            f"MLflow's database {database} cannot be used: {error.filename}: {error.strerror}; give this user "
            "permission, or name another store in MLFLOW_TRACKING_URI"
        ) from None


def _has_content(database: Path) -> bool:
    return database.is_dir() or (database.exists() and database.stat().st_size > 0)


def _lock(database: Path) -> Path:
    return database.with_name(f"{database.name}.lock")


@cache
def _require_mlflow_tables(uri: str) -> None:
    """Refuse a database without MLflow's tables. Fail at once on an error; MLflow would retry for two minutes."""
    engine = sqlalchemy.create_engine(uri)
    try:
        tables = sqlalchemy.inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if tables and "experiments" not in tables:
        raise UserError(f"{public(uri)} is a database of another program, expected one of MLflow: name another")


def _follow_move(database: Path, artifacts: Path) -> None:
    """Correct the absolute paths in a database that was moved together with the folder `artifacts`.

    Experiments whose folders are not in `artifacts` keep their paths. A database that this user may not write is not
    changed.
    """
    connect = sqlite3.connect
    with suppress(PermissionError), FileLock(_lock(database)), closing(connect(database, timeout=60)) as connection:
        rows = connection.execute("SELECT artifact_location FROM experiments").fetchall()
        folders = {location: path for (location,) in rows if location and (path := local_path(location))}
        for old in {location.rpartition("/")[0] for location in folders}:
            moved = [path for location, path in folders.items() if location.rpartition("/")[0] == old]
            if local_path(old) != artifacts and any((artifacts / path.name).is_dir() for path in moved):
                _replace_paths(connection, old, artifact_uri(artifacts))
        connection.commit()


def _replace_paths(connection: sqlite3.Connection, old: str, new: str) -> None:
    """Replace the folder `old` at the start of addresses of artifacts by `new`."""
    for table, column in _ARTIFACT_PATHS:
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",  # noqa: S608 - fixed names
            (new, len(old) + 1, len(old) + 1, f"{old}/"),
        )


def _create_database(database: Path) -> None:
    partial = database.with_name(f"{database.name}.{uuid4().hex}.partial")  # MLflow caches a store for each name
    for leftover in database.parent.glob(f"{glob.escape(database.name)}.{'[0-9a-f]' * 32}.partial*"):
        leftover.unlink()
    partial.touch()  # permissions follow the umask; with SQLite's, nobody else could write
    artifacts = database.parent / "mlruns"
    with contextlib.chdir(database.parent):  # default location of artifacts: ./mlruns
        mlflow().MlflowClient(sqlite_uri(partial)).search_experiments(max_results=1)
    with closing(sqlite3.connect(partial)) as connection, connection:
        _replace_paths(connection, str(artifacts), artifact_uri(artifacts))
    partial.replace(database)


def experiment_ids() -> list[str]:
    """Return the ids of all experiments that are not deleted."""
    return [experiment.experiment_id for experiment in client().search_experiments()]


def find_live(run_id: str | None) -> Any | None:
    """Return a run, or None if the store does not have it, or it is deleted."""
    try:
        run = run_id and client().get_run(run_id)
    except mlflow().exceptions.MlflowException as error:
        if is_missing(error):
            return None
        raise
    return run if run and run.info.lifecycle_stage == "active" else None


def search_runs(experiments: list[str], status: str, name: str, tags: Mapping[str, str]) -> list[Any]:
    """Return the runs of these experiments with this status, this name and all of these tags."""
    filters = [f'tags.`{key}` = "{value}"' for key, value in (dict(tags) | {"mlflow.runName": name}).items()]
    return list(client().search_runs(experiments, " and ".join([f"attributes.status = '{status}'", *filters])))


def experiment_id(name: str, root: Path) -> str:
    """Return the id of an experiment. Create it if it is missing; another process may do so at the same time."""
    experiment = client().get_experiment_by_name(name)
    if experiment is None:
        local = tracking_uri(root).startswith("sqlite:")
        location = artifact_uri(root / "mlruns" / name) if local else None
        try:
            return str(client().create_experiment(name, artifact_location=location))
        except mlflow().exceptions.MlflowException:
            experiment = client().get_experiment_by_name(name)
            if experiment is None:
                raise
    if experiment.lifecycle_stage == "deleted":
        raise UserError(
            f"the MLflow experiment '{name}' is deleted; restore it with "
            f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`"
        )
    return str(experiment.experiment_id)
