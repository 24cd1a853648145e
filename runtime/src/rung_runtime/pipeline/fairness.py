"""Fairness: how far rates differ among groups of rows, with intervals that hold for all of them.

A rate is a mean: of "selected" over all rows of a group, or over those that are truly positive, of
"predicted minus observed", and so on. Nothing is resampled: groups are disjoint and may be small,
and of a share of few rows Wilson's interval is right where a bootstrap has seen only one outcome.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.stats import norm, studentized_range
from scipy.stats import t as student

from .. import UsageError
from ..config import Config, Data, Fairness
from ..config.fairness import SHARES
from ..records import FairnessChange, GroupComparison, GroupRate, Interval
from .formatting import MISSING, short
from .metrics import Floats
from .slices import Indices, row_groups

MAX_GROUPS = 100  # that are judged of one column: their pairs are compared
ALMOST_NORMAL = 1e6  # degrees of freedom


class Rate(NamedTuple):
    """A number of each row, whose mean over the rows that count is compared between groups."""

    values: Floats  # (n,)
    counted: NDArray[np.bool_]  # (n,)
    # (n,) the variance of each value that the probabilities imply, where they do.
    implied: Floats | None = None


class Group(NamedTuple):
    """The rows with one value of a column, or of several."""

    name: str
    row_index: Indices


class Mean(NamedTuple):
    """The mean of a rate in a group, with the ends of its interval."""

    value: float
    low: float
    high: float


def compare_groups(
    y_true: Floats, y_pred: Floats, rows: pl.DataFrame, config: Config
) -> list[GroupComparison]:
    """Compare every rate that has a limit among the groups of every configured column.

    Args:
        y_true: (n,) class indices or values.
        y_pred: (n, classes) probabilities or (n,) values.
        rows: (n, …) typed rows.
        config: With contract and gate, whose `fairness` is configured.

    Returns:
        One for each column, or list of columns, and rate. All intervals hold together, with the
        gate's confidence.

    Raises:
        UsageError: A column has too many groups.
    """
    fairness = config.gate.fairness
    assert fairness is not None
    clusters = row_groups(rows, config.data)
    measured = rates(y_true, y_pred, config.data, fairness)
    parts = [(names, groups(rows, names, config)) for names in fairness.partitions]
    confidence = family_confidence(config.gate.confidence, len(measured) * len(parts))
    return [
        compare_rate(names, name, rate, members, clusters, fairness, confidence)
        for names, members in parts
        for name, rate in measured.items()
    ]


def family_confidence(confidence: float, families: int) -> float:
    """Return the confidence that each of several families needs to hold all (Bonferroni)."""
    return 1 - (1 - confidence) / max(families, 1)


def rates(y_true: Floats, y_pred: Floats, data: Data, fairness: Fairness) -> dict[str, Rate]:
    """Return the rates that have a limit, by name.

    Args:
        y_true: (n,) class indices or values.
        y_pred: (n, classes) probabilities or (n,) values.
        data: Task and classes.
        fairness: The limits, the favorable class, and the threshold.
    """
    everything = np.ones(len(y_true), dtype=bool)
    if data.task == "regression":
        errors = y_pred - y_true
        known = {
            "mean_prediction": Rate(y_pred, everything),
            "mean_error": Rate(errors, everything),
            "mean_absolute_error": Rate(np.abs(errors), everything),
        }
        return {name: known[name] for name in fairness.rates(data.task)}
    answer = y_pred.argmax(axis=1)
    wrong = answer != y_true
    favorable = data.classes.index(fairness.favorable) if fairness.favorable else 1
    probability = y_pred[:, favorable]
    is_favorable = y_true == favorable
    selected = answer == favorable
    if fairness.threshold is not None:
        selected = probability >= fairness.threshold
        if data.task == "binary":
            wrong = selected != is_favorable
    happened = is_favorable
    if data.task == "multiclass" and fairness.favorable is None:
        probability = y_pred.max(axis=1)  # of the class that is named
        happened = ~wrong
    known = {
        "selection_rate": Rate(selected.astype(float), everything),
        "true_positive_rate": Rate(selected.astype(float), is_favorable),
        "false_positive_rate": Rate(selected.astype(float), ~is_favorable),
        "error_rate": Rate(wrong.astype(float), everything),
        "calibration": Rate(probability - happened, everything, probability * (1 - probability)),
    }
    return {name: known[name] for name in fairness.rates(data.task)}


def groups(rows: pl.DataFrame, names: Sequence[str], config: Config) -> list[Group]:
    """Return the groups that columns make of rows, in the order of their values.

    Raises:
        UsageError: Too many of them are large enough to be judged.
    """
    fairness = config.gate.fairness
    assert fairness is not None
    keys = [_grouping(rows[name], name, config).alias(str(n)) for n, name in enumerate(names)]
    table = pl.DataFrame(keys).with_row_index("index")
    parts = []
    for values, part in table.group_by(table.columns[1:], maintain_order=True):
        texts = [_text(value, name, fairness) for value, name in zip(values, names, strict=True)]
        order = [(value is None, value) for value in values]
        index = part["index"].to_numpy().astype(np.int64)
        parts.append((order, Group(", ".join(texts), index)))
    members = [group for _, group in sorted(parts, key=lambda part: part[0])]
    judged = sum(len(group.row_index) >= fairness.min_rows for group in members)
    if judged > MAX_GROUPS:
        raise UsageError(
            f"config/gate.yaml: fairness: {' and '.join(names)} make {judged} groups of "
            f"{fairness.min_rows} rows or more, and at most {MAX_GROUPS} can be compared: "
            "use bands, or fewer columns together"
        )
    return members


def _grouping(values: pl.Series, name: str, config: Config) -> pl.Series:
    """Return what rows of a group have in common: the value, or the number of its band."""
    fairness = config.gate.fairness
    assert fairness is not None
    if name not in fairness.bands:
        return values if values.dtype.is_integer() else values.cast(pl.String)
    numbers = values.cast(pl.Float64)
    bands = np.searchsorted(fairness.bands[name], numbers.fill_null(0).to_numpy(), side="right")
    return pl.Series(np.where(numbers.is_null(), -1, bands)).replace(-1, None)


def _text(value: str | int | None, name: str, fairness: Fairness) -> str:
    """Return the name of a group: its value, or the ends of its band."""
    if value is None:
        return MISSING
    if isinstance(value, str) or name not in fairness.bands:
        return str(value)
    edges = fairness.bands[name]
    if value == 0:
        return f"under {short(edges[0])}"
    if value == len(edges):
        return f"{short(edges[-1])} and over"
    return f"{short(edges[value - 1])} to under {short(edges[value])}"


def compare_rate(
    names: list[str],
    name: str,
    rate: Rate,
    members: Sequence[Group],
    clusters: Indices | None,
    fairness: Fairness,
    confidence: float,
) -> GroupComparison:
    """Compare a rate among groups.

    Args:
        names: The columns that make the groups.
        name: Of the rate.
        rate: Of all rows.
        members: The groups.
        clusters: (n,) which rows belong together, and are evidence of one; None: none do.
        fairness: The rows that a group must have, and which rates need a ratio.
        confidence: That all intervals hold.
    """
    counted = [group.row_index[rate.counted[group.row_index]] for group in members]
    evidence = [
        len(index) if clusters is None else len(np.unique(clusters[index])) for index in counted
    ]
    is_judged = [count >= fairness.min_rows for count in evidence]
    critical = critical_value(sum(is_judged), confidence)
    described = []
    judged: list[tuple[str, Mean]] = []
    for group, index, enough in zip(members, counted, is_judged, strict=True):
        value = float(rate.values[index].mean()) if len(index) else None
        interval = Interval(value=value, low=None, high=None)
        if enough:
            implied = None if rate.implied is None else rate.implied[index]
            together = None if clusters is None else clusters[index]
            mean = group_mean(rate.values[index], together, implied, critical, name in SHARES)
            judged.append((group.name, mean))
            interval = Interval(**mean._asdict())
        clusters_of_group = None if clusters is None else len(np.unique(clusters[index]))
        described.append(
            GroupRate(group=group.name, rows=len(index), clusters=clusters_of_group, value=interval)
        )
    has_ratio = name in SHARES and name in fairness.limits("binary", "ratio")
    means = [mean for _, mean in judged]
    pair = farthest_pair(judged)
    return GroupComparison(
        columns=names,
        rate=name,
        groups=described,
        difference=difference_interval(means),
        ratio=ratio_interval(means) if has_ratio else None,
        highest=pair[0] if pair else None,
        lowest=pair[1] if pair else None,
    )


@cache
def critical_value(groups: int, confidence: float) -> float:
    """Return how many standard errors all differences of so many groups are within.

    The studentized range (Tukey, 1953; for groups of unequal size Kramer, 1956): with two groups
    it is the normal quantile, 1.96, with twenty 3.54.
    """
    if groups < 2:
        return float(norm.isf((1 - confidence) / 2))
    return float(studentized_range.ppf(confidence, groups, ALMOST_NORMAL) / 2**0.5)


def group_mean(
    values: Floats,
    clusters: Indices | None,
    implied: Floats | None,
    critical: float,
    is_share: bool,
) -> Mean:
    """Return the mean of a group with an interval.

    Of a share it is Wilson's (1927), of other numbers Student's. Rows that belong together count
    as fewer: divided by the design effect (Korn and Graubard, Survey Methodology 24, 1998).

    Args:
        values: (n,) of its rows.
        clusters: (n,) which of them belong together.
        implied: (n,) the variances that the probabilities imply: where few of a rare kind are
            expected, none may have been seen.
        critical: How many standard errors the ends are away.
        is_share: Whether each value is 0 or 1.
    """
    mean = float(values.mean())
    rows = len(values) / design_effect(values, clusters)
    if is_share:
        if clusters is not None:  # how alike they are is known no better than so many of them tell
            rows *= (critical / student.isf(norm.sf(critical), len(np.unique(clusters)) - 1)) ** 2
        shrunk = (mean + critical**2 / (2 * rows)) / (1 + critical**2 / rows)
        spread = mean * (1 - mean) / rows + critical**2 / (4 * rows**2)
        width = critical * spread**0.5 / (1 + critical**2 / rows)
        return Mean(mean, max(shrunk - width, 0.0), min(shrunk + width, 1.0))
    variance = float(values.var(ddof=1))
    if implied is not None:
        variance = max(variance, float(implied.mean()))
    width = float(student.isf(norm.sf(critical), rows - 1)) * (variance / rows) ** 0.5
    return Mean(mean, mean - width, mean + width)


def design_effect(values: Floats, clusters: Indices | None) -> float:
    """Return how many rows are as much evidence as one independent row; at least 1.

    Args:
        values: (n,) of the rows.
        clusters: (n,) which of them belong together; None: none do.
    """
    if clusters is None:
        return 1.0
    _, member = np.unique(clusters, return_inverse=True)
    count = int(member.max()) + 1
    largest = len(values) / count
    variance = float(values.var())
    if variance == 0:  # all equal: nothing says how alike the rows of a cluster are
        return max(largest, 1.0)
    sums = np.bincount(member, values - values.mean())
    between = float(sums @ sums) / len(values) * count / (count - 1)
    return max(between / variance, 1.0)


def difference_interval(means: Sequence[Mean]) -> Interval:
    """Return the difference of the highest and the lowest of several means.

    Of each pair the ends follow from those of both means (MOVER; Newcombe, Statistics in Medicine
    17, 1998, 873; Zou and Donner, 2008). If all pairs are within theirs, the largest difference is
    between the largest of the lower ends and the largest of the upper ends.
    """
    if len(means) < 2:
        return Interval(value=None, low=None, high=None)
    pairs = [_difference(*_ordered(a, b)) for a, b in combinations(means, 2)]
    return Interval(
        value=max(pair.value for pair in pairs),
        low=max(0.0, *(pair.low for pair in pairs)),
        high=max(pair.high for pair in pairs),
    )


def farthest_pair(judged: Sequence[tuple[str, Mean]]) -> tuple[str, str] | None:
    """Return the names of the two groups that surely differ most, the higher one first."""
    if len(judged) < 2:
        return None
    pairs = [(a, b) if a[1].value >= b[1].value else (b, a) for a, b in combinations(judged, 2)]
    (highest, _), (lowest, _) = max(pairs, key=lambda pair: _difference(pair[0][1], pair[1][1]).low)
    return highest, lowest


def ratio_interval(means: Sequence[Mean]) -> Interval:
    """Return the lowest of several shares, divided by the highest.

    A ratio r of two is within its interval if 0 is within that of "one − r · other": of each pair
    the ends solve that (MOVER; Donner and Zou, Biometrics 68, 2012).
    """
    if len(means) < 2:
        return Interval(value=None, low=None, high=None)
    pairs = [_ratio(*_ordered(a, b)) for a, b in combinations(means, 2)]
    return Interval(
        value=min(pair.value for pair in pairs),
        low=min(pair.low for pair in pairs),
        high=min(pair.high for pair in pairs),
    )


def _ordered(first: Mean, second: Mean) -> tuple[Mean, Mean]:
    return (first, second) if first.value >= second.value else (second, first)


def _difference(upper: Mean, lower: Mean) -> Mean:
    """Return the difference of two independent means, with ends from those of both."""
    value = upper.value - lower.value
    down = ((upper.value - upper.low) ** 2 + (lower.high - lower.value) ** 2) ** 0.5
    up = ((upper.high - upper.value) ** 2 + (lower.value - lower.low) ** 2) ** 0.5
    return Mean(value, value - down, value + up)


def _ratio(upper: Mean, lower: Mean) -> Mean:
    """Return lower ÷ upper of two shares, at most 1, with its ends."""
    if upper.value == 0:  # and so is the other one
        return Mean(1.0, 0.0, 1.0)
    value = lower.value / upper.value
    product = lower.value * upper.value
    # The roots of (r · upper − lower)² = distances of both from an end, squared.
    low_square = upper.value**2 - (upper.high - upper.value) ** 2
    high_square = upper.value**2 - (upper.value - upper.low) ** 2
    low_rest = lower.value**2 - (lower.value - lower.low) ** 2
    high_rest = lower.value**2 - (lower.high - lower.value) ** 2
    low = low_rest / (product + max(product**2 - low_square * low_rest, 0.0) ** 0.5 or 1.0)
    high = 1.0
    if high_square > 0:
        root = max(product**2 - high_square * high_rest, 0.0) ** 0.5
        high = (product + root) / high_square
    return Mean(value, max(low, 0.0), min(high, 1.0))


def changes(
    y_true: Floats, ours: Floats, theirs: Floats, rows: pl.DataFrame, config: Config
) -> list[FairnessChange]:
    """Compare how far rates differ among groups with how far they do for another model.

    Args:
        y_true: (n,) class indices or values.
        ours: (n, classes) probabilities or (n,) values.
        theirs: Those of the other model.
        rows: (n, …) typed rows.
        config: With contract and gate, whose `fairness` is configured.

    Returns:
        One for each column, or list of columns, and rate that both models can be judged by.
    """
    fairness = config.gate.fairness
    assert fairness is not None
    clusters = row_groups(rows, config.data)
    our_rates = rates(y_true, ours, config.data, fairness)
    their_rates = rates(y_true, theirs, config.data, fairness)
    result = []
    for our, their in zip(
        compare_groups(y_true, ours, rows, config),
        compare_groups(y_true, theirs, rows, config),
        strict=True,
    ):
        if our.highest is None or our.lowest is None:
            continue
        members = {group.name: group.row_index for group in groups(rows, our.columns, config)}
        own = our_rates[our.rate]
        change = own.values - their_rates[our.rate].values
        judged = [group for group in our.groups if group.value.low is not None]
        families = len(our_rates) * len(fairness.partitions)
        confidence = family_confidence(config.gate.confidence, families)
        critical = critical_value(len(judged), confidence)
        means = []
        for name in (our.highest, our.lowest):
            index = members[name][own.counted[members[name]]]
            together = None if clusters is None else clusters[index]
            # That none of n rows changed does not show that none of more would.
            least = np.full(len(index), 1 / len(index))
            means.append(group_mean(change[index], together, least, critical, is_share=False))
        result.append(
            FairnessChange(
                columns=our.columns,
                rate=our.rate,
                highest=our.highest,
                lowest=our.lowest,
                challenger=our.difference,
                own=their.difference,
                change=Interval(**_difference(*means)._asdict()),
            )
        )
    return result
