"""Read CSV files without inferring types: a column is text unless its type is given."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.files import restore_command

if TYPE_CHECKING:
    import pandas as pd

ColumnType = type[str] | type[int] | type[float]


def parse_csv(text: str, columns: Mapping[str, ColumnType], others: ColumnType = str) -> "pd.DataFrame":
    """Return the table in the text of a CSV file, with its own line ends.

    `columns` are required. Text does not change: a class may be named "007", "NA" or "1e5". Numbers are exact to the
    last digit. In a column of floats, an empty cell is NaN. Raise ValueError if a column is missing or duplicate, a row
    has too few or too many cells, or a cell is not a number.
    """
    import pandas as pd

    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        lines = [row for row in reader if row]
    except csv.Error as error:
        raise ValueError(f"line {reader.line_num}: {error}") from None
    if not lines:
        raise ValueError("it is empty")
    header, *rows = lines
    if missing := [column for column in columns if column not in header]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    if len(set(header)) < len(header):
        raise ValueError(f"it has a duplicate column: {', '.join(header)}")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} cells, expected {len(header)}")
    return pd.DataFrame(
        {
            column: _typed([row[index] for row in rows], column, columns.get(column, others))
            for index, column in enumerate(header)
        }
    )


def _typed(cells: list[str], column: str, kind: ColumnType) -> "pd.Series[Any]":
    import pandas as pd

    try:
        return pd.Series([kind("nan" if kind is float and not cell else cell) for cell in cells], dtype=kind)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"column {column}: {error}") from None


def read_csv(
    path: Path, columns: Mapping[str, ColumnType], others: ColumnType = str, *, remedy: str = ""
) -> "pd.DataFrame":
    """Return the table in a CSV file, as `parse_csv` does; raise UserError if it cannot be read.

    The message ends with the `remedy`; by default: how to restore the file from DVC's cache.
    """
    try:
        return parse_csv(path.read_bytes().decode("utf-8-sig"), columns, others)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {remedy or restore_command(path)}") from None
