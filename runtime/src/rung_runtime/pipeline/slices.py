"""Parts of the rows: slices that are judged on their own, and groups that stay together."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..config import Config, Data

Indices = NDArray[np.int64]


class SliceRows(NamedTuple):
    """The rows with one value of a column."""

    column: str
    value: str | None  # None: it is missing
    row_index: Indices


def slices(rows: pl.DataFrame, config: Config) -> Iterator[SliceRows]:
    """Yield every category with at least `slice_rows` rows.

    Args:
        rows: (n, …) typed rows.
        config: With the columns, and the least number of rows.
    """
    for name in sliced_columns(config.data):
        values = rows[name].alias("value").to_frame().with_row_index("index")
        for (value,), part in values.group_by("value", maintain_order=True):
            if part.height >= config.gate.slice_rows:
                text = None if value is None else str(value)
                yield SliceRows(name, text, part["index"].to_numpy())


def sliced_columns(data: Data) -> list[str]:
    """Return the features whose values make slices."""
    return [name for name in data.features if data.columns[name].type in ("category", "boolean")]


def row_groups(rows: pl.DataFrame, data: Data) -> Indices | None:
    """Return (n,) the number of each row's group, if the split keeps groups together."""
    column = data.split.column
    if data.split.by != "group" or column is None or column not in rows.columns:
        return None
    return rows[column].rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
