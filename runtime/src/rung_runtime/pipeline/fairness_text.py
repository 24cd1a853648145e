"""Fairness in words and figures: what a verdict leaves open, and how a report shows it."""

from typing import Literal, NamedTuple

from ..config import Fairness, Gate, Task
from ..config.fairness import SHARES
from ..escaping import visible
from ..records import GroupComparison, GroupRate, Interval, MetricsDocument
from .formatting import ends, short

MAX_NAMES = 5  # of groups that a note lists
# The rates that are compared, as people name them.
RATES = {
    "selection_rate": "selection rate",
    "true_positive_rate": "true positive rate",
    "false_positive_rate": "false positive rate",
    "error_rate": "error rate",
    "calibration": "calibration (predicted minus observed)",
    "mean_prediction": "mean prediction",
    "mean_error": "mean error (predicted minus observed)",
    "mean_absolute_error": "mean absolute error",
}


class Bar(NamedTuple):
    """A group in a figure: positions are percentages of its width."""

    group: GroupRate
    left: float
    width: float
    mark: float


class Outcome(NamedTuple):
    """What follows from a difference, or a ratio, and its limit."""

    kind: Literal["difference", "ratio"]
    interval: Interval
    allowed: str
    sentence: str
    is_refused: bool


class Panel(NamedTuple):
    """What a report shows of one rate among the groups of one column, or of several together."""

    title: str
    extremes: str
    outcomes: list[Outcome]
    low: float  # of the scale
    high: float
    band: tuple[float, float] | None  # as wide as the limit: its left end and its width
    bars: list[Bar]


def fairness_notes(metrics: MetricsDocument, gate: Gate) -> list[str]:
    """Return what the checks of fairness cannot tell, as rows are too few."""
    fairness = gate.fairness
    if fairness is None:
        return []
    notes = []
    for names in fairness.partitions:
        parts = [part for part in metrics.fairness or [] if part.columns == names]
        about = f"note: fairness by {visible(' and '.join(names))}:"
        if few := _too_small(parts):
            notes.append(
                f"{about} too few rows to judge {few}; a group needs {fairness.min_rows} that count"
            )
        undefined = [RATES[part.rate] for part in parts if part.difference.value is None]
        if undefined:
            rates = " and the ".join(undefined)
            notes.append(f"{about} no two groups have enough rows to compare the {rates}")
        unknown = [text for part in parts for text in _open(part, metrics.task, fairness)]
        if unknown:
            notes.append(
                f"{about} the rows do not show whether limits are kept for {'; '.join(unknown)}"
            )
    return notes


def _too_small(parts: list[GroupComparison]) -> str:
    """Return the groups that some rate is not judged of, in words; "" if there are none."""
    rates: dict[str, list[str]] = {}  # by group
    smallest: dict[str, GroupRate] = {}
    for part in parts:
        for group in part.groups:
            if group.value.low is None:
                rates.setdefault(group.group, []).append(RATES[part.rate])
                known = smallest.setdefault(group.group, group)
                if group.rows < known.rows:
                    smallest[group.group] = group
    names: dict[str, list[str]] = {}
    for name, group in smallest.items():
        together = " and the ".join(rates[name])
        names.setdefault(together, []).append(f"{visible(name)} ({_size(group)})")
    return ", ".join(f"the {rates} of {_listed(groups)}" for rates, groups in names.items())


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _size(group: GroupRate) -> str:
    """Return how many rows a group has that count, and what they are evidence of."""
    rows = f"{group.rows:,} {'row' if group.rows == 1 else 'rows'}"
    if group.clusters is None:
        return rows
    return f"{rows} of {group.clusters:,} that the split keeps together"


def _open(part: GroupComparison, task: Task, fairness: Fairness) -> list[str]:
    """Return the numbers of a comparison that may be above as well as below their limits."""
    limits = {
        "difference": (part.difference, fairness.limits(task, "difference").get(part.rate)),
        "ratio": (part.ratio, fairness.limits(task, "ratio").get(part.rate)),
    }
    names = {
        "difference": f"the difference in {RATES[part.rate]}",
        "ratio": f"the ratio of {RATES[part.rate]}s",
    }
    return [
        f"{names[kind]}, {ends(interval)}"
        for kind, (interval, limit) in limits.items()
        if interval is not None and is_open(interval, limit)
    ]


def title(part: GroupComparison) -> str:
    """Return the rate and the columns of a comparison, in words."""
    return f"{RATES[part.rate]} by {visible(' and '.join(part.columns))}"


def is_open(interval: Interval, limit: float | None) -> bool:
    """Check whether a number may be above as well as below a limit; False if there is none."""
    if limit is None or interval.low is None or interval.high is None:
        return False
    return interval.low <= limit < interval.high


def panels(metrics: MetricsDocument, gate: Gate) -> list[Panel]:
    """Return what a report shows of each comparison."""
    fairness = gate.fairness
    if fairness is None:
        return []
    return [_panel(part, metrics, fairness) for part in metrics.fairness or []]


def _panel(part: GroupComparison, metrics: MetricsDocument, fairness: Fairness) -> Panel:
    limit = fairness.limits(metrics.task, "difference").get(part.rate)
    least = fairness.limits(metrics.task, "ratio").get(part.rate)
    outcomes = []
    if limit is not None:
        outcomes.append(_outcome(part.difference, limit, fairness, "difference"))
    if least is not None:
        ratio = part.ratio or Interval(value=None, low=None, high=None)
        outcomes.append(_outcome(ratio, least, fairness, "ratio"))
    low, high = _scale(part, limit)
    wide = high - low

    def percent(value: float) -> float:
        return round(100 * (value - low) / wide, 2)

    bars = []
    for group in part.groups:
        value = group.value
        mark = percent(value.value) if value.value is not None else 0.0
        left = percent(value.low) if value.low is not None else mark
        right = percent(value.high) if value.high is not None else mark
        bars.append(Bar(group, left, round(right - left, 2), mark))
    band = None
    judged = _judged(part)
    if limit is not None and judged:
        middle = (max(judged) + min(judged)) / 2
        start = max(percent(middle - limit / 2), 0.0)
        end = min(percent(middle + limit / 2), 100.0)
        band = (start, round(end - start, 2))
    return Panel(
        title=title(part),
        extremes=_extremes(part),
        outcomes=outcomes,
        low=low,
        high=high,
        band=band,
        bars=bars,
    )


def _judged(part: GroupComparison) -> list[float]:
    """Return the rates of the groups that have enough rows."""
    return [
        group.value.value
        for group in part.groups
        if group.value.value is not None and group.value.low is not None
    ]


def _scale(part: GroupComparison, limit: float | None) -> tuple[float, float]:
    """Return the ends of a figure's scale, which all of its groups, and its band, are within."""
    numbers = [
        number
        for group in part.groups
        for number in (group.value.low, group.value.value, group.value.high)
        if number is not None
    ]
    judged = _judged(part)
    if limit is not None and judged:
        middle = (max(judged) + min(judged)) / 2
        numbers += [middle - limit / 2, middle + limit / 2]
    low = min(numbers, default=0.0)
    high = max(numbers, default=1.0)
    if part.rate in SHARES:
        low = max(low, 0.0)
        high = min(high, 1.0)
    return low, high if high > low else low + 1.0


def _extremes(part: GroupComparison) -> str:
    """Return in a sentence which groups have the highest and the lowest rate."""
    judged = [group for group in part.groups if group.value.low is not None]
    if len(judged) < 2:
        return "There are no two groups with enough rows to compare."
    by_value = sorted(judged, key=lambda group: group.value.value or 0.0)
    lowest = by_value[0]
    highest = by_value[-1]
    return (
        f"{visible(highest.group)} has the highest, {short(highest.value.value)}, and "
        f"{visible(lowest.group)} the lowest, {short(lowest.value.value)}."
    )


def _outcome(
    interval: Interval, limit: float, fairness: Fairness, kind: Literal["difference", "ratio"]
) -> Outcome:
    """Return what follows for a limit."""

    def outcome(sentence: str, *, is_refused: bool) -> Outcome:
        return Outcome(kind, interval, allowed, sentence, is_refused)

    allowed = f"at most {short(limit)}" if kind == "difference" else f"at least {short(limit)}"
    if interval.value is None or interval.low is None or interval.high is None:
        sentence = f"The {kind} is not defined, and {allowed} is allowed: this is refused."
        return outcome(sentence, is_refused=True)
    measured = f"The {kind} is {short(interval.value)} ({ends(interval)}), {allowed} is allowed: "
    if kind == "difference":
        breaks = interval.low > limit
        meets = interval.high <= limit
    else:
        breaks = interval.high < limit
        meets = interval.low >= limit
    if breaks:
        return outcome(f"{measured}this limit is surely broken.", is_refused=True)
    if meets:
        return outcome(f"{measured}this limit is surely kept.", is_refused=False)
    unknown = f"{measured}these rows do not show whether this limit is kept"
    if fairness.compare == "pessimistic":
        return outcome(f"{unknown}, which is refused (compare: pessimistic).", is_refused=True)
    return outcome(f"{unknown}. As it is not surely broken, this passes.", is_refused=False)
