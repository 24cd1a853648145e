"""Skill: how much of a metric was kept or lost, as an interval."""

from scipy.stats import t as student

from ..config import HIGHER_IS_BETTER
from ..records import Ends

FLOOR = 0.02  # of a distance from perfection, so that 0.9998 is not far below 0.9999


def skill(
    metric: str,
    value: Ends,
    holdout: Ends,
    stretch: float = 1.0,
    holdout_stretch: float = 1.0,
) -> Ends:
    """Return how far a metric came from the holdout's value towards perfection, as an interval.

    Below 0 it was lost: -0.1 is a tenth of the way that the holdout was from perfection. Both ends
    take into account that both are estimates: they are those of the ratio of the two distances from
    perfection by the method of variance estimates recovery (MOVER; Donner and Zou, The Statistician
    61, 2012), which needs only the interval of each.

    Args:
        metric: A name in `SCORES`.
        value: Of the predictions that are judged.
        holdout: Of the holdout, of the same confidence.
        stretch: By how much the interval of the value is to be wider than it is.
        holdout_stretch: The same of the holdout's.
    """
    unknown: Ends = {"value": None, "low": None, "high": None}
    best = 1.0 if metric in HIGHER_IS_BETTER else 0.0
    if any(item is None for item in (*value.values(), *holdout.values())):
        return unknown
    now = sorted(abs(best - float(value[end] or 0)) for end in ("low", "value", "high"))
    before = sorted(abs(best - float(holdout[end] or 0)) for end in ("low", "value", "high"))
    far = before[1]
    near = now[1]
    if metric not in ("rmse", "mae"):
        lift = max(0.0, FLOOR - far)
        far += lift
        near += lift
    if far <= 0:
        return unknown

    def end(side: int) -> float | None:
        wide_far = holdout_stretch * (before[1 + side] - before[1]) * side
        wide_near = stretch * (now[1] - now[1 - side]) * side
        square = far**2 - wide_far**2
        root = far**2 * near**2 - square * (near**2 - wide_near**2)
        if abs(square) < 1e-12 or (side < 0 and square <= 0):
            return None
        return float(1 - (far * near - side * max(0.0, root) ** 0.5) / square)

    return {"value": 1 - near / far, "low": end(-1), "high": end(1)}


def widening(confidence: float, checks: int, rows: int) -> float:
    """Return by how much an interval widens for all of several checks to hold together."""
    return student_quantile(confidence, checks, rows) / student_quantile(confidence, 1, rows)


def student_quantile(confidence: float, checks: int, rows: int) -> float:
    """Return Student's quantile for one of several checks.

    Not the normal one, as the standard error is an estimate, too.
    """
    tail = (1 - confidence) / 2
    return float(student.ppf(1 - tail / max(1, checks), max(2, rows - 1)))
