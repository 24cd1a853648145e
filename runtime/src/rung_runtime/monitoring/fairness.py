"""Fairness of live predictions: whether rates surely differ among groups by more than they may.

The limits are those of the gate. A window is judged as the gate judges a holdout: by intervals that
hold for all groups, pairs and rates at once.
"""

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ..config import Config, Data, Fairness, Gate, Model
from ..pipeline.fairness import Rate, compare_rate, family_confidence, groups, rates
from ..pipeline.fairness_text import RATES
from ..pipeline.formatting import ends, short
from ..records import Ends, GroupComparison, Interval, WindowComparison
from .label_batches import MIN_LABELS

# The rates that need no label: what was predicted, not whether it came true.
OF_PREDICTIONS = ("selection_rate", "mean_prediction")
FULL_COVERAGE = 0.9  # of labels: of fewer, nobody knows whether they depend on the group


class LiveFairness(NamedTuple):
    """What a window shows.

    Attributes:
        comparisons: Of each rate and column, or list of columns, that can be judged.
        signs: By rate and columns, in words, why a limit is surely broken.
    """

    comparisons: list[WindowComparison]
    signs: dict[str, str]


def judge_groups(
    rows: pl.DataFrame,
    y_pred: NDArray[np.float64],
    y_true: NDArray[np.float64],
    data: Data,
    gate: Gate,
) -> LiveFairness | None:
    """Compare groups of the rows of a window.

    Args:
        rows: (n, …) of the log, with `x:` before the names of features and `k:` before keys.
        y_pred: (n, classes) probabilities or (n,) values.
        y_true: (n,) class indices or values; NaN without a label.
        data: The contract of the champion.
        gate: Its limits, in `fairness`.

    Returns:
        None if nothing can be judged: there are no limits, the log has not the columns, or which
        rows belong to one subject.
    """
    fairness = gate.fairness
    if fairness is None or fairness.problem(data):  # as of a contract that has changed since
        return None
    logged = _logged(rows, data)
    partitions = [names for names in fairness.partitions if set(names) <= set(logged.columns)]
    known, clusters = _clusters(rows, data)
    if not partitions or not known or not rows.height:
        return None
    has_label = np.isfinite(y_true)
    measured = rates(np.nan_to_num(y_true), y_pred, data, fairness)
    if has_label.sum() < max(MIN_LABELS, FULL_COVERAGE * len(y_true)):
        measured = {name: rate for name, rate in measured.items() if name in OF_PREDICTIONS}
    if not measured:
        return None
    config = Config(data=data, model=Model(estimator="champion"), gate=gate)
    confidence = family_confidence(gate.confidence, len(measured) * len(partitions))
    parts = []
    for names in partitions:
        members = groups(logged, names, config)
        for name, rate in measured.items():
            counted = rate.counted if name in OF_PREDICTIONS else rate.counted & has_label
            judged = Rate(rate.values, counted, rate.implied)
            parts.append(compare_rate(names, name, judged, members, clusters, fairness, confidence))
    signs: dict[str, str] = {}
    for part in parts:
        signs |= _signs(part, data, fairness)
    return LiveFairness([_summary(part) for part in parts], signs)


def _logged(rows: pl.DataFrame, data: Data) -> pl.DataFrame:
    """Return the features that the log has."""
    names = {f"x:{name}": name for name in data.features if f"x:{name}" in rows.columns}
    return rows.select(*names).rename(names)


def _clusters(rows: pl.DataFrame, data: Data) -> tuple[bool, NDArray[np.int64] | None]:
    """Return whether it is known which rows belong to one subject, and (n,) which do."""
    name = data.split.column
    if data.split.by != "group" or name is None:
        return True, None
    for column in (f"x:{name}", f"k:{name}"):
        if column in rows.columns:
            places = rows[column].cast(pl.String).rank("dense").fill_null(0)
            return True, places.cast(pl.Int64).to_numpy()
    return False, None


def _signs(part: GroupComparison, data: Data, fairness: Fairness) -> dict[str, str]:
    """Return the limits that are surely broken, and how."""
    by = " and ".join(part.columns)
    pair = f", {part.highest} over {part.lowest}" if part.highest is not None else ""
    signs = {}
    limit = fairness.limits(data.task, "difference").get(part.rate)
    if limit is not None and part.difference.low is not None and part.difference.low > limit:
        name = f"the difference in {RATES[part.rate]} by {by}"
        signs[name] = f"is {_text(part.difference)}{pair}, where {short(limit)} is allowed"
    least = fairness.limits(data.task, "ratio").get(part.rate)
    if least is not None and part.ratio and part.ratio.high is not None and part.ratio.high < least:
        name = f"the ratio of {RATES[part.rate]}s by {by}"
        signs[name] = f"is {_text(part.ratio)}{pair}, where at least {short(least)} is asked for"
    return signs


def _text(interval: Interval) -> str:
    return f"{short(interval.value)} ({ends(interval)})"


def _summary(part: GroupComparison) -> WindowComparison:
    return {
        "columns": part.columns,
        "rate": part.rate,
        "difference": _ends(part.difference),
        "ratio": _ends(part.ratio) if part.ratio else None,
        "highest": part.highest,
        "lowest": part.lowest,
    }


def _ends(interval: Interval) -> Ends:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
