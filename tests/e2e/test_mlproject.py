"""`mlflow run`: the pipeline's entry points for those who come from MLflow, from a clean copy on."""

import shutil
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from repository_copy import Copy, copy_of_repository, tiny

MODEL = "model_2"
pytestmark = pytest.mark.e2e


def one_small_model(params: dict) -> None:
    tiny(params)
    params["active"] = [MODEL]
    params["models"][MODEL]["build"] |= {"filters": [4, 4, 4], "dense_units": 16}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Copy:
    copy = copy_of_repository(tmp_path_factory.mktemp("project") / "repository")
    copy.edit(one_small_model)
    copy.commit()
    return copy


def mlflow_run(entry_point: str, *options: str, env_manager: str = "local") -> tuple[str, ...]:
    return ("mlflow", "run", ".", f"--env-manager={env_manager}", "-e", entry_point, *options)


@pytest.fixture(scope="module")
def trained(copy) -> str:
    """What was printed when the first command in a clean copy trained a model."""
    return copy.succeed(*mlflow_run("train", "-P", f"model={MODEL}"))


def newest(runs: pd.DataFrame) -> pd.Series:
    return runs.sort_values("start_time").iloc[-1]


def test_a_model_is_trained_as_a_child_of_the_projects_run(copy, trained):
    children, parents = copy.runs(), copy.runs("Default")
    assert len(children) == len(parents) == 1
    child, parent = newest(children), newest(parents)
    assert child["tags.mlflow.runName"] == MODEL
    assert child["tags.mlflow.parentRunId"] == parent["run_id"]
    assert parent["tags.mlflow.project.entryPoint"] == "train"
    assert (child["status"], parent["status"]) == ("FINISHED", "FINISHED")
    assert not (copy.root / "results").exists()  # nothing but what was asked for


def test_each_entry_point_makes_what_it_is_named_after(copy, trained):
    copy.succeed(*mlflow_run("evaluate", "-P", f"model={MODEL}"))
    assert (copy.root / "results" / MODEL / "metrics.json").is_file()
    assert not (copy.root / "reports").exists()
    copy.succeed(*mlflow_run("compare"))
    assert (copy.root / "reports" / "results.csv").is_file()
    assert "Data and pipelines are up to date." in copy.succeed(*mlflow_run("main"))
    assert len(copy.runs()) == 1


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("modle_2", "params.yaml: unknown model 'modle_2' (did you mean 'model_2'?)"),
        (f"{MODEL}; touch hacked; $(touch hacked) `touch hacked`", f"known: model_1, {MODEL}"),
    ],
)
def test_an_unknown_model_is_refused_with_one_message_and_runs_nothing(copy, trained, model, said):
    refused = copy.run(*mlflow_run("train", "-P", f"model={model}"))
    assert refused.returncode != 0
    assert said in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    assert "Running stage" not in refused.stdout + refused.stderr
    assert not list(copy.root.rglob("hacked"))


def test_with_uv_a_model_is_trained_in_an_environment_of_its_own(copy, trained):
    if not shutil.which("uv"):
        pytest.skip("uv is not on PATH")
    with (
        TemporaryDirectory(prefix="environments") as environments,  # 3 GB, of which pytest would keep three
        copy.edited(lambda params: params["models"][MODEL]["optimizer"].update(learning_rate=0.002)),
    ):
        command = mlflow_run("train", "-P", f"model={MODEL}", env_manager="uv")
        printed = copy.succeed(*command, MLFLOW_ENV_ROOT=environments)
    child, parent = newest(copy.runs()), newest(copy.runs("Default"))
    assert f"source {environments}/" in printed
    assert child["params.optimizer.learning_rate"] == "0.002"
    assert child["tags.mlflow.parentRunId"] == parent["run_id"]
    assert child["status"] == "FINISHED"
