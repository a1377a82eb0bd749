"""The runs of a sweep: a parent, and a child for each trial. All are written by the process that started the sweep.

So the workers need neither MLflow nor its address, and a file as the store is right for a cluster, too.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiny_imagenet.tracking.additions import add_params
from tiny_imagenet.tracking.run import Run, is_live
from tiny_imagenet.tracking.store import client, connect, experiment_id, public, usable


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
    """Return a run that goes on until its `end`; several may be open at once.

    Args:
        root: the repository.
        experiment: made where it is missing.
        name: of the run.
        params: what is logged as the run's parameters.
        tags: and as its tags.
        parent: the run that it becomes a child of.
        resume: a run to go on with; where the store does not have it (any more), a new one is made.

    Raises:
        UserError: the store cannot be reached.
    """
    with usable(root):
        uri = public(connect(root))
        live = resume if resume and is_live(resume) else None
        if live:
            client().update_run(live, status="RUNNING")
            run = client().get_run(live)
        else:
            own = {"mlflow.runName": name} | ({"mlflow.parentRunId": parent.run_id} if parent else {})
            run = client().create_run(experiment_id(experiment, root), tags=dict(tags) | own, run_name=name)
        add_params(run.info.run_id, params)
    resumed = live is not None
    return Run(run.info.run_id, uri, public(run.info.artifact_uri), is_resumed=resumed, repeats=resumed)
