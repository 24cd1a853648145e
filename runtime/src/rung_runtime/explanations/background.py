"""Background: rows as training had them column by column, with which a row is compared.

They are drawn from the profile of a package, so that no package has to hold rows of training, which
are personal data. Each column has the distribution that it had in training, and is independent of
the others, as in Datta, Sen and Zick, "Algorithmic Transparency via Quantitative Input Influence",
2016. A text is empty, as a profile has no texts.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ..config import Column, Data
from ..pipeline.profiles import ColumnProfile
from ..pipeline.validate import DTYPES

SEED = 0
LEAST_ROWS = 32
MOST_ROWS = 128
PREDICTED_ROWS = 8_000  # for an explanation, if the columns are not too many


def background_size(columns: int) -> int:
    """Return how many rows are a good background: fewer of many columns, which cost more each."""
    affordable = PREDICTED_ROWS // (2 * columns)
    return max(LEAST_ROWS, min(MOST_ROWS, affordable))


def background(profile: Mapping[str, ColumnProfile], data: Data, rows: int) -> pl.DataFrame:
    """Return typed rows of the features, the same for the same profile.

    A column has evenly spaced quantiles of its distribution, in an order of its own: a Latin
    hypercube (McKay, Beckman and Conover, 1979), whose means vary less than those of random rows.

    Args:
        profile: Of each feature, as `pipeline.package.summary` returns it.
        data: The contract.
        rows: How many.
    """
    random = np.random.default_rng(SEED)
    columns = []
    for name in data.features:
        values = _quantiles(profile[name], data.columns[name], rows)
        shuffled = [values[index] for index in random.permutation(rows)]
        columns.append(_series(name, shuffled, data.columns[name]))
    return pl.DataFrame(columns)


def _quantiles(summary: ColumnProfile, column: Column, rows: int) -> list[Any]:
    """Return evenly spaced values of a column, and None for the share that is missing."""
    known = rows - round(rows * summary["gaps"])
    middles = (np.arange(known) + 0.5) / max(1, known)
    values: list[Any] = []
    if column.type == "text":
        values = [""] * known
    elif counts := summary.get("counts"):
        cumulative = np.cumsum(list(counts.values()))
        names = list(counts)
        values = [names[i] for i in np.searchsorted(cumulative, middles * cumulative[-1])]
    elif percentiles := summary.get("percentiles"):
        last = len(percentiles) - 1
        values = [percentiles[i] for i in np.rint(middles * last).astype(int)]
    return values + [None] * (rows - len(values))


def _series(name: str, values: list[Any], column: Column) -> pl.Series:
    if column.type == "category":
        return pl.Series(name, values, pl.Enum(column.categories))
    if column.type == "boolean":
        return pl.Series(name, [None if v is None else v == "true" for v in values], pl.Boolean)
    if column.type == "datetime":
        seconds = pl.Series(name, values, pl.Int64)
        return pl.from_epoch(seconds, "s").cast(pl.Datetime("us"))
    return pl.Series(name, values, DTYPES[column.type])
