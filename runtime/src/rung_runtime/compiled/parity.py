"""Parity: a compiled model predicts as its estimator does, or does not serve in its place."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..config import Column, Data
from .model import CompiledModel

MAX_DIFFERENCE = 1e-9  # of a probability, or of a value relative to its size
# From an estimator that rounds each of its sums to seven digits, as XGBoost does: relative to the
# largest value.
MAX_SINGLE_PRECISION_DIFFERENCE = 1e-6
FAR = 1e3  # times the largest number of a column

Floats = NDArray[np.float64]


class Parity(NamedTuple):
    """How a compiled model compares with its estimator."""

    largest_difference: float
    rows: int
    limit: float = MAX_DIFFERENCE

    @property
    def holds(self) -> bool:
        """Return whether the difference is small enough; it is not if it is not a number."""
        return self.largest_difference <= self.limit


def check_parity(
    compiled: CompiledModel,
    predict: Callable[[pl.DataFrame], Floats],
    frame: pl.DataFrame,
    *,
    single_precision: bool = False,
) -> Parity:
    """Compare predictions for rows: together, for the first and the last one alone, and for none.

    Args:
        compiled: The compiled model.
        predict: What the estimator predicts, in the same form.
        frame: (n, …) what `features` returned.
        single_precision: Whether the estimator adds up numbers in single precision.
    """
    expected = predict(frame)
    size = np.maximum(1.0, np.abs(expected))
    if single_precision:
        size = np.full_like(size, size.max(initial=1.0))
    differences = [_difference(compiled.predict(frame), expected, size)]
    for row in (0, len(frame) - 1):
        alone = compiled.predict(frame[row : row + 1])
        here = slice(row, row + 1)
        differences.append(_difference(alone, expected[here], size[here]))
    differences.append(_difference(compiled.predict(frame.clear()), expected[:0], size[:0]))
    limit = MAX_SINGLE_PRECISION_DIFFERENCE if single_precision else MAX_DIFFERENCE
    return Parity(float(np.max(differences)), len(frame), limit)


def _difference(y_pred: Floats, expected: Floats, size: Floats) -> float:
    """Return the largest difference, relative to a size of each prediction."""
    if y_pred.shape != expected.shape:
        return np.inf
    return float((np.abs(y_pred - expected) / size).max(initial=0.0))


def edge_rows(rows: pl.DataFrame, data: Data) -> pl.DataFrame:
    """Return rows at the edges of what the contract allows, each made of the first of others.

    Rows with a gap in a column, or in all that may have one; each category, those that training
    never saw among them; the least and the largest number, far beyond those of training where the
    contract has no limit; zero; a text that is empty, and one that is long.

    Args:
        rows: (n, …) the features of typed rows, at least one row.
        data: The contract.
    """
    first = rows.head(1)
    changes: list[list[pl.Series]] = []
    gaps: list[pl.Series] = []
    for name in rows.columns:
        values = rows[name]
        column = data.columns[name]
        gap = pl.Series(name, [None], dtype=values.dtype)
        if column.nullable or column.allow_unknown:
            gaps.append(gap)
            changes.append([gap])
        changes += [[edge] for edge in _edges(values, column)]
    changes.append(gaps)
    return pl.concat([first.with_columns(change) for change in changes])


def _edges(values: pl.Series, column: Column) -> Iterator[pl.Series]:
    """Yield values of a column, (1,) each."""
    known = values.drop_nulls()
    edges: list[Any] = []
    if column.type == "category":
        edges = list(column.categories)
    elif column.type == "boolean":
        edges = [False, True]
    elif column.type == "text":
        edges = ["", "a", "word " * 200]
    elif not len(known):
        return
    elif column.type == "datetime":
        edges = [known.min(), known.max()]
    else:
        far = FAR * max(1.0, float(known.cast(pl.Float64).abs().to_numpy().max()))
        least = -far if column.min is None else column.min
        most = far if column.max is None else column.max
        edges = [edge for edge in (least, -1, 0, 1, most) if least <= edge <= most]
    for edge in edges:
        yield pl.Series(values.name, [edge], dtype=values.dtype, strict=False)
