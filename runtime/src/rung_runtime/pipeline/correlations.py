"""Correlations: how numbers of a row vary together, which no column shows by itself."""

from copy import copy
from typing import NamedTuple, Self

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
        self._gaps: list[int] = [
            int(gap) for gap in places.select(pl.all().max().fill_null(0) + 1).row(0)
        ]
        self._places = [
            column.fill_null(gap).to_numpy().astype(np.int64)
            for column, gap in zip(places.get_columns(), self._gaps, strict=True)
        ]
        self._note_gaps()

    def reordered(self, index: NDArray[np.int64]) -> Self:
        """Return the same columns, of some of the rows, in another order."""
        other = copy(self)
        other._places = [places[index] for places in self._places]
        other._note_gaps()
        return other

    def _note_gaps(self) -> None:
        missing = np.array(
            [places == gap for places, gap in zip(self._places, self._gaps, strict=True)]
        )
        self._columns_with_gaps = np.flatnonzero(missing.any(axis=1))
        self._rows_with_gaps = np.flatnonzero(missing.any(axis=0))
        # Which of these columns are missing in which of these rows: (columns, rows), 0 or 1.
        self._missing = missing[np.ix_(self._columns_with_gaps, self._rows_with_gaps)].astype(float)

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
        windows = [places[begin:end] for places in self._places]
        rows = len(windows[0])
        centred = np.empty((len(windows), rows))
        for places, gap, column in zip(windows, self._gaps, centred, strict=True):
            column[:] = _centred_ranks(places, gap)
        # Sums of whole numbers: exact, in whichever order they are added.
        products = centred @ centred.T
        count = np.full(products.shape, float(rows))
        # Of the first column, over the rows where the second one is known.
        squares = np.repeat(products.diagonal()[:, np.newaxis], len(windows), axis=1)
        first, last = np.searchsorted(self._rows_with_gaps, [begin, begin + rows])
        if first < last:
            missing = self._missing[:, first:last]
            some = centred[:, self._rows_with_gaps[first:last] - begin]
            squares[:, self._columns_with_gaps] -= some**2 @ missing.T
            both = missing @ missing.T
            of_one = np.zeros(len(windows))
            of_one[self._columns_with_gaps] = both.diagonal()
            count -= of_one[:, np.newaxis] + of_one
            count[np.ix_(self._columns_with_gaps, self._columns_with_gaps)] += both
        spread = np.sqrt(squares * squares.T)
        result = np.full(spread.shape, np.nan)
        is_defined = (spread > 0) & (count >= MIN_ROWS)
        np.divide(products, spread, out=result, where=is_defined)
        return result.clip(-1.0, 1.0), count


def _centred_ranks(places: NDArray[np.int64], gap: int) -> NDArray[np.int64]:
    """Return twice the rank of each value less the mean of all; 0 where there is a gap.

    Values that are equal have the same rank, their mean.

    Args:
        places: (m,) from 1 to `gap`.
        gap: The place of what is missing, after all others.
    """
    if gap > MAX_PLACES_PER_ROW * len(places):
        present, places, ties = np.unique(places, return_inverse=True, return_counts=True)
        has_gaps = bool(len(present)) and bool(present[-1] == gap)
    else:
        ties = np.bincount(places)
        has_gaps = len(ties) > gap
    gaps = int(ties[-1]) if has_gaps else 0
    ranks = np.cumsum(ties)
    ranks += ranks
    ranks -= ties
    ranks -= len(places) - gaps
    if has_gaps:
        ranks[-1] = 0
    centred: NDArray[np.int64] = ranks[places]
    return centred


def fisher_transform(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Fisher's transform, whose error does not depend on the correlation."""
    return np.arctanh(np.clip(values, -MAX_CORRELATION, MAX_CORRELATION))


def standard_error(rows: int) -> float:
    """Return the error of the transform of a rank correlation (Fieller et al., 1957)."""
    return float((1.06 / max(1, rows - 3)) ** 0.5)


def add_correlations(columns: Columns, rows: pl.DataFrame) -> RankableColumns | None:
    """Add to each column of a profile its `correlations` with those after it.

    Returns:
        The columns that have them, made ready for windows of these rows; None if there are none.
    """
    names = numeric_columns(rows)
    if len(names) < 2:
        return None
    ranked = RankableColumns(rows.select(names))
    matrix, _ = ranked.correlations()
    for first, name in enumerate(names):
        columns[name]["correlations"] = {
            names[second]: float(matrix[first, second])
            for second in range(first + 1, len(names))
            if np.isfinite(matrix[first, second])
        }
    return ranked


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
