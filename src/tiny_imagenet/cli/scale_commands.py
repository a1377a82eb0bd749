"""The commands `tiny-imagenet train` and `tiny-imagenet sweep`: many trainings at once, here or on a Ray cluster."""

import os
from pathlib import Path
from typing import Annotated

import typer

from tiny_imagenet import entry
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.progress import say
from tiny_imagenet.common.schema import nearest
from tiny_imagenet.config.params import Params, parse_params
from tiny_imagenet.parallel import cluster, params_edit, workers
from tiny_imagenet.parallel.sweep import results
from tiny_imagenet.parallel.sweep import run as sweeping
from tiny_imagenet.parallel.sweep.plan import sweep_named
from tiny_imagenet.repository import dvc

_PARAMS = Path("params.yaml")
_Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Trainings at once.", show_default="as many as there are cores, or GPUs"),
]
_Cores = Annotated[
    int | None, typer.Option(min=1, help="Of each training.", show_default="all, divided by the workers")
]
_Address = Annotated[
    str | None, typer.Option(help="Of a Ray cluster, host:port or `auto`.", show_default="this machine alone")
]


def train(
    models: Annotated[list[str] | None, typer.Argument(metavar="MODEL", show_default=False)] = None,
    all_models: Annotated[bool, typer.Option("--all", help="All active models, and the replicates there are.")] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Each with so many seeds, its own and others: `replicates` is written.")
    ] = None,
    workers_at_once: _Workers = None,
    cores: _Cores = None,
    address: _Address = None,
) -> None:
    """Train and evaluate models with several seeds, many at once, by the stages that `dvc repro` runs one by one."""
    os.chdir(dvc.repository_root())
    params = entry.checked_params()
    if bool(models) == all_models:
        raise UserError("name models, or give --all")
    chosen = list(dict.fromkeys(models or params.active))
    for model in chosen:
        if model not in params.active:
            raise UserError(
                f"'{model}' is not active in params.yaml{nearest(model, params.active)}; "
                f"active: {', '.join(params.active)}"
            )
    if params.devices != 1:
        raise UserError(
            f"devices: each of many trainings has one device, params.yaml says {params.devices}; set it to 1, or run "
            "`dvc repro`"
        )
    cluster.require(address, cores)  # before anything is written
    wanted = _with_replicates(params, chosen, seeds) if seeds is not None and seeds > 1 else params
    names = workers.trainings(wanted, chosen, seeds)
    if all_models and seeds is None:
        names += [job.name for job in params.jobs if job.is_replicate]

    def write_replicates() -> None:
        if wanted is not params:
            _write_replicates(wanted)

    workers.train(wanted, chosen, names, workers=workers_at_once, cores=cores, address=address, before=write_replicates)


def _with_replicates(params: Params, models: list[str], num_seeds: int) -> Params:
    """Return params with the `replicates` that are asked for: the same object where they are there already."""
    wanted_models, wanted_seeds = workers.wanted_replicates(params, models, num_seeds)
    if (tuple(wanted_models), tuple(wanted_seeds)) == (params.replicates.models, params.replicates.seeds):
        return params
    values = params.model_dump(mode="json", exclude_unset=True)
    return parse_params(values | {"replicates": {"models": wanted_models, "seeds": wanted_seeds}})


def _write_replicates(params: Params) -> None:
    models, seeds = params.replicates.models, params.replicates.seeds
    params_edit.set_replicates(_PARAMS, models, seeds)
    say(
        f"params.yaml: replicates is now models: [{', '.join(models)}], "
        f"seeds: [{', '.join(map(str, seeds))}], so that `dvc repro` knows of them"
    )


def sweep(
    name: Annotated[str, typer.Argument(help="Of a sweep in params.yaml.")],
    write_block: Annotated[
        str | None, typer.Option(metavar="NEW_NAME", help="Add the best parameters to `models` of params.yaml.")
    ] = None,
    workers_at_once: _Workers = None,
    cores: _Cores = None,
    address: _Address = None,
) -> None:
    """Try a model with other parameters, many at once, and stop bad trials early; a sweep that was stopped goes on."""
    os.chdir(dvc.repository_root())
    params = entry.checked_params()
    if write_block is not None:
        params_edit.refuse_known_block(_PARAMS, write_block)
    best, record, lost = sweeping.run(params, name, workers=workers_at_once, cores=cores, address=address)
    about = results.about_best(name, sweep_named(params, name), best, record)
    say(f"best: {about}; sweeps/{name} has results.csv, best.yaml and trials.png")
    if write_block is not None:
        params_edit.add_block(_PARAMS, write_block, best.block, about)
        say(f"params.yaml: models.{write_block} is new; name it in `active`, and `dvc repro` trains it")
    if lost:
        raise UserError(sweeping.lost_trials(lost))
