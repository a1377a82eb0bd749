"""The stages before training, run in this process on small archives, with what can go wrong on a disk."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from stages import cache, download
from stages import reorganize as reorganize_stage
from tiny_imagenet import entry
from tiny_imagenet.common.files import md5
from tiny_imagenet.input_pipeline.packed import open_packed

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workplace(tmp_path, monkeypatch, make_archive):
    """A folder with params.yaml for an archive of three classes; returns a function that changes its dataset."""
    make_archive(3, train=6, val=2).write(tmp_path / "own.zip")
    (tmp_path / "dvc.yaml").touch()  # what makes a folder a repository
    monkeypatch.chdir(tmp_path)

    def write(**dataset) -> None:
        params = yaml.safe_load((ROOT / "params.yaml").read_text())
        params["profile"] = "own"
        params["profiles"]["own"] = {
            "dataset": {"name": "own", "archive": "own.zip", "expect": {"classes": 3, "train": 6, "val": 2}} | dataset,
            "training": {"epochs": 1},
        }
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))

    write()
    return write


def run_all() -> list[int]:
    return [entry.run(stage.main) for stage in (download, reorganize_stage, cache)]


def test_own_images_of_three_classes_are_packed(workplace, capsys):
    assert run_all() == [0, 0, 0]
    packed = open_packed(Path("data/cache"))
    assert (len(packed.train), len(packed.val), packed.num_classes) == (18, 6, 3)
    assert "packed 18 training and 6 validation images" in capsys.readouterr().out
    for name in ("augmentation", "classes", "duplicates"):
        assert (Path("data/overview") / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


def test_the_report_has_counts_channel_means_and_copies(workplace):
    run_all()
    report = json.loads(Path("data/overview/report.json").read_text())
    assert report["used"] == {"train": 18, "val": 6}
    assert set(report["per_class"]["train"].values()) == {6}
    assert report["duplicates"]["counts"]["exact"]["train-val"]["pairs"] == 0
    packed = open_packed(Path("data/cache"))
    assert report["train_channel_means"] == pytest.approx(packed.train.images.mean((0, 1, 2)), abs=1e-3)


@pytest.fixture
def leaking(workplace, make_archive, tmp_path):
    """The archive again, with a validation image that is also a training image."""
    archive = make_archive(3, train=6, val=2)
    first = next(name for name in archive.members if name.startswith("train/") and name.endswith("_3.JPEG"))
    archive.members["val/images/val_1.JPEG"] = archive.members[first]
    archive.write(tmp_path / "own.zip")
    return workplace


def test_leakage_is_reported(leaking):
    assert run_all() == [0, 0, 0]
    duplicates = json.loads(Path("data/overview/report.json").read_text())["duplicates"]
    assert duplicates["counts"]["exact"]["train-val"]["pairs"] == 1
    assert len(open_packed(Path("data/cache")).train) == 18


def test_leaking_training_images_are_dropped_if_params_say_so(leaking):
    leaking(duplicates="drop_from_train")
    assert run_all() == [0, 0, 0]
    packed = open_packed(Path("data/cache"))
    assert (len(packed.train), len(packed.val)) == (17, 6)
    assert json.loads(Path("data/overview/report.json").read_text())["duplicates"]["dropped_from_train"] == 1
    leaked = packed.val.images[2]  # class 1's first of two
    assert not any(np.array_equal(image, leaked) for image in packed.train.images)


def test_leakage_is_refused_if_params_say_so(leaking, capsys):
    leaking(duplicates="fail")
    assert run_all() == [0, 0, 1]
    assert "_3.JPEG and val/" in capsys.readouterr().err


def test_a_missing_class_is_refused_before_anything_is_written(workplace, capsys):
    workplace(expect={"classes": 4})
    assert run_all()[1] == 1
    assert "expected 4 classes, found 3" in capsys.readouterr().err
    assert not Path("data/images").exists()


def test_a_profile_may_omit_keys_that_have_defaults(workplace):
    workplace(expect={})
    assert run_all() == [0, 0, 0]


def test_an_archive_in_dvcs_cache_is_not_downloaded_again(workplace, tmp_path):
    digest = md5(tmp_path / "own.zip")
    kept = tmp_path / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    kept.parent.mkdir(parents=True)
    (tmp_path / "own.zip").rename(kept)
    workplace(archive=None, urls=["http://127.0.0.1:9/own.zip"], md5=digest)
    assert run_all() == [0, 0, 0]
    assert md5(Path("data/raw/dataset.zip")) == digest


def limited(stage: str, limit: int) -> subprocess.CompletedProcess[str]:
    """Run a stage that may write no file of more than `limit` bytes, as on a full disk or under a quota."""
    return subprocess.run(
        [sys.executable, "-B", "-m", f"stages.{stage}"],  # bytecode that is cut short would stay
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "PATH": ""},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.parametrize(("stage", "limit"), [("download", 4096), ("reorganize", 4096), ("cache", 65536)])
def test_a_full_disk_is_one_message_and_leaves_no_partial_file(workplace, stage, limit):
    for before in ("download", "reorganize", "cache"):
        if before == stage:
            break
        entry.run({"download": download, "reorganize": reorganize_stage}[before].main)
    done = limited(stage, limit)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    if stage != "download":  # which keeps its half for the next try
        assert not list(Path("data").rglob("*.partial"))
    made = {
        "download": "data/raw/dataset.zip",
        "reorganize": "data/images/train.zip",
        "cache": "data/cache/train_images.npy",
    }
    assert not Path(made[stage]).exists()
    assert run_all() == [0, 0, 0]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that nobody may write to")
@pytest.mark.parametrize("folder", ["raw", "images", "cache", "overview"])
def test_a_read_only_folder_is_one_message_and_works_once_it_is_writable(workplace, capsys, folder):
    Path("data").mkdir()
    link = Path("data") / folder
    link.symlink_to("/proc/self")  # not even root writes there
    assert 1 in run_all()
    assert "error: " in capsys.readouterr().err
    link.unlink()
    assert run_all() == [0, 0, 0]


def test_a_damaged_file_in_dvcs_cache_is_not_used(workplace, tmp_path):
    digest = md5(tmp_path / "own.zip")
    kept = tmp_path / ".dvc" / "cache" / "files" / "md5" / digest[:2] / digest[2:]
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"damaged")
    workplace(archive=None, urls=[(tmp_path / "own.zip").as_uri()], md5=digest)
    assert run_all() == [0, 0, 0]


def test_a_class_may_have_dollars_in_its_name(workplace, make_archive, tmp_path):
    archive = make_archive(3, train=6, val=2)
    archive.set_lines("words.txt", [f"{wnid}\tprice $_^$ {wnid}" for wnid in archive.wnids])
    archive.write(tmp_path / "own.zip")
    assert run_all() == [0, 0, 0]
