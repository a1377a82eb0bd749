"""The command `tiny-imagenet`."""

import sys

import typer

from tiny_imagenet import comparison, entry, lineage, report
from tiny_imagenet.errors import UserError

app = typer.Typer(
    help="Works on the results of the Tiny ImageNet pipeline; `dvc repro` makes them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:
    """Keep the names of commands even while there is one alone."""


@app.command()
def results() -> None:
    """Print the table of results that `dvc repro` made last."""
    root = lineage.repository_root()
    params = entry.checked_params(root / "params.yaml")
    if not (root / "reports" / "results.csv").is_file():
        raise UserError("there are no results yet: run `dvc repro`")
    table = comparison.results_table(params, root / "models", root / "results")
    print(report.terminal_table(table, params))


@app.command()
def check() -> None:
    """Check params.yaml and say what `dvc repro` would work with."""
    params = entry.checked_params(lineage.repository_root() / "params.yaml")
    dataset = params.dataset
    source = dataset.archive or (", ".join(dataset.urls) if dataset.urls else "embedded in the project")
    print(f"params.yaml is fine: profile {params.profile}, dataset {dataset.name} ({source})")
    print(f"models: {', '.join(params.active)}")


def main() -> None:
    """Run the command; a user's mistake is one message and exit code 1."""
    sys.exit(entry.run(lambda: app(standalone_mode=True)))
