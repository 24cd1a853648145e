"""Confidence intervals of metrics: percentiles of a bootstrap, widened where rows are few."""

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from ..config import Gate
from ..records import Ends
from .metrics import Floats, Rows

# An interval from fewer rows of a class than this says little; a slice is not judged by them.
MIN_CLASS_ROWS = 10
# A bootstrap draws at most this many rows, which bounds its cost.
MAX_BOOTSTRAP_ROWS = 2_000


# The class with the fewest rows, as `metrics.json` has it.
RarestClass = TypedDict("RarestClass", {"class": str, "rows": int})


def bootstrap(
    statistics: Callable[[Rows], list[float]],
    n: int,
    gate: Gate,
    decisive_rows: int | None = None,
) -> list[Ends]:
    """Bootstrap several numbers at once; the intervals are those of `percentile_interval`.

    Beyond 2,000 rows it draws that many and scales to n ("m out of n"; Bickel, Götze and van Zwet,
    1997), so that its cost has a bound.

    Args:
        statistics: Returns the numbers for rows with these indices.
        n: The number of rows.
        gate: Its `resamples` and `confidence` apply.
        decisive_rows: How many rows decide on the numbers, as `effective_rows` counts them; n by
            default.

    Returns:
        An interval for each number.
    """
    random = np.random.default_rng(0)
    m = min(n, MAX_BOOTSTRAP_ROWS)
    effective = n if decisive_rows is None else decisive_rows
    values = np.array(statistics(np.arange(n)), dtype=float)
    resampled = np.array(
        [statistics(random.integers(0, n, m)) for _ in range(gate.resamples)], dtype=float
    )
    return [
        percentile_interval(value, (column - value) * (m / n) ** 0.5, effective, gate.confidence)
        for value, column in zip(values, resampled.T, strict=True)
    ]


def percentile_interval(value: float, deviations: Floats, rows: int, confidence: float) -> Ends:
    """Return the expanded percentile interval (see `expanded_tail`) of a number.

    Args:
        value: The number on all rows.
        deviations: (resamples,) of the number on resamples from its value; NaN if not defined.
        rows: How many rows decide on the number: `effective_rows`.
        confidence: Of the interval.
    """
    defined = deviations[np.isfinite(deviations)]
    if not np.isfinite(value) or not len(defined):
        return {"value": None, "low": None, "high": None}
    tail = expanded_tail((1 - confidence) / 2, rows)
    # Of B resamples the k-th is expected at k ÷ (B + 1) (Davison and Hinkley, 1997, section 5.2).
    low, high = value + np.quantile(defined, [tail, 1 - tail], method="weibull")
    return {"value": float(value), "low": float(low), "high": float(high)}


def expanded_tail(tail: float, rows: int) -> float:
    """Return the share of resamples to leave out at each end, corrected for few rows.

    Resamples of n rows vary less than samples by the root of (n - 1) ÷ n, and how much they vary is
    known no better than n rows tell. So a smaller share is left out: for symmetric data the ends
    are then those of Student's interval (Hesterberg, What teachers should know about the bootstrap,
    The American Statistician 69, 2015, section 3.3).

    Args:
        tail: The share of samples that should be beyond this end: 0.025.
        rows: n; fewer than 3 count as 3.
    """
    n = max(rows, 3)
    return float(norm.cdf(-((n / (n - 1)) ** 0.5) * student.ppf(1 - tail, n - 1)))


def effective_rows(y_true: Floats, classes: int) -> int:
    """Return how many rows decide on a metric: those outside of the most frequent class, or all.

    Args:
        y_true: (n,) class indices or values.
        classes: The number of classes; 0 for a regression.
    """
    if not classes:
        return len(y_true)
    counts = np.bincount(y_true.astype(int), minlength=classes)
    return int(counts.sum() - counts.max())


def can_be_judged(y_true: Floats, classes: int) -> bool:
    """Check whether rows can be judged on their own.

    Numbers must vary; of classes, ten rows must be outside of the most frequent one.
    """
    if not classes:
        return bool(np.ptp(y_true) > 0)
    return effective_rows(y_true, classes) >= MIN_CLASS_ROWS


def rarest_class(y_true: Floats, classes: Sequence[str]) -> RarestClass | None:
    """Return the class with the fewest rows, and how many it has; None for a regression."""
    if not classes:
        return None
    counts = np.bincount(y_true.astype(int), minlength=len(classes))
    return {"class": classes[int(counts.argmin())], "rows": int(counts.min())}
