"""Correlations: how numbers of a row vary together, which no column shows by itself."""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .profiles import Columns

MAX_COLUMNS = 20  # of which each pair is compared
MIN_ROWS = 30  # that have both numbers
MAX_PLACES_PER_ROW = 10  # up to which it is faster to count places than to sort rows
MAX_CORRELATION = 0.999  # beyond which its transform says nothing


class CorrelationChange(NamedTuple):
    """How the correlation of two columns in some rows differs from a reference."""

    correlation: float
    change: float  # of its transform
    rows: int  # that have both numbers


def numeric_columns(rows: pl.DataFrame) -> list[str]:
    """Return the columns whose correlations are kept: the first 20 that hold numbers."""
    return [name for name in rows.columns if rows[name].dtype.is_numeric()][:MAX_COLUMNS]


class RankableColumns:
    """Columns of numbers, made ready for the correlations of many windows of their rows.

    Each value becomes its place among the different values of its column once, so that a window
    is ranked by integers, without a copy of its rows.
    """

    def __init__(self, rows: pl.DataFrame) -> None:
        """Prepare (n, k) numbers, gaps as null."""
        places = rows.select(pl.all().cast(pl.Float64).rank("dense"))
        # A gap comes after all values, and leaves their ranks as they are.
        gap = pl.all().max().fill_null(0) + 1
        self._places = places.select(pl.all().fill_null(gap)).to_numpy().astype(np.int64)
        self._different = self._places.max(axis=0, initial=0).tolist()
        self._is_known = places.select(pl.all().is_not_null()).to_numpy()

    def correlations(
        self, begin: int = 0, end: int | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return Spearman's rank correlation of each pair of columns, over the rows that have both.

        Args:
            begin: The index of the first row of the window.
            end: The index of the row after its last; all rows that follow if None.

        Returns:
            (k, k), NaN where a column does not vary, or fewer than 30 rows have both; and how many
            rows have both, (k, k).
        """
        places = self._places[begin:end]
        is_known = self._is_known[begin:end]
        known = is_known.astype(np.float64)
        centred = np.empty_like(known)
        for column in range(centred.shape[1]):
            ranks = _ranks(places[:, column], self._different[column])
            rows = max(1.0, known[:, column].sum())
            mean = ranks.sum(where=is_known[:, column]) / rows
            centred[:, column] = np.where(is_known[:, column], ranks - mean, 0.0)
        squares = (centred**2).T @ known  # of the first column, where the second is known
        count = known.T @ known
        spread = np.sqrt(squares * squares.T)
        result = np.full(spread.shape, np.nan)
        is_defined = (spread > 0) & (count >= MIN_ROWS)
        np.divide(centred.T @ centred, spread, out=result, where=is_defined)
        return result.clip(-1.0, 1.0), count


def _ranks(places: NDArray[np.int64], highest: int) -> NDArray[np.float64]:
    """Return the rank of each value, the same for ties: their mean.

    Args:
        places: (m,) from 1 to `highest`.
        highest: The highest place in all rows.
    """
    if highest > MAX_PLACES_PER_ROW * len(places):
        _, places, ties = np.unique(places, return_inverse=True, return_counts=True)
    else:
        ties = np.bincount(places)
    ranks: NDArray[np.float64] = (np.cumsum(ties) - (ties - 1) / 2)[places]
    return ranks


def fisher_transform(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Fisher's transform, whose error does not depend on the correlation."""
    return np.arctanh(np.clip(values, -MAX_CORRELATION, MAX_CORRELATION))


def standard_error(rows: int) -> float:
    """Return the error of the transform of a rank correlation (Fieller et al., 1957)."""
    return float((1.06 / max(1, rows - 3)) ** 0.5)


def add_correlations(columns: Columns, rows: pl.DataFrame) -> None:
    """Add to each column of a profile its `correlations` with those after it."""
    names = numeric_columns(rows)
    if len(names) < 2:
        return
    matrix, _ = RankableColumns(rows.select(names)).correlations()
    for first, name in enumerate(names):
        columns[name]["correlations"] = {
            names[second]: float(matrix[first, second])
            for second in range(first + 1, len(names))
            if np.isfinite(matrix[first, second])
        }


def correlation_changes(
    rows: pl.DataFrame, reference: dict[str, dict[str, float]]
) -> dict[tuple[str, str], CorrelationChange]:
    """Return how the correlation of each pair of columns changed, where these rows have one.

    Args:
        rows: With these columns or some of them.
        reference: By column its correlations with others.
    """
    every_name = list(reference)
    for others in reference.values():
        every_name.extend(others)
    names = [
        name
        for name in dict.fromkeys(every_name)
        if name in rows.columns and rows[name].dtype.is_numeric()
    ]
    if len(names) < 2:
        return {}
    matrix, count = RankableColumns(rows.select(names)).correlations()
    position = {name: index for index, name in enumerate(names)}
    changes = {}
    for first, others in reference.items():
        for second, before in others.items():
            if first not in position or second not in position:
                continue
            pair = position[first], position[second]
            correlation = float(matrix[pair])
            if np.isfinite(correlation):
                now, then = fisher_transform(np.array([correlation, before]))
                change = CorrelationChange(correlation, float(now - then), int(count[pair]))
                changes[first, second] = change
    return changes
