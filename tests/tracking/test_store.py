"""The store: its address, folders of any name, moves, stores that cannot be used, proxies, and several users."""

import ctypes
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from made_runs import points, write_run
from servers import free_port

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.tracking import store
from tiny_imagenet.tracking.results import find_run, result_hashes
from tiny_imagenet.tracking.run import mark_killed, start_run

FOLDERS = ["feature%2Ffoo", "50% done? #1", "a#b", "a?b=c", "a_b", "Größe 'x' \"y\" & [z]*@:;"]


def write_files(root: Path, text: str = "kept") -> str:
    """Write a run with a file into the store of `root`, and return its id."""
    with start_run(root, experiment="demo", name="m", params={}, tags={}) as run:
        run.log_epoch(1, {"loss": 1.0})
        run.log_text(text, "history.csv")
    return run.run_id


def locations(database: Path) -> set[str]:
    with closing(sqlite3.connect(database)) as connection:
        return {location for (location,) in connection.execute("SELECT artifact_location FROM experiments")}


def test_the_store_is_in_the_root_unless_mlflow_tracking_uri_is_set(tmp_path, monkeypatch):
    assert store.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somewhere:5000")
    assert store.tracking_uri(tmp_path) == "http://somewhere:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert store.tracking_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"


def test_connect_returns_the_address_and_disables_telemetry(root):
    import mlflow

    assert store.connect(root) == mlflow.get_tracking_uri() == f"sqlite:///{root}/mlflow.db"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def alembic_version(database: Path) -> str:
    with sqlite3.connect(database) as connection:
        return str(connection.execute("select version_num from alembic_version").fetchone()[0])


WRITER = """
import pathlib, sys
from tiny_imagenet.tracking.run import start_run
root, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with start_run(root, experiment="demo", name=name, params={}, tags={}) as run:
    run.log_epoch(1, {"loss": 1.0})
"""


@pytest.mark.slow
def test_three_processes_that_start_at_once_create_one_complete_database(root, tmp_path):
    import mlflow

    # Files of a process that was killed.
    for leftover in (f"mlflow.db.{'0a' * 16}.partial", f"mlflow.db.{'0a' * 16}.partial-journal"):
        (tmp_path / leftover).write_bytes(b"half a database")
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    processes = [subprocess.Popen([*command, f"model_{n}"], stderr=subprocess.PIPE, text=True) for n in (1, 2, 3)]
    for process in processes:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    with sqlite3.connect(tmp_path / "mlflow.db") as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
    assert alembic_version(tmp_path / "mlflow.db") == alembic_version(root / "mlflow.db")
    assert list(tmp_path.glob("*.partial*")) == []

    client = mlflow.MlflowClient(store.tracking_uri(tmp_path))
    experiment = client.get_experiment_by_name("demo")
    runs = client.search_runs([experiment.experiment_id])
    assert {run.info.run_name for run in runs} == {"model_1", "model_2", "model_3"}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert [points(client, run.info.run_id, "loss") for run in runs] == [[(1, 1.0)]] * 3


def test_runs_go_to_the_store_in_mlflow_tracking_uri_and_no_other_is_created(root, tmp_path, monkeypatch):
    import mlflow

    shutil.copy(root / "mlflow.db", tmp_path / "other.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    here = tmp_path / "here"
    here.mkdir()
    run_id = write_run(here, experiment="elsewhere", epochs=1)
    assert points(mlflow.MlflowClient(f"sqlite:///{tmp_path}/other.db"), run_id, "loss") == [(1, 1.0)]
    assert not (here / "mlflow.db").exists()
    assert mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db").get_experiment_by_name("elsewhere") is None


def test_passwords_are_removed_from_addresses():
    assert store.public("postgresql://me:secret@host/db") == "postgresql://host/db"
    assert (
        store.public("failed at http://me:se@host:5000 and http://a:b@c") == "failed at http://host:5000 and http://c"
    )
    assert store.public("http://me:s@e/c@host:5000/path") == "http://host:5000/path"
    assert store.public("sqlite:////a/b@c/mlflow.db") == "sqlite:////a/b@c/mlflow.db"


def test_a_deleted_experiment_is_refused_with_the_command_that_restores_it(root, client):
    deleted = client.create_experiment("deleted one")
    client.delete_experiment(deleted)
    with pytest.raises(UserError) as caught:
        write_run(root, experiment="deleted one")
    assert "'deleted one' is deleted" in str(caught.value)
    assert f"mlflow experiments restore --experiment-id {deleted}" in str(caught.value)


def test_ctrl_c_while_mlflow_is_imported_raises_keyboard_interrupt(root, monkeypatch):
    """After an interrupted import, a second import fails with another error."""
    imports = []

    def half_imported() -> Any:
        imports.append(True)
        raise KeyboardInterrupt if len(imports) == 1 else AttributeError("partially initialized module 'mlflow'")

    monkeypatch.setattr(store, "mlflow", half_imported)
    with pytest.raises(KeyboardInterrupt):
        mark_killed(root, name="a", tags={})


# --- folders of any name, and stores that move ---


def test_a_database_is_created_in_a_folder_whose_name_needs_quotes(empty_store):
    root = empty_store.parent
    assert [path.name for path in root.parent.iterdir()] == ["feature%2Ffoo"]
    assert locations(empty_store) == {f"file://{quote(str(root))}/mlruns/0"}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_repository_may_be_in_a_folder_of_any_name(name, empty_store, tmp_path):
    root = tmp_path / name
    root.mkdir()
    shutil.copy(empty_store, root)
    run_id = write_files(root)
    assert [path.relative_to(root).parts[:2] for path in tmp_path.rglob("history.csv")] == [("mlruns", "demo")]
    assert list(result_hashes(root, run_id)) == ["history.csv"]
    assert find_run(root, run_id).metrics == {"loss": 1.0}
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_repository_may_be_moved_to_and_from_a_folder_of_any_name(empty_store, tmp_path, monkeypatch):
    root = tmp_path / "plain"
    root.mkdir()
    shutil.copy(empty_store, root)
    run_id = write_files(root)
    for name in [*FOLDERS, "plain again"]:
        monkeypatch.delenv("MLFLOW_TRACKING_URI")
        root = root.rename(tmp_path / name)
        assert list(result_hashes(root, run_id)) == ["history.csv"], name
    assert str(root / "mlruns" / "demo") in locations(root / "mlflow.db")


def test_a_move_does_not_change_similar_paths(empty_store, tmp_path, monkeypatch):
    """`_` and `%` are wildcards in SQL."""
    root, other = tmp_path / "a_b", tmp_path / "aXb" / "mlruns" / "other"
    root.mkdir()
    shutil.copy(empty_store, root)
    write_files(root)
    store.client().create_experiment("other", artifact_location=str(other))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    root = root.rename(tmp_path / "moved")
    store.connect(root)
    assert {str(root / "mlruns" / "demo"), str(other)} <= locations(root / "mlflow.db")


@pytest.mark.parametrize(
    ("uri", "meant"),
    [
        ("sqlite:///{}/feature%2Ffoo/x.db", "feature/foo/x.db"),
        ("sqlite:///{}/what?/x.db", "what"),
        ("{}/feature%2Ffoo/mlruns", "feature/foo/mlruns"),
        ("file://{}/feature%2Ffoo/mlruns", "feature/foo/mlruns"),
        ("file://{}/what#1/mlruns", "what"),
    ],
)
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_an_address_without_quotes_is_refused_with_its_meaning(variable, uri, meant, tmp_path, monkeypatch):
    for name in ("feature%2Ffoo", "what?", "what#1"):
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setenv(variable, uri.format(tmp_path))
    with pytest.raises(UserError, match=f"{variable} is .*%25") as caught, store.connected(tmp_path):
        pass
    assert f"means {tmp_path}/{meant}" in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://[::1", "correct host and port"),
        ("https://[x]:5000", "correct host and port"),
        ("http://localhost:abc", "correct host and port"),
        ("http://localhost:99999999", "correct host and port"),
        ("HTTP://[::1", "correct host and port"),
        ("file://[x/y", "correct host and port"),
        ("s3://[x", "correct host and port"),
        ("postgresql://user@host:abc/db", "correct host and port"),
        ("http://user:secret/x@host", "correct host and port"),
        ("postgresql://user:a@secret:b@host/db", "correct host and port"),
        ("sqlite3:///x.db", "starts with sqlite:///"),
        ("sqlite//x.db", "starts with sqlite:///"),
    ],
)
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_what_is_no_address_is_refused(variable, uri, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, uri)
    with pytest.raises(UserError, match=f"{variable} is .*({reason})") as refused, store.connected(tmp_path):
        pass
    assert "secret" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["databricks://scope:prefix", "databricks-uc://scope:prefix", "s3://bucket:x/y"])
def test_what_follows_a_colon_is_a_port_for_a_server_alone(uri):
    store._require_address(uri, "MLFLOW_TRACKING_URI")


def test_an_address_of_an_unknown_kind_is_corrected_not_synced(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://server/runs")
    with pytest.raises(UserError, match="unsupported URI") as caught, store.connected(tmp_path):
        store.experiment_ids()
    assert str(caught.value).splitlines()[1] == "Correct MLFLOW_TRACKING_URI."


def test_a_quoted_address_of_the_user_is_used(empty_store, tmp_path, monkeypatch):
    (tmp_path / "what? 50%").mkdir()
    database = shutil.copy(empty_store, tmp_path / "what? 50%" / "x.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{quote(str(database))}")
    run_id = write_files(tmp_path)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT run_uuid FROM runs").fetchall() == [(run_id,)]
    assert not (tmp_path / "mlflow.db").exists()


def test_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path):
    root = tmp_path / os.fsdecode(b"latin-\xe9")
    root.mkdir()
    with pytest.raises(UserError, match="not UTF-8: rename the folder"), store.connected(root):
        pass
    assert list(root.iterdir()) == []


def test_after_the_repository_was_moved_its_artifacts_are_found(root, tmp_path, monkeypatch):
    import mlflow

    here, moved = shutil.copytree(root, tmp_path / "here"), tmp_path / "there"
    note = tmp_path / "note.txt"
    note.write_text("kept")
    with start_run(here, experiment="moving", name="before", params={}, tags={}) as before:
        before.log_artifact(note)
    here.rename(moved)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow sets it, for the processes that this one would start
    with start_run(moved, experiment="moving", name="after", params={}, tags={}) as after:
        after.log_artifact(note)
    client = mlflow.MlflowClient(f"sqlite:///{moved / 'mlflow.db'}")
    for run in (before, after):
        assert client.get_run(run.run_id).info.artifact_uri.startswith(str(moved / "mlruns" / "moving"))
        assert [file.path for file in client.list_artifacts(run.run_id)] == ["note.txt"]
    assert not here.exists()


def test_a_store_that_was_moved_without_its_artifacts_is_not_changed(root, tmp_path, monkeypatch):
    import mlflow

    here, alone = shutil.copytree(root, tmp_path / "here"), tmp_path / "alone"
    with start_run(here, experiment="moving", name="before", params={}, tags={}) as run:
        pass
    alone.mkdir()
    (here / "mlflow.db").rename(alone / "mlflow.db")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    store.connect(alone)
    client = mlflow.MlflowClient(f"sqlite:///{alone / 'mlflow.db'}")
    assert client.get_run(run.run_id).info.artifact_uri.startswith(str(here))


# --- stores that cannot be used ---


def not_a_database(path: Path) -> None:
    path.write_bytes(b"no database" * 100)


def another_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE addresses (street TEXT)")


def a_folder(path: Path) -> None:
    path.mkdir()


def an_older_one(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '0'")


def use(root: Path) -> None:
    with store.connected(root):
        store.client().search_experiments()
        store.client().search_registered_models()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (not_a_database, "is damaged: move it away"),
        (another_database, "is a database of another program"),
        (a_folder, "readable and writable"),
        (an_older_one, "mlflow db upgrade"),
    ],
)
@pytest.mark.parametrize("variable", [None, "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
def test_a_database_that_cannot_be_used_is_refused_at_once_with_a_remedy(
    variable, spoil, message, empty_store, tmp_path, monkeypatch
):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    database = tmp_path / ("other.db" if variable else "mlflow.db")
    if spoil is an_older_one:
        if variable == "MLFLOW_REGISTRY_URI":
            return  # MLflow does not compare the versions of a registry
        shutil.copy(empty_store, database)
    else:
        database.unlink(missing_ok=True)
    spoil(database)
    if variable:
        monkeypatch.setenv(variable, f"sqlite:///{database}")
    began = time.monotonic()
    with pytest.raises(UserError, match=message) as caught:
        use(tmp_path)
    assert time.monotonic() - began < 10
    assert database.name in str(caught.value)
    assert ("move it away" in str(caught.value)) == (spoil is not_a_database)


def test_a_database_server_that_cannot_be_reached_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"postgresql+psycopg2://me:secret@127.0.0.1:{free_port()}/mlflow")
    began = time.monotonic()
    with pytest.raises(UserError, match="Correct MLFLOW_TRACKING_URI") as caught, store.connected(tmp_path):
        store.client().search_experiments()
    assert time.monotonic() - began < 10
    assert "secret" not in str(caught.value)
    assert "move" not in str(caught.value)


def test_an_empty_file_becomes_a_database(tmp_path):
    """SQLite creates one when a missing file is opened."""
    (tmp_path / "mlflow.db").touch()
    store.connect(tmp_path)
    assert locations(tmp_path / "mlflow.db") == {f"{tmp_path}/mlruns/0"}


@pytest.mark.parametrize("uri", ["unheard://of", "http://127.0.0.1:9"])
def test_a_store_that_cannot_be_used_is_refused_with_its_address(uri, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError) as caught:
        write_run(tmp_path)
    assert uri in str(caught.value)


def test_a_file_that_is_not_a_database_is_refused_with_its_path(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"no database")
    with pytest.raises(UserError) as caught:
        write_run(tmp_path)
    assert str(tmp_path / "mlflow.db") in str(caught.value)


# --- proxies ---


@pytest.mark.parametrize(
    ("uri", "before", "after"),
    [
        ("http://127.0.0.1:{}", None, "127.0.0.1"),
        ("http://localhost:{}", "example.org", "example.org,localhost"),
        ("http://me:secret@127.0.0.2:{}/path", "", "127.0.0.2"),
        ("http://127.0.0.1:{}", "*", "*"),
        ("http://mlflow.example.org:{}", "example.com", "example.com"),
    ],
)
def test_requests_to_a_server_on_this_machine_bypass_the_proxy(uri, before, after, monkeypatch, tmp_path):
    from requests.utils import get_environ_proxies

    uri = uri.format(free_port())
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, before or "")
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://proxy.example.org:{free_port()}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    store.connect(tmp_path)
    assert os.environ["no_proxy"] == after
    assert bool(get_environ_proxies(uri)) == ("mlflow.example.org" in uri)


def test_the_error_for_a_server_behind_a_proxy_names_the_proxy(monkeypatch, tmp_path):
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example.org:5000")
    with pytest.raises(UserError, match=r"the proxy http://127\.0\.0\.1:9: .* add the server to no_proxy") as caught:
        write_run(tmp_path)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("status", "remedy"), [(401, "MLFLOW_TRACKING_USERNAME"), (503, "Start its server")])
def test_a_server_that_refuses_is_distinguished_from_one_that_cannot_be_reached(status, remedy, monkeypatch, tmp_path):
    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"no")

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match=f"{status}.*\n.*{remedy}"):
            mark_killed(tmp_path, name="m", tags={})
        server.shutdown()


# --- several users ---

AS_ANOTHER_USER = """
import os, sys
from pathlib import Path
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.tracking.results import find_run, result_hashes
from tiny_imagenet.tracking.run import mark_killed, start_run

root, run_id, umask = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3], 8)
os.umask(umask)
try:
    print(list(result_hashes(root, run_id)), find_run(root, run_id).name)
except UserError as error:
    print("error:", error)
print("now writing")
try:
    with start_run(root, experiment="demo", name="theirs", params={}, tags={}) as run:
        run.log_epoch(1, {"loss": 2.0})
        run.log_text("theirs", "history.csv")
    print(run.run_id)
except UserError as error:
    print("error:", error)
"""
OWNER, GROUP = 54321, 54300
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")


def lose_capabilities() -> None:
    """Make the permissions of files apply to root too, in the next command."""
    prctl, drop_from_bounding_set = ctypes.CDLL(None).prctl, 24
    for capability in range(4):  # chown, and those that override permissions
        assert prctl(drop_from_bounding_set, capability, 0, 0, 0) == 0


def another_user(root: Path, umask: int, run_id: str) -> tuple[str, str]:
    """Read a run from the store of `root`, then write one, as a member of GROUP; return what each of them printed."""
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER_USER, str(root), run_id, f"{umask:o}"],
        cwd=root, capture_output=True, text=True, check=False, preexec_fn=lose_capabilities, extra_groups=[GROUP],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    read, written = done.stdout.split("now writing\n")
    return read.strip(), written.strip()


def owned_store(root: Path, umask: int, empty_store: Path | None = None) -> str:
    """Make a store in `root`, or copy an empty one. OWNER owns it, and GROUP may write. Return the id of its run."""
    before = os.umask(umask)
    try:
        if empty_store:
            shutil.copyfile(empty_store, root / "mlflow.db")
        else:
            store.connect(root)
        run_id = write_files(root)
    finally:
        os.umask(before)
    for path in (root, *root.rglob("*")):
        os.chown(path, OWNER, GROUP)
    root.chmod(0o2775)
    return run_id


@needs_root
@pytest.mark.slow
def test_users_of_a_group_share_a_store_if_the_umask_allows_it(tmp_path):
    run_id = owned_store(tmp_path, 0o002)
    read, theirs = another_user(tmp_path, 0o002, run_id)
    assert read == "['history.csv'] m"
    assert find_run(tmp_path, theirs).metrics == {"loss": 2.0}
    assert list(result_hashes(tmp_path, theirs)) == ["history.csv"]


@needs_root
@pytest.mark.slow
@pytest.mark.parametrize(
    ("umask", "read", "written"),
    [
        (0o022, r"\['history.csv'\] m", r"error: .*readonly database.*mlflow.db and its folder writable"),
        (0o077, r"error: .*mlflow.db and its folder readable", r"error: .*mlflow.db and its folder readable"),
    ],
)
def test_missing_permissions_of_another_user_are_one_message(umask, read, written, tmp_path, empty_store):
    run_id = owned_store(tmp_path, umask, empty_store)
    printed = another_user(tmp_path, umask, run_id)
    assert re.match(read, printed[0], re.DOTALL)
    assert re.match(written, printed[1], re.DOTALL)


@needs_root
@pytest.mark.slow
def test_artifacts_that_another_user_may_not_write_do_not_stop_a_training(tmp_path, empty_store):
    run_id = owned_store(tmp_path, 0o002, empty_store)
    (tmp_path / "mlruns" / "demo").chmod(0o755)
    theirs = find_run(tmp_path, another_user(tmp_path, 0o002, run_id)[1])
    assert (theirs.status, theirs.metrics) == ("FINISHED", {"loss": 2.0})
