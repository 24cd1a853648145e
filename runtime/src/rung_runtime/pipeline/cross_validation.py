"""Cross-validation as the split of the project has it: forward in time, by whole groups, or random.

Both the choice of an estimator and the comparison of two recipes predict rows by models that had
not seen them, and both owe them the same honesty as the holdout.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..config import Data
from .ingest import labels

Indices = NDArray[np.int64]


def folds(
    rows: pl.DataFrame, data: Data, count: int, first: float
) -> Iterator[tuple[Indices, Indices]]:
    """Yield the indices of rows to fit and to predict, for each fold that can be learned from.

    By time, each part is predicted from all rows before it (Hyndman and Athanasopoulos,
    Forecasting: Principles and Practice, 5.10); by group, no group is on both sides; else the
    parts are stratified by the target.

    Args:
        rows: (n, …) typed rows with a target.
        data: The contract, with the kind of the split.
        count: How many folds there are.
        first: The share of rows before the first fold, of a split by time.
    """
    y_true = labels(rows, data)
    random = np.random.default_rng(0)
    column = data.split.column
    if data.split.by == "time" and column is not None:
        # Rows of one instant are not parted.
        place = rows[column].rank("max").to_numpy() / rows.height
        edges = np.linspace(first, 1.0, count + 1)
        part = np.searchsorted(edges, place, side="left")  # 0: fitted only
    elif data.split.by == "group" and column is not None:
        part = _whole_groups(rows[column], count, random) + 1
    else:
        part = np.empty(rows.height, dtype=np.int64)
        order = np.lexsort((random.random(rows.height), y_true))
        # Each run of as many neighbours as there are folds gives one row to every fold.
        runs = [random.permutation(count) for _ in range(0, rows.height, count)]
        part[order] = np.concatenate(runs)[: rows.height] + 1
    for fold in range(1, count + 1):
        test = np.flatnonzero(part == fold)
        fitted = np.flatnonzero(part < fold if data.split.by == "time" else part != fold)
        learnable = data.task == "regression" or len(np.unique(y_true[fitted])) > 1
        if len(test) and len(fitted) and learnable:
            yield fitted, test


def _whole_groups(groups: pl.Series, count: int, random: np.random.Generator) -> Indices:
    """Deal groups to folds, the largest first, each to the fold with the fewest rows."""
    codes = groups.rank("dense").fill_null(0).to_numpy()
    values, inverse, sizes = np.unique(codes, return_inverse=True, return_counts=True)
    chosen = np.zeros(len(values), dtype=np.int64)
    filled = np.zeros(count)
    for group in np.lexsort((random.random(len(values)), -sizes)):
        chosen[group] = filled.argmin()
        filled[chosen[group]] += sizes[group]
    return chosen[inverse]
