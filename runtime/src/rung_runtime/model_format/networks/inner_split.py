"""Which of the training rows are for validation, by which training stops early.

They must be as far from the others as the rows to come are from all of training: newer, or of other
groups. An estimator sees what `features` returns and no more, so that this is respected as far as a
column says it. The holdout is not among the training rows.
"""

import numpy as np
import polars as pl
from numpy.typing import NDArray

AUTO = "auto"
TIME_SUFFIX = " days since 1970"  # of the column that `features` makes of a time
Mask = NDArray[np.bool_]


def validation_rows(
    frame: pl.DataFrame, strata: NDArray[np.int64], share: float, by: str, seed: int
) -> Mask:
    """Choose the rows for validation.

    Args:
        frame: (n, …) what `features` returned for the training rows.
        strata: (n,) the class of each row; all 0 for a regression.
        share: Of the rows, about.
        by: A column of the frame: of numbers, whose largest are chosen, as the newest of a time;
            or of categories, which stay whole. `auto`: by the first time among the columns, else
            at random, where rows with equal inputs stay together.
        seed: Of what is drawn.

    Returns:
        (n,) whether a row is for validation. None is if the rows cannot be divided so that two
        classes at least are left to learn from.

    Raises:
        ValueError: There is no such column.
    """
    random = np.random.default_rng(seed)
    column = _column(frame, by)
    if column is None:
        chosen = _of_each_class(_equal_rows(frame), strata, share, random)
    elif frame[column].dtype == pl.Enum:
        groups = frame[column].to_physical().fill_null(-1).to_numpy().astype(np.int64)
        chosen = _whole_groups(groups, share, random)
    else:
        chosen = _largest(_numbers(frame[column]), share)
    classes = len(np.unique(strata))
    if chosen.all() or (classes > 1 and len(np.unique(strata[~chosen])) < 2):
        return np.zeros(len(chosen), dtype=bool)
    return chosen


def _column(frame: pl.DataFrame, by: str) -> str | None:
    if by == AUTO:
        times = [name for name in frame.columns if name.endswith(TIME_SUFFIX)]
        return times[0] if times else None
    if by not in frame.columns:
        raise ValueError(
            f"validation: {by!r} is not a column that features() returns; it has "
            + ", ".join(frame.columns)
        )
    return by


def _numbers(values: pl.Series) -> NDArray[np.float64]:
    """Return (n,) numbers; a gap is the least of all."""
    return values.cast(pl.Float64).fill_nan(None).fill_null(-np.inf).to_numpy()


def _largest(values: NDArray[np.float64], share: float) -> Mask:
    """Choose the largest values; equal ones stay together."""
    ordered = np.sort(values)
    bound = ordered[min(len(values) - 1, round(len(values) * (1 - share)))]
    chosen: Mask = values >= bound
    return chosen if not chosen.all() else values > bound


def _whole_groups(groups: NDArray[np.int64], share: float, random: np.random.Generator) -> Mask:
    """Choose whole groups, in a random order, up to the share; never all of them."""
    names, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    wanted = share * len(groups)
    chosen: list[int] = []
    filled = 0
    for group in random.permutation(len(names)):
        # A large group would take far more than the share; a later one may fit.
        if filled < wanted and filled + sizes[group] <= 1.25 * wanted:
            chosen.append(group)
            filled += sizes[group]
    if not chosen:  # all are large
        chosen = [int(sizes.argmin())]
    return np.isin(inverse, chosen)


def _of_each_class(
    groups: NDArray[np.int64], strata: NDArray[np.int64], share: float, random: np.random.Generator
) -> Mask:
    """Choose whole groups for the share of each class, where a class has groups enough."""
    chosen = np.zeros(len(groups), dtype=bool)
    firsts = np.unique(groups, return_index=True)[1]
    for stratum in np.unique(strata):
        members = groups[firsts[strata[firsts] == stratum]]
        count = round(len(members) * share)
        chosen |= np.isin(groups, random.permutation(members)[:count])
    return chosen


def _equal_rows(frame: pl.DataFrame) -> NDArray[np.int64]:
    """Return (n,) numbers that rows with equal values have in common."""
    # By number: Polars takes a name such as ^a$ for a pattern.
    numbered = frame.rename({name: str(index) for index, name in enumerate(frame.columns)})
    index = pl.col("index")
    first = numbered.with_row_index("index").select(index.min().over(numbered.columns))
    return first.to_series().to_numpy().astype(np.int64)
