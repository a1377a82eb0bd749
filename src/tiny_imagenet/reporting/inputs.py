"""The inputs of a report, read once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from tiny_imagenet.config.params import Params
from tiny_imagenet.reporting.significance import paired_tests
from tiny_imagenet.reporting.table import ResultsTable, data_report, determinism, read_histories, results_table
from tiny_imagenet.repository.paths import DETERMINISM, OVERVIEW, RESULTS
from tiny_imagenet.repository.records import DataReport


@dataclass(frozen=True)
class ReportInputs:
    """The results of all active models and replicates, and the report of their data."""

    params: Params
    table: ResultsTable
    data: DataReport
    histories: Mapping[str, pd.DataFrame]
    """history.csv of each model with results."""
    paired: pd.DataFrame
    """`significance.paired_tests`."""
    determinism: Mapping[str, str]
    """Model -> whether training it twice gave the same bits."""


def read_inputs(params: Params, root: Path = Path()) -> ReportInputs:
    """Read the inputs of a report below the repository's root.

    Raise UserError if a file is broken, or if the packed images belong to another dataset than params.yaml has.
    """
    data = data_report(params, root / OVERVIEW)
    table = results_table(params, root)
    models = table.with_results
    return ReportInputs(
        params=params,
        table=table,
        data=data,
        histories=read_histories(models, root),
        paired=paired_tests(root / RESULTS, models),
        determinism=determinism(params, table.runs, root / DETERMINISM),
    )
