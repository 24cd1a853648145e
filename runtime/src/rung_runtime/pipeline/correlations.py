"""Correlations: how numbers of a row go together, which no column by itself shows."""

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

MOST = 20  # columns, of which each pair is compared
LEAST = 30  # rows that have both numbers
FARTHEST = 0.999  # of a correlation, beyond which its transform says nothing


def numeric(rows: pl.DataFrame) -> list[str]:
    """Return the columns whose correlations are kept: the first 20 of numbers."""
    return [name for name in rows.columns if rows[name].dtype.is_numeric()][:MOST]


class Pair(NamedTuple):
    """Two columns of some rows."""

    correlation: float
    change: float  # of the transform, against that of a reference
    rows: int  # that have both


def correlations(rows: pl.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return Spearman's rank correlation of each pair of columns, of the rows that have both.

    Args:
        rows: (n, k) numbers, gaps as null.

    Returns:
        (k, k), NaN where a column does not vary, or fewer than 30 rows have both; and how many rows
        have both.
    """
    ranks = rows.select(pl.all().cast(pl.Float64).rank())
    known = ranks.select(pl.all().is_not_null()).to_numpy().astype(np.float64)
    centred = np.nan_to_num(ranks.select(pl.all() - pl.all().mean()).to_numpy().astype(np.float64))
    squares = (centred**2).T @ known  # of the first column, where the second is known
    count = known.T @ known
    spread = np.sqrt(squares * squares.T)
    result = np.full(spread.shape, np.nan)
    enough = (spread > 0) & (count >= LEAST)
    np.divide(centred.T @ centred, spread, out=result, where=enough)
    return result.clip(-1.0, 1.0), count


def transformed(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Fisher's transform, whose error does not depend on the correlation."""
    return np.arctanh(np.clip(values, -FARTHEST, FARTHEST))


def error(rows: int) -> float:
    """Return the standard error of the transform of a rank correlation (Fieller et al., 1957)."""
    return float((1.06 / max(1, rows - 3)) ** 0.5)


def add(columns: dict[str, dict[str, Any]], rows: pl.DataFrame) -> None:
    """Add to each column of a profile its `correlations` with those after it."""
    names = numeric(rows)
    if len(names) < 2:
        return
    matrix, _ = correlations(rows.select(names))
    for first, name in enumerate(names):
        columns[name]["correlations"] = {
            names[second]: float(matrix[first, second])
            for second in range(first + 1, len(names))
            if np.isfinite(matrix[first, second])
        }


def changes(rows: pl.DataFrame, known: dict[str, dict[str, float]]) -> dict[tuple[str, str], Pair]:
    """Return by pair its correlation in these rows, where there is one, and how it changed.

    Args:
        rows: With these columns or some of them.
        known: By column its correlations with others.
    """
    names = list(dict.fromkeys([*known, *(other for others in known.values() for other in others)]))
    names = [name for name in names if name in rows.columns and rows[name].dtype.is_numeric()]
    if len(names) < 2:
        return {}
    matrix, count = correlations(rows.select(names))
    place = {name: index for index, name in enumerate(names)}
    found = {}
    for name, others in known.items():
        for other, before in others.items():
            if name in place and other in place:
                at = place[name], place[other]
                if np.isfinite(matrix[at]):
                    now, then = transformed(np.array([matrix[at], before]))
                    found[name, other] = Pair(float(matrix[at]), float(now - then), int(count[at]))
    return found
