"""Files of the user at paths that the pipeline writes are refused, before DVC could remove them."""

from pathlib import Path
from typing import Any

import pytest
from made_results import VALUES

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.config.params import Params, parse_params
from tiny_imagenet.repository.paths import refuse_own_paths


def params_with(dataset: dict[str, Any], weights: str | None = None) -> Params:
    profile = {"dataset": {"name": "own"} | dataset, "training": {"epochs": 1}}
    block = VALUES["models"]["model_5"] | {"weights": weights}
    values = {"profile": "own", "profiles": VALUES["profiles"] | {"own": profile}, "active": ["model_5"]}
    return parse_params(VALUES | values | {"models": VALUES["models"] | {"model_5": block}})


OWN = [
    "data/raw/dataset.zip", "./data/raw/../raw/dataset.zip", "data/images/train.zip",
    "data/cache/x.npy", "data/overview/x.zip", "models/model_1/x.h5", "results/x", "reports/x.zip", "checkpoints/x",
    "sweeps/x", "mlruns/x", "mlflow.db", ".dvc/cache/x", ".git/x", "data/raw/dataset.zip.partial",
]  # fmt: skip
ELSEWHERE = [
    "own.zip",
    "data/raw/other.zip",
    "data/own.zip",
    "archives/data/raw/own.zip",
    "models.zip",
    "../data/raw/own.zip",
    "~/own.zip",
]


@pytest.mark.parametrize("name", OWN)
def test_archives_and_weights_at_paths_of_the_pipeline_are_refused(name, tmp_path):
    for path in (name, str(tmp_path / name)):
        with pytest.raises(UserError, match=r"profiles\.own\.dataset\.archive: .* move .* elsewhere"):
            refuse_own_paths(params_with({"archive": path}), tmp_path)
        with pytest.raises(UserError, match=r"models\.model_5\.weights: .* move .* elsewhere"):
            refuse_own_paths(params_with({"archive": "own.zip"}, weights=path), tmp_path)
    with pytest.raises(UserError, match=r"profiles\.own\.dataset\.urls"):
        refuse_own_paths(params_with({"urls": [(tmp_path / name).as_uri()]}), tmp_path)


@pytest.mark.parametrize("name", ELSEWHERE)
def test_files_elsewhere_are_accepted(name, tmp_path):
    refuse_own_paths(params_with({"archive": name}, weights=name), tmp_path)
    refuse_own_paths(params_with({"urls": ["https://example.org/data/raw/dataset.zip"]}, "imagenet"), tmp_path)


def test_links_are_followed(tmp_path):
    (tmp_path / "data" / "raw").mkdir(parents=True)
    (tmp_path / "link.zip").symlink_to("data/raw/dataset.zip")
    (tmp_path / "folder").symlink_to(tmp_path / "data" / "raw")
    for name in ("link.zip", "folder/dataset.zip"):
        with pytest.raises(UserError, match=r"the pipeline writes data/raw/dataset\.zip"):
            refuse_own_paths(params_with({"archive": name}), tmp_path)
    (tmp_path / "archives").mkdir()
    (tmp_path / "results").symlink_to("archives")  # the pipeline writes into the folder of the user
    with pytest.raises(UserError, match="the pipeline writes results"):
        refuse_own_paths(params_with({"archive": "archives/own.zip"}), tmp_path)


def test_only_files_of_the_chosen_profile_and_of_active_models_are_checked(tmp_path):
    params = params_with({"archive": "data/raw/dataset.zip"})
    refuse_own_paths(params.model_copy(update={"profile": "demo"}), tmp_path)


def test_a_path_below_an_unknown_home_directory_is_refused(tmp_path, monkeypatch):
    def no_home(_path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    with pytest.raises(UserError, match=r"dataset\.archive: ~/own\.zip: Could not .* Write the full path, or set HOME"):
        refuse_own_paths(params_with({"archive": "~/own.zip"}), tmp_path)
