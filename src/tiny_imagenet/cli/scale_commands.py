"""The commands `tiny-imagenet train` and `tiny-imagenet sweep`: many trainings at once, on Ray."""

import os
from typing import Annotated

import typer

from tiny_imagenet import entry
from tiny_imagenet.common.errors import UserError

_Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="Trainings at once.", show_default="one per core or GPU"),
]
_Cores = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="CPU cores per training.", show_default="all, divided by the workers"),
]
_Address = Annotated[
    str | None,
    typer.Option(metavar="HOST:PORT", help="A Ray cluster, or `auto`.", show_default="this machine only"),
]


def train(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL", help="Active models.", show_default=False)
    ] = None,
    all_models: Annotated[bool, typer.Option("--all", help="All active models and replicates.")] = False,
    seeds: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Train each model with N seeds; this sets `replicates` in params.yaml."),
    ] = None,
    workers_at_once: _Workers = None,
    cores: _Cores = None,
    address: _Address = None,
) -> None:
    """Train and evaluate many models and seeds at once, on Ray.

    Runs the same stages as `dvc repro`, with the same results. Rerun to resume.
    """
    from tiny_imagenet.common.progress import say
    from tiny_imagenet.common.schema import nearest
    from tiny_imagenet.parallel import params_edit, workers
    from tiny_imagenet.parallel.cluster import machines
    from tiny_imagenet.repository import dvc
    from tiny_imagenet.repository.paths import PARAMS

    os.chdir(dvc.repository_root())
    params = entry.checked_params()
    if bool(models) == all_models:
        raise UserError("name either models or --all")
    names = list(dict.fromkeys(models or params.active))
    for model in names:
        if model not in params.active:
            raise UserError(
                f"'{model}' is not active in params.yaml{nearest(model, params.active)}; "
                f"active: {', '.join(params.active)}"
            )
    if params.devices != 1:
        raise UserError(
            f"devices: `train` gives each training one device, params.yaml says {params.devices}; set it to 1, or run "
            "`dvc repro`"
        )
    machines.require(address, cores)  # before anything is written
    extended = workers.with_replicates(params, names, seeds) if seeds is not None and seeds > 1 else params
    trainings = workers.trainings(extended, names, seeds)
    if all_models and seeds is None:
        trainings += [job.name for job in params.jobs if job.is_replicate]

    def write_replicates() -> None:
        if extended is params:
            return
        wanted = extended.replicates
        params_edit.set_replicates(PARAMS, wanted.models, wanted.seeds)
        say(
            f"params.yaml: replicates is now models: [{', '.join(wanted.models)}], "
            f"seeds: [{', '.join(map(str, wanted.seeds))}]; `dvc repro` trains them too"
        )

    workers.train(
        extended, names, trainings, workers=workers_at_once, cores=cores, address=address, before=write_replicates
    )


def sweep(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A key of `sweeps` in params.yaml.")],
    write_block: Annotated[
        str | None, typer.Option(metavar="NEW_NAME", help="Add the best trial to params.yaml as a block of `models`.")
    ] = None,
    workers_at_once: _Workers = None,
    cores: _Cores = None,
    address: _Address = None,
) -> None:
    """Search parameters of a model with many trials at once, on Ray. Rerun to resume."""
    from tiny_imagenet.common.progress import say
    from tiny_imagenet.parallel import params_edit
    from tiny_imagenet.parallel.sweep import run as sweeping
    from tiny_imagenet.repository import dvc
    from tiny_imagenet.repository.paths import PARAMS

    os.chdir(dvc.repository_root())
    params = entry.checked_params()
    if write_block is not None:
        params_edit.refuse_known_block(PARAMS, write_block)
    best, about, lost = sweeping.run(params, name, workers=workers_at_once, cores=cores, address=address)
    say(f"best: {about}; sweeps/{name} has results.csv, best.yaml and trials.png")
    if write_block is not None:
        params_edit.add_block(PARAMS, write_block, best.block, about)
        say(f"params.yaml: added models.{write_block}; add it to `active` and run `dvc repro` to train it")
    if lost:
        raise UserError(sweeping.lost_trials(lost))
