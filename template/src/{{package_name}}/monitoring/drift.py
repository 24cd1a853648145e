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


class Change(NamedTuple):
    """How the values of a window differ from those of a reference."""

    known: int  # values of the window that were compared
    p: float  # of a test that both are of one distribution
    psi: float
    distance: float | None = None  # Kolmogorov-Smirnov, of numbers
    cohens_w: float | None = None  # of categories, without what chance adds
    total_variation: float | None = None  # of categories

    def __str__(self) -> str:
        sizes = [f"PSI {self.psi:.2f}"]
        if self.distance is not None:
            sizes.append(f"distance {self.distance:.2f}")
        if self.cohens_w is not None:
            sizes.append(f"Cohen's w {self.cohens_w:.2f}")
        return ", ".join(sizes)

    def is_large(self, settings: Drift) -> bool:
        """Check whether the change matters, be it chance or not."""
        if self.cohens_w is not None and self.total_variation is not None:
            enough = self.cohens_w >= settings.min_cohens_w
            return enough and self.total_variation >= settings.min_moved
        return self.psi >= settings.min_psi or (self.distance or 0) >= settings.min_distance


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
        what that follows from: `psi`, `distance` (Kolmogorov-Smirnov, of numbers), `cohens_w` and
        `total_variation` (of categories), `p_values`; `gaps` (share, with values that are not
        known, alone in `new`), `gap_change`, `p_gaps`. Values of a datetime never drift: time goes
        on, and a test of it tells nothing.
    """
    known = {name: known for name, known in references.items() if name in rows.columns}
    level = settings.significance / max(1, TESTS * len(known))
    return {
        name: _column(rows[name], reference, level, settings) for name, reference in known.items()
    }


def _column(
    values: pl.Series, reference: Reference, level: float, settings: Drift
) -> dict[str, Any]:
    seen = reference.seen
    is_time = values.dtype == pl.Datetime
    before, rows = _expected_gaps(reference)
    if "counts" in seen:
        lost = max(0.0, before - seen["gaps"]) * reference.rows
        change = _categories(values, seen["counts"], lost)
        new = (len(values) - values.null_count() - change.known) / max(1, len(values))
    else:
        if values.dtype == pl.String:  # a text, of which the profile knows the length
            values = values.str.len_chars()
        numbers = (values.dt.epoch("s") if is_time else values).drop_nulls().cast(pl.Float64)
        had = reference.rows - round(reference.rows * seen["gaps"])
        change = _numbers(numbers.sort().to_numpy(), seen["percentiles"], had, coarse=not is_time)
        new = 0.0
    gaps = 1 - change.known / len(values) if len(values) else before
    lacked = round(rows * before)
    p_gaps = _homogeneity([rows - lacked, lacked], [change.known, len(values) - change.known])
    reasons = []
    if change.is_large(settings) and change.p < level and not is_time:
        reasons.append(f"values are distributed differently ({change})")
    if abs(gaps - before) >= settings.min_gap_change and p_gaps < level:
        reason = f"gaps went from {before:.1%} to {gaps:.1%}"
        if new and seen.get("unlisted"):
            reason += f", {new:.1%} of all are values that the contract does not list"
        elif new:
            reason += f", {new:.1%} of all are values that training did not have"
        reasons.append(reason)
    return {
        "verdict": "drift" if reasons else "quiet",
        "reason": " and ".join(reasons) or None,
        "psi": change.psi,
        "distance": change.distance,
        "cohens_w": change.cohens_w,
        "total_variation": change.total_variation,
        "p_values": change.p,
        "gaps": gaps,
        "gap_change": gaps - before,
        "new": new,
        "p_gaps": p_gaps,
    }


def _expected_gaps(reference: Reference) -> tuple[float, int]:
    """Return the share of gaps to expect, and the number of rows that it is worth.

    Values that are not known as categories are among them. Where a package does not say how many to
    expect (`unlisted`, from 0.3 on), there are as many as the categories that were seen once: I. J.
    Good, Biometrika 40, 1953.
    """
    seen = reference.seen
    if "unlisted" in seen:
        return min(1.0, seen["missing"] + seen["unlisted"]), seen["unlisted_rows"]
    once = sum(count == 1 for count in seen.get("counts", {}).values())
    return round(reference.rows * seen["gaps"] + once) / max(1, reference.rows), reference.rows


def _numbers(
    values: NDArray[np.float64], percentiles: list[float], n: int, *, coarse: bool = True
) -> Change:
    """Compare numbers with the percentiles of a reference.

    Of the n values of the reference only percentiles are known, so its distribution function is
    only known to lie between bounds. The distance is the smallest that these allow: never more than
    that of the values themselves, whatever their ties, and at most a hundredth less. Its p-value is
    the asymptotic one of two samples (Smirnov, 1948), which ties make larger, not smaller.

    Args:
        values: (m,) sorted, without gaps.
        percentiles: 0 to 100 by nearest rank: the value at rank round(q / 100 * (n - 1)).
        coarse: Compare in single precision, as a caller may send FP32 tensors: 0.1 is then
            0.10000000149, on the other side of an edge at 0.1.
    """
    m = len(values)
    if not m or not n:
        return Change(known=m, p=1.0, psi=0.0, distance=0.0)
    known_edges = np.array(percentiles, dtype=np.float64)
    if coarse:
        values, known_edges = _in_single_precision(values, known_edges)
    ranks = np.round(np.arange(101) / 100 * (n - 1))
    edges, first, ties = np.unique(known_edges, return_index=True, return_counts=True)
    last = first + ties - 1
    # Shares of the reference that are at most, and that are below, each edge.
    at_most = (ranks[last] + 1) / n, np.append(ranks[last[:-1] + 1], n) / n
    below = np.append(0, ranks[first[1:] - 1] + 1) / n, ranks[first] / n
    now_at_most = np.searchsorted(values, edges, "right") / m
    now_below = np.searchsorted(values, edges, "left") / m
    pairs = [(now_at_most, at_most), (now_below, below)]
    away = [np.maximum(low - now, now - high) for now, (low, high) in pairs]
    distance = max(0.0, float(np.max(away)))
    tenths = np.searchsorted(edges, np.unique(known_edges[10:100:10]))
    psi = _stability(
        np.diff(at_most[0][tenths], prepend=0, append=1) * n,
        np.diff(now_at_most[tenths], prepend=0, append=1) * m,
    )
    p = float(kstwobign.sf(distance * (n * m / (n + m)) ** 0.5))
    return Change(known=m, p=p, psi=psi, distance=distance)


def _in_single_precision(
    values: NDArray[np.float64], edges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Round both to float32, unless that would make different edges one."""
    with np.errstate(over="ignore"):
        rounded = edges.astype(np.float32).astype(np.float64)
        if len(np.unique(rounded)) < len(np.unique(edges)):
            return values, edges
        return values.astype(np.float32).astype(np.float64), rounded


def _categories(values: pl.Series, counts: dict[str, int], lost: float) -> Change:
    """Compare categories with the counts of a reference; those it does not have are left out.

    Categories of which fewer than five are to be expected are taken together, in the order of
    their names, until there are five (Cochran, 1954) or a tenth of them.

    Args:
        lost: Of the rows that were counted, those in whose place others will come that are not
            known; they are of rare categories.
    """
    found = values.drop_nulls().alias("value").cast(pl.String).value_counts().iter_rows()
    seen = {name: count for name, count in found if name in counts}
    m = sum(seen.values())
    n = sum(counts.values())
    if not m or not n:
        return Change(known=m, p=1.0, psi=0.0, cohens_w=0.0, total_variation=0.0)
    before: list[float] = []
    now: list[int] = []
    rare = [name for name, count in counts.items() if count * m < 5 * n]
    for name in counts.keys() - set(rare):
        before.append(counts[name])
        now.append(seen.get(name, 0))
    total = sum(counts[name] for name in rare)
    kept = max(0.0, 1 - lost / total) if total else 1.0
    enough = max(5 * n / m, kept * total / 10)
    group_before, group_now = 0.0, 0
    for name in sorted(rare):
        group_before += counts[name] * kept
        group_now += seen.get(name, 0)
        if group_before >= enough:
            before.append(group_before)
            now.append(group_now)
            group_before, group_now = 0.0, 0
    before.append(group_before)
    now.append(group_now)
    p, chi_square, freedom = _chi_square(before, now, yates=False)
    excess = max(0.0, chi_square - freedom) * (n + m) / (n * m)
    moved = np.abs(np.array(before) / sum(before) - np.array(now) / m).sum() / 2
    return Change(
        known=m,
        p=p,
        psi=_stability(before, now),
        cohens_w=float(excess**0.5),
        total_variation=float(moved),
    )


def _stability(before: ArrayLike, now: ArrayLike) -> float:
    """Return the population stability index of counts, half a one added to each.

    N. Siddiqi, Credit Risk Scorecards, 2006, chapter 9; it is Jeffreys' divergence.
    """
    p, q = (np.asarray(counts) + 0.5 for counts in (before, now))
    p, q = p / p.sum(), q / q.sum()
    return float(((q - p) * np.log(q / p)).sum())


def _homogeneity(before: ArrayLike, now: ArrayLike) -> float:
    """Return the p-value of the chi-square test that two rows of counts are of one distribution."""
    return _chi_square(before, now)[0]


def _chi_square(
    before: ArrayLike, now: ArrayLike, *, yates: bool = True
) -> tuple[float, float, int]:
    """Return p-value, statistic and degrees of freedom; 1, 0 and 0 where nothing can be tested."""
    table = np.array([before, now])
    table = table[:, table.any(axis=0)]
    if table.shape[1] < 2 or not table.any(axis=1).all():
        return 1.0, 0.0, 0
    result = chi2_contingency(table, correction=yates)
    return float(result.pvalue), float(result.statistic), int(result.dof)
