"""Add missing metrics, params, tags, dataset and model to a run. Calls may be repeated; MLflow's errors are raised."""

import json
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.repository.records import TrainingSetup
from tiny_imagenet.tracking.store import client, mlflow

if TYPE_CHECKING:
    import keras

MODEL_FILE = Path("data/model.keras")
"""Path in the folder of a logged model."""
_MODEL_NAME = "model"


def now() -> int:
    """Return the time in milliseconds, for MLflow."""
    return int(time.time() * 1000)


def points(step: int, metrics: Mapping[str, float], timestamp: int) -> list[Any]:
    """Return the metrics of a step as MLflow's entities."""
    from mlflow.entities import Metric

    return [Metric(name, float(value), timestamp, step) for name, value in metrics.items()]


def add_points(run_id: str, metrics: Sequence[Any], *, is_new: bool = False) -> None:
    """Add the points whose steps a run lacks. If `is_new`, add all of them without reading its metrics."""
    if not is_new:
        names = {point.key for point in metrics}
        logged = {name: {point.step for point in client().get_metric_history(run_id, name)} for name in names}
        metrics = [point for point in metrics if point.step not in logged[point.key]]
    for start in range(0, len(metrics), 500):  # at most 1,000 per call
        client().log_batch(run_id, metrics=metrics[start : start + 500])


def add_params(run_id: str, params: Mapping[str, Any]) -> None:
    """Add the params that a run lacks. MLflow does not allow changes of the others."""
    from mlflow.entities import Param

    logged = client().get_run(run_id).data.params
    missing = [Param(key, str(value)) for key, value in params.items() if key not in logged]
    for start in range(0, len(missing), 100):  # at most 100 per call
        client().log_batch(run_id, params=missing[start : start + 100])


def add_tags(run: Any, tags: Mapping[str, str]) -> None:
    """Set the tags that are missing or differ. Other tags of the run are kept."""
    from mlflow.entities import RunTag

    wrong = [RunTag(key, value) for key, value in tags.items() if run.data.tags.get(key) != value]
    for start in range(0, len(wrong), 100):  # at most 100 per call
        client().log_batch(run.info.run_id, tags=wrong[start : start + 100])


def add_dataset(run_id: str, setup: TrainingSetup) -> None:
    """Log the dataset of a training as the input of a run, without reading it. MLflow keeps one per digest."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    is_url = setup.source.startswith("http")
    dataset = Dataset(
        name=setup.dataset,
        digest=setup.hashes["data"],
        source_type="http" if is_url else "code",
        source=json.dumps({"url" if is_url else "source": setup.source}),
        profile=json.dumps(setup.images),
    )
    client().log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])


def logged_model(run_id: str) -> Any | None:
    """Return MLflow's record of the model that a training logged, or None if it is incomplete or has no file.

    Users may have logged other models to the run. The training's is the oldest.
    """
    for logged in _models(run_id):
        if logged.status == "READY" and MODEL_FILE.as_posix() in _files(logged, MODEL_FILE.parent.as_posix()):
            return logged
    return None


def _models(run_id: str) -> list[Any]:
    """Return MLflow's records of the models of a run that have the pipeline's name, the oldest first."""
    models = client().search_logged_models(
        [client().get_run(run_id).info.experiment_id], f"source_run_id = '{run_id}' AND name = '{_MODEL_NAME}'"
    )
    return sorted(models, key=lambda logged: logged.creation_timestamp)


def _files(logged: Any, folder: str | None = None) -> set[str]:
    return {file.path for file in client().list_logged_model_artifacts(logged.model_id, folder)}


def _remove_remnants(run_id: str) -> None:
    """Delete models of a run whose logging was interrupted, or whose folder is missing."""
    for logged in _models(run_id):
        if logged.status != "READY" or not _files(logged):
            client().delete_logged_model(logged.model_id)


@dataclass(frozen=True)
class _KerasFlavor:
    """`mlflow.keras` that logs a copy of `file`. It also creates the folder, which MLflow does not (mlflow#16183)."""

    file: Path

    def save_model(self, path: str, *, validate_serving_input: bool, **arguments: Any) -> None:
        """Save like `mlflow.keras.save_model`, then replace the model's file by `file`."""
        Path(path).mkdir(parents=True)
        mlflow().keras.save_model(path=path, **arguments)
        shutil.copyfile(self.file, Path(path) / MODEL_FILE)


def add_model(
    run_id: str,
    model: "keras.Model",
    file: Path,
    requirements: list[str],
    classes: Mapping[str, list[str]],
    example: NDArray[np.uint8],
) -> str:
    """Log a model to a run unless the run has one, and return its address.

    The model has a signature (uint8 RGB images in, class probabilities out), an input example, and the `wnids` and
    `class_names` of `classes` as metadata. Its file is a copy of `file`.
    """
    logged = logged_model(run_id)
    if logged is not None:
        return str(logged.model_uri)
    _remove_remnants(run_id)
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    signature = ModelSignature(
        Schema([TensorSpec(np.dtype(np.uint8), (-1, *model.input_shape[1:]))]),
        Schema([TensorSpec(np.dtype(np.float32), (-1, *model.output_shape[1:]))]),
    )
    # MLflow uses the run of the argument, but the experiment that was set last.
    mlflow().set_experiment(experiment_id=client().get_run(run_id).info.experiment_id)
    with redirect_stdout(StringIO()):  # Keras's summary of the model
        logged = Model.log(
            artifact_path=None,
            name=_MODEL_NAME,
            flavor=_KerasFlavor(file),
            run_id=run_id,
            model=model,
            signature=signature,
            input_example=example,
            validate_serving_input=False,  # it would load the model a second time
            pip_requirements=requirements,
            save_exported_model=False,
            metadata=dict(classes),
        )
    return str(logged.model_uri)
