"""Zips, arrays, tables and figures have the same bytes under every Python that is found: 3.11.2 and 3.11.7 are two."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
SCRIPT = r"""
import hashlib, json, platform, sys, zipfile
from pathlib import Path
from tiny_imagenet.common import files
from tiny_imagenet.models import saved_model

raw, folder, locked_packages = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "same"

def members(name, limit=2**31 - 1, sizes=(0, 1, 10, 1000)):
    zipfile.ZIP64_LIMIT = files._LARGEST_WITHOUT_ZIP64 = limit
    with zipfile.ZipFile(folder / name, "w") as archive:
        for size in sizes:
            with files.open_member(archive, f"{size}.h5", size) as stream:
                stream.write(bytes(size))
    with zipfile.ZipFile(folder / name) as archive:
        assert archive.testzip() is None

saved_model._rewrite(raw, folder / "model.keras", {"wnids": ["n1"], "class_names": ["ä"]})
members("small.zip")
members("large.zip", limit=100, sizes=(10, 96, 99, 100, 101, 1000))  # with a limit of 100 bytes instead of 2 GiB
members("large.zip.end", limit=2, sizes=(1, 2))  # the offset of the directory is above the limit as well
zipfile.ZIP64_LIMIT = files._LARGEST_WITHOUT_ZIP64 = 2**31 - 1
zipfile.ZIP_FILECOUNT_LIMIT = 3  # instead of the 65,535 members that a plain zip can have
with zipfile.ZipFile(folder / "many.zip", "w") as archive:
    for number in range(4):
        archive.writestr(files.deterministic_member(f"train/n1/{number}.JPEG"), b"")
assert b"PK\6\6" in (folder / "many.zip").read_bytes()  # a zip64's end
if locked_packages:  # of another minor version of Python there are no compiled packages here
    import h5py, numpy as np, pandas as pd
    from tiny_imagenet import plotting
    rng = np.random.default_rng(0)
    np.save(folder / "array.npy", rng.random((7, 5)).astype(np.float32))
    table = pd.DataFrame({"wnid": ["n1", "ä"], "score": rng.random(2).astype(np.float32), "label": [1, 2]})
    table.to_parquet(folder / "table.parquet", index=False)
    files.write_text(folder / "table.csv", table.to_csv(index=False))
    with h5py.File(folder / "weights.h5", "w") as weights:
        weights.create_group("layers").create_dataset("0", data=rng.random((9, 9)))
    with plotting.new_figure(folder / "figure", 4, 3, title="ä") as (_, axes):
        axes[0, 0].plot(rng.random(9))
print(json.dumps({"version": platform.python_version(), "files": files.hashes_below(folder)}))
"""


def made_by(python: str | Path, raw: Path, folder: Path, packages: str) -> dict[str, dict[str, str]]:
    """Return the version of a Python, and file -> MD5 of what it writes into `folder`."""
    folder.mkdir()
    paths = [ROOT / "src", *(path for path in sys.path if path.endswith("site-packages"))]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    done = subprocess.run(
        [python, "-c", SCRIPT, raw, folder, packages], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{python}: {done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def others() -> dict[str, Path]:
    """Return version -> path of the other Pythons on this machine that the project supports."""
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep)] + [Path("/usr/bin")]
    paths = [folder / f"python{version}" for folder in folders for version in VERSIONS]
    paths += sorted(Path.home().glob(".pyenv/versions/*/bin/python3"))
    paths += sorted(Path.home().glob(".local/share/uv/python/*/bin/python3"))
    found = {}
    for path in filter(Path.is_file, paths):
        asked = subprocess.run([path, "-c", "import platform; print(platform.python_version())"], capture_output=True)
        version = asked.stdout.decode().strip()
        if asked.returncode == 0 and version.startswith(VERSIONS):  # a shim of pyenv may name a Python that is gone
            found.setdefault(version, path)
    found.pop(sys.version.split()[0], None)
    return found or pytest.skip("there is one Python alone")


@pytest.fixture
def raw(tmp_path) -> Path:
    """Return a model as Keras saves it, as far as the members matter."""
    path = tmp_path / "raw.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3", "date_saved": "2026-01-01@00:00:00"}')
        archive.writestr("config.json", '{"shared_object_id": 140123456789, "name": "a"}')
        archive.writestr("model.weights.h5", bytes(range(256)) * 100)
    return path


@pytest.mark.slow
def test_every_python_writes_the_same_bytes(others, raw, tmp_path):
    own = made_by(sys.executable, raw, tmp_path / "own", "same")["files"]
    assert {"model.keras", "many.zip", "array.npy", "table.parquet", "figure.png", "figure.svg", "weights.h5"} < set(
        own
    )
    for version, python in others.items():
        packages = "same" if version.rpartition(".")[0] == sys.version.rpartition(".")[0][:4] else "none"
        made = made_by(python, raw, tmp_path / version, packages)
        assert made["version"] == version
        assert made["files"] == {name: own[name] for name in made["files"]}, python
        assert ("table.parquet" in made["files"]) == (packages == "same")
