"""The runs of a sweep: a parent, and a child for each trial. The process that started the sweep writes all of them.

Workers need neither MLflow nor its address, so a file can be the store of a cluster.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiny_imagenet.tracking.additions import add_params
from tiny_imagenet.tracking.run import Run
from tiny_imagenet.tracking.store import client, connected, experiment_id, find_live, public


def open_run(
    root: Path,
    *,
    experiment: str,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    parent: Run | None = None,
    resume: str | None = None,
) -> Run:
    """Return a run that is open until its `end`. Several runs may be open at once.

    A missing experiment is created. If the store does not have the run `resume`, a new one is started. Raise UserError
    if the store cannot be reached.
    """
    with connected(root) as uri:
        run = find_live(resume)
        resumed = run is not None
        if run is not None:
            client().update_run(resume, status="RUNNING")
        else:
            own = {"mlflow.runName": name} | ({"mlflow.parentRunId": parent.run_id} if parent else {})
            run = client().create_run(experiment_id(experiment, root), tags=dict(tags) | own, run_name=name)
        add_params(run.info.run_id, params)
    return Run(run.info.run_id, public(uri), public(run.info.artifact_uri), may_have_been_sent=resumed, repeats=resumed)
