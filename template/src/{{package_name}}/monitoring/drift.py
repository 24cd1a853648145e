"""Drift: whether rows still look like those that a model was trained on, column by column.

A column drifts when its change is both large (an effect size) and no play of chance (a test). All
that is known of the training rows is a package's `profile.json`.
"""

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2_contingency, kstwobign

from ..settings import Drift

TESTS = 2  # of a column: its values, and its gaps


class Reference(NamedTuple):
    """What is known of a column."""

    seen: dict[str, Any]  # as profile.json has it: `gaps`, and `percentiles` or `counts`
    rows: int  # that this was taken from


def judge(
    rows: pl.DataFrame, references: dict[str, Reference], settings: Drift
) -> dict[str, dict[str, Any]]:
    """Compare each column of a window with its reference.

    The tests of all columns together raise a false alarm with a probability of at most
    `significance` (Bonferroni).

    Args:
        rows: Numbers, booleans, datetimes and texts, gaps as null.
        references: By column; one that the rows lack, as it is private, is left out.

    Returns:
        For each column its `verdict`, `drift` or `quiet`, a `reason` in words if it drifts, and
        what that follows from: `psi`, `distance` (Kolmogorov-Smirnov, of numbers), `p_values`;
        `gaps` (share, with values that training did not have, alone in `new`), `gap_change`,
        `p_gaps`. Values of a datetime never drift: time goes on, and a test of it tells nothing.
    """
    known = {name: of for name, of in references.items() if name in rows.columns}
    level = settings.significance / max(1, TESTS * len(known))
    return {name: _column(rows[name], of, level, settings) for name, of in known.items()}


def _column(values: pl.Series, of: Reference, level: float, settings: Drift) -> dict[str, Any]:
    lacked, time = round(of.rows * of.seen["gaps"]), values.dtype == pl.Datetime
    had = of.rows - lacked
    if "counts" in of.seen:
        # As many categories as were seen once are to be expected among those that were not seen:
        # I. J. Good, Biometrika 40, 1953.
        lacked += sum(count == 1 for count in of.seen["counts"].values())
        known, psi, p_values = _categories(values, of.seen["counts"])
        distance, new = None, (len(values) - values.null_count() - known) / max(1, len(values))
    else:
        if values.dtype == pl.String:  # a text, of which the profile knows the length
            values = values.str.len_chars()
        numbers = (values.dt.epoch("s") if time else values).drop_nulls().cast(pl.Float64)
        known, new = len(numbers), 0.0
        psi, distance, p_values = _numbers(numbers.sort().to_numpy(), of.seen["percentiles"], had)
    before = lacked / max(1, of.rows)
    gaps = 1 - known / len(values) if len(values) else before
    p_gaps = _homogeneity([of.rows - lacked, lacked], [known, len(values) - known])
    change, reasons = gaps - before, []
    large = psi >= settings.min_psi or (distance or 0) >= settings.min_distance
    if large and p_values < level and not time:
        size = f"PSI {psi:.2f}" + (f", distance {distance:.2f}" if distance is not None else "")
        reasons.append(f"values are spread otherwise ({size})")
    if abs(change) >= settings.min_gap_change and p_gaps < level:
        unseen = f", {new:.1%} of all are values that training did not have" if new else ""
        reasons.append(f"gaps went from {before:.1%} to {gaps:.1%}{unseen}")
    return {
        "verdict": "drift" if reasons else "quiet",
        "reason": " and ".join(reasons) or None,
        "psi": psi,
        "distance": distance,
        "p_values": p_values,
        "gaps": gaps,
        "gap_change": change,
        "new": new,
        "p_gaps": p_gaps,
    }


def _numbers(
    values: NDArray[np.float64], percentiles: list[float], n: int
) -> tuple[float, float, float]:
    """The population stability index, the Kolmogorov-Smirnov distance and its p-value.

    Of the n values of the reference only percentiles are known, so its distribution function is
    only known to lie between bounds. The distance is the smallest that these allow: never more than
    that of the values themselves, whatever their ties, and at most a hundredth less. Its p-value is
    the asymptotic one of two samples (Smirnov, 1948), which ties make larger, not smaller.

    Args:
        values: (m,) sorted, without gaps.
        percentiles: 0 to 100 by nearest rank: the value at rank round(q / 100 * (n - 1)).
    """
    m, ranks = len(values), np.round(np.arange(101) / 100 * (n - 1))
    if not m or not n:
        return 0.0, 0.0, 1.0
    edges, first, ties = np.unique(np.array(percentiles), return_index=True, return_counts=True)
    last = first + ties - 1
    # Shares of the reference that are at most, and that are below, each edge.
    at_most = (ranks[last] + 1) / n, np.append(ranks[last[:-1] + 1], n) / n
    below = np.append(0, ranks[first[1:] - 1] + 1) / n, ranks[first] / n
    now_at_most = np.searchsorted(values, edges, "right") / m
    now_below = np.searchsorted(values, edges, "left") / m
    pairs = [(now_at_most, at_most), (now_below, below)]
    away = [np.maximum(low - now, now - high) for now, (low, high) in pairs]
    distance = max(0.0, float(np.max(away)))
    tenths = np.searchsorted(edges, np.unique(np.array(percentiles)[10:100:10]))
    psi = _stability(
        np.diff(at_most[0][tenths], prepend=0, append=1) * n,
        np.diff(now_at_most[tenths], prepend=0, append=1) * m,
    )
    return psi, distance, float(kstwobign.sf(distance * (n * m / (n + m)) ** 0.5))


def _categories(values: pl.Series, counts: dict[str, int]) -> tuple[int, float, float]:
    """How many values are of known categories; the population stability index; its p-value.

    Categories of which fewer than five are to be expected are taken together (Cochran, 1954), so
    that neither the index nor the test lives on rare ones.
    """
    found = values.drop_nulls().alias("of").cast(pl.String).value_counts().iter_rows()
    seen = {name: count for name, count in found if name in counts}
    m, n = sum(seen.values()), sum(counts.values())
    common = [name for name, count in counts.items() if count * m >= 5 * n]
    before, now = ([of.get(name, 0) for name in common] for of in (counts, seen))
    before, now = [*before, n - sum(before)], [*now, m - sum(now)]
    return m, _stability(before, now), _homogeneity(before, now)


def _stability(before: ArrayLike, now: ArrayLike) -> float:
    """The population stability index of counts, half a one added to each.

    N. Siddiqi, Credit Risk Scorecards, 2006, chapter 9; it is Jeffreys' divergence.
    """
    p, q = (np.asarray(counts) + 0.5 for counts in (before, now))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def _homogeneity(before: ArrayLike, now: ArrayLike) -> float:
    """The p-value of the chi-square test that two rows of counts are of one distribution."""
    table = np.array([before, now])
    table = table[:, table.any(axis=0)]
    if table.shape[1] < 2 or not table.any(axis=1).all():
        return 1.0
    return float(chi2_contingency(table).pvalue)
