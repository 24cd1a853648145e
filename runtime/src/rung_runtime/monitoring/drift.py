"""Drift: whether rows still look like those that a model was trained on, column by column.

A column drifts when its change is large (an effect size), statistically significant (a test), and
larger than changes were among windows of the training rows (seasons). All that is known of the
training rows is a package's `profile.json`.
"""

from typing import NamedTuple

import polars as pl
from scipy.stats import norm

from ..config.drift import Drift
from ..pipeline.correlations import correlation_changes, standard_error
from ..pipeline.differences import Change, Sizes, Usual, compare
from ..pipeline.profiles import ColumnProfile
from ..pipeline.same_season import parts_of, same_season
from ..pipeline.seasons import CLOCK, hours_of, usual, usual_correlation
from ..records import Finding

TESTS_PER_COLUMN = 2  # of its values, and of its gaps


class Reference(NamedTuple):
    """What is known of a column."""

    seen: ColumnProfile
    rows: int  # how many it was computed from


def judge(
    rows: pl.DataFrame, references: dict[str, Reference], settings: Drift
) -> dict[str, Finding]:
    """Compare each column of a window with its reference.

    The tests of all columns together raise a false alarm with a probability of at most
    `significance` (Bonferroni).

    Args:
        rows: Numbers, booleans, datetimes and texts, gaps as null.
        references: By column; one that the rows lack, as it is private, is left out.

    Returns:
        The verdict on each column. Values of a datetime never drift: time passes, and testing that
        tells nothing.
    """
    present = {name: reference for name, reference in references.items() if name in rows.columns}
    looks = 2 if any(reference.seen.get("parts") for reference in present.values()) else 1
    pairs = sum(len(reference.seen.get("correlations", {})) for reference in present.values())
    shares = 2 if pairs else 1  # of the significance: for columns, and for their correlations
    level = settings.significance / shares / max(1, TESTS_PER_COLUMN * looks * len(present))
    times = _times(rows, present)
    result = {
        name: _column(rows[name], reference, times, level, settings)
        for name, reference in present.items()
    }
    if pairs:
        level = settings.significance / shares / pairs
        for name, reason in _correlated(rows, present, times, level, settings):
            joined = f"{before} and {reason}" if (before := result[name]["reason"]) else reason
            result[name]["verdict"] = "drift"
            result[name]["reason"] = joined
    return result


def _correlated(
    rows: pl.DataFrame,
    references: dict[str, Reference],
    times: pl.Series | None,
    level: float,
    settings: Drift,
) -> list[tuple[str, str]]:
    """Return the pairs whose correlation has changed: the first column, and why."""
    correlations = {
        name: reference.seen["correlations"]
        for name, reference in references.items()
        if reference.seen.get("correlations")
    }
    # Columns of the log are x:NAME, those of a profile are NAME.
    prefix = "x:" if all(name.startswith("x:") for name in correlations) else ""
    plain = rows.rename({name: name.removeprefix(prefix) for name in references})
    pair_changes = correlation_changes(
        plain, {name.removeprefix(prefix): pairs for name, pairs in correlations.items()}
    )
    hours = 0.0 if times is None else hours_of(times)
    reasons = []
    for (name, other), pair in pair_changes.items():
        reference = references[prefix + name]
        second = references[prefix + other]
        before = reference.seen["correlations"][other]
        both = (1 - reference.seen["gaps"]) * (1 - second.seen["gaps"]) * reference.rows
        deviation = (standard_error(pair.rows) ** 2 + standard_error(round(both)) ** 2) ** 0.5
        beyond = abs(pair.change) - usual_correlation(reference.seen, other, hours)
        p = 2 * float(norm.sf(max(0.0, beyond) / deviation))
        if abs(pair.correlation - before) >= settings.min_correlation_change and p < level:
            reason = f"correlation with {other} went from {before:.2f} to {pair.correlation:.2f}"
            reasons.append((prefix + name, reason))
    return reasons


def _times(rows: pl.DataFrame, references: dict[str, Reference]) -> pl.Series | None:
    """Return when the rows came to be, or else when they were predicted."""
    clocks = [name for name, reference in references.items() if reference.seen.get(CLOCK)]
    for name in [*clocks, "time"]:
        if name in rows.columns and rows[name].dtype == pl.Datetime and rows[name].count():
            return rows[name]
    return None


def _column(
    values: pl.Series,
    reference: Reference,
    times: pl.Series | None,
    level: float,
    settings: Drift,
) -> Finding:
    seen = reference.seen
    among_training, in_season = usual(seen, 0.0 if times is None else hours_of(times))
    change = compare(values, seen, reference.rows)
    is_time = values.dtype == pl.Datetime
    reasons = [] if is_time else _values_in_words(change, among_training, level, settings)
    if in_season and times is not None and not reasons and not is_time:
        local, count = same_season(seen, parts_of(times))
        changed = _values_in_words(compare(values, local, count), in_season, level, settings)
        reasons = [f"{reason} from the same time of the year" for reason in changed]
    p_gaps = change.p_of_gaps(among_training)
    if abs(change.gap_change) >= settings.min_gap_change and p_gaps < level:
        reasons.append(_gaps_in_words(change, reference))
    return {
        "verdict": "drift" if reasons else "quiet",
        "reason": " and ".join(reasons) or None,
        "psi": change.sizes.psi,
        "distance": change.sizes.distance,
        "cohens_w": change.sizes.cohens_w,
        "total_variation": change.sizes.total_variation,
        "p_values": change.p_values(among_training),
        "gaps": change.gaps,
        "gap_change": change.gap_change,
        "new": change.new,
        "p_gaps": p_gaps,
        "usual": among_training._asdict(),
    }


def _values_in_words(change: Change, among: Usual, level: float, settings: Drift) -> list[str]:
    if _is_large(change.sizes, among, settings) and change.p_values(among) < level:
        return [f"values are distributed differently ({change.sizes})"]
    return []


def _is_large(sizes: Sizes, among_training: Usual, settings: Drift) -> bool:
    """Check whether a change matters, be it chance or not, and is not usual."""
    if sizes.cohens_w is not None and sizes.total_variation is not None:
        enough = sizes.cohens_w >= max(settings.min_cohens_w, among_training.cohens_w)
        return enough and sizes.total_variation >= settings.min_moved
    if sizes.psi >= max(settings.min_psi, among_training.psi):
        return True
    return (sizes.distance or 0) >= max(settings.min_distance, among_training.distance)


def _gaps_in_words(change: Change, reference: Reference) -> str:
    reason = f"gaps went from {change.gaps - change.gap_change:.1%} to {change.gaps:.1%}"
    if change.new and reference.seen.get("unlisted"):
        reason += f", {change.new:.1%} of all are values that the contract does not list"
    elif change.new:
        reason += f", {change.new:.1%} of all are values that training did not have"
    return reason
