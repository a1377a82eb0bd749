"""What a report is made from, read from the working directory once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.significance import paired_tests
from tiny_imagenet.reporting.table import ResultsTable, data_report, determinism, read_histories, results_table
from tiny_imagenet.repository.paths import DETERMINISM, MODELS, OVERVIEW, RESULTS
from tiny_imagenet.repository.records import DataReport, Metrics


@dataclass(frozen=True)
class ReportInputs:
    """The results of all active models and replicates, and the data that they are of."""

    params: Params
    table: ResultsTable
    data: DataReport
    metrics: Mapping[str, Metrics]
    """Model or replicate -> metrics.json, of those that have results."""
    histories: Mapping[str, pd.DataFrame]
    """Model -> history.csv, of the models that have results."""
    paired: pd.DataFrame
    """Of `significance.paired_tests`."""
    determinism: Mapping[str, str]
    """Model -> what a double run showed."""


def read_inputs(params: Params, root: Path = Path()) -> ReportInputs:
    """Read the inputs of a report.

    Args:
        params: params.yaml.
        root: the repository's root.

    Raises:
        UserError: a file is broken, or the images are not those that params.yaml asks for.
    """
    data = data_report(params, root / OVERVIEW)
    table = results_table(params, root)
    models = table.with_results
    replicates = [job.name for job in params.jobs if job.is_replicate and job.name not in table.missing_replicates]
    return ReportInputs(
        params=params,
        table=table,
        data=data,
        metrics={name: Metrics.read(root / RESULTS / name / "metrics.json") for name in (*models, *replicates)},
        histories=read_histories(models, root),
        paired=paired_tests(root / RESULTS, models),
        determinism=determinism(params, root / MODELS, root / DETERMINISM),
    )
