"""Metrics of a model's predictions, and the skill of one model over another."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ..config import HIGHER_IS_BETTER

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]
# From (n, m) weights of the same n rows to (m,) values of a metric.
WeightedMetric = Callable[[Floats], Floats]
UNDEFINED = float("nan")

# Skill is not measured in steps finer than this share of the way from a constant to perfection.
SKILL_FLOOR = 0.05


def weighted(metric: str, y_true: Floats, y_pred: Floats) -> WeightedMetric:
    """Prepare a metric, so that it is cheap to compute for many weightings of the same rows.

    Rows are sorted once, and losses computed once. With integer weights the result is that of
    scikit-learn on rows repeated that often.

    Args:
        metric: One of `METRICS`.
        y_true: (n,) class indices or values.
        y_pred: (n, classes) probabilities or (n,) values.

    Returns:
        A function from weights, (n, m), to m values of the metric: NaN where it is not defined.
    """
    if metric == "roc_auc":
        return _roc_auc(y_true, y_pred[:, 1])
    if metric == "average_precision":
        return _average_precision(y_true, y_pred[:, 1])
    if metric == "macro_f1":
        return _macro_f1(y_true, y_pred)
    if metric == "r2":
        return _r2(y_true, y_pred)
    if metric == "rmse":
        return _root_mean_square(np.abs(y_true - y_pred))
    return _mean(LOSSES[metric](y_true, y_pred))


# The loss of each row; its mean is the metric.
LOSSES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "brier": lambda y, p: (p[:, 1] - y) ** 2,
    "log_loss": lambda y, p: -np.log(np.clip(p[np.arange(len(y)), y.astype(int)], 1e-15, 1)),
    "accuracy": lambda y, p: (p.argmax(axis=1) == y).astype(float),
    "mae": lambda y, p: np.abs(y - p),
}
METRICS = ["roc_auc", "average_precision", *LOSSES, "macro_f1", "rmse", "r2"]


def score(metric: str, y_true: Floats, y_pred: Floats) -> float:
    """Return scikit-learn's value of a metric; NaN where it is not defined.

    Args:
        metric: One of `METRICS`.
        y_true: (n,) class indices or values.
        y_pred: (n, classes) probabilities or (n,) values.
    """
    return float(weighted(metric, y_true, y_pred)(np.ones((len(y_true), 1)))[0])


def _scorer(metric: str) -> Callable[[Floats, Floats], float]:
    return lambda y_true, y_pred: score(metric, y_true, y_pred)


SCORES: dict[str, Callable[[Floats, Floats], float]] = {name: _scorer(name) for name in METRICS}


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Divide two arrays of shapes that broadcast; NaN where the denominator is not positive."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), UNDEFINED)
    return np.asarray(np.divide(numerator, denominator, out=result, where=denominator > 0))


def _mean(losses: Floats) -> WeightedMetric:
    return lambda weights: ratio(losses @ weights, weights.sum(axis=0))


def _root_mean_square(errors: Floats) -> WeightedMetric:
    """Scale by the largest error, as its square may be too large for a float."""
    largest = float(errors.max(initial=0.0)) or 1.0
    squares = (errors / largest) ** 2
    return lambda weights: largest * ratio(squares @ weights, weights.sum(axis=0)) ** 0.5


def _r2(y_true: Floats, y_pred: Floats) -> WeightedMetric:
    """Scale by the largest deviation, as its square may be too large for a float."""
    centred = y_true - y_true.mean()
    largest = float(max(np.abs(centred).max(), np.abs(y_true - y_pred).max())) or 1.0
    centred = centred / largest
    squares = ((y_true - y_pred) / largest) ** 2
    varies = np.ptp(y_true) > 0

    def values(weights: Floats) -> Floats:
        rows = weights.sum(axis=0)
        spread = centred**2 @ weights - ratio((centred @ weights) ** 2, rows)
        return 1 - ratio(squares @ weights, spread if varies else np.zeros_like(spread))

    return values


def _ties(scores: Floats) -> tuple[Rows, Rows]:
    """Return an order by falling score, and where in it each run of equal scores begins."""
    order = np.argsort(-scores, kind="stable")
    falls = np.diff(scores[order]) != 0
    return order, np.concatenate([[0], 1 + np.flatnonzero(falls)]).astype(np.int64)


def _add_ties(values: Floats, starts: Rows) -> Floats:
    """Add up the rows of each run of equal scores."""
    return values if len(starts) == len(values) else np.add.reduceat(values, starts, axis=0)


def _roc_auc(y_true: Floats, scores: Floats) -> WeightedMetric:
    """Area under the ROC curve, by counting pairs (Mann and Whitney, 1947)."""
    order, starts = _ties(scores)
    positive = (y_true[order] == 1)[:, None]

    def values(weights: Floats) -> Floats:
        sorted_weights = weights[order]
        positives = _add_ties(np.where(positive, sorted_weights, 0), starts)
        negatives = _add_ties(np.where(positive, 0, sorted_weights), starts)
        negatives_so_far = np.cumsum(negatives, axis=0)
        # Pairs in the wrong order, with half of those that are tied.
        wrong = np.einsum("ij,ij->j", positives, negatives_so_far - negatives / 2, dtype=np.float64)
        return 1 - ratio(wrong, positives.sum(axis=0, dtype=np.float64) * negatives_so_far[-1])

    return values


def _average_precision(y_true: Floats, scores: Floats) -> WeightedMetric:
    """Mean precision over the recall that each threshold adds, as scikit-learn defines it."""
    order, starts = _ties(scores)
    positive = (y_true[order] == 1)[:, None]

    def values(weights: Floats) -> Floats:
        sorted_weights = weights[order]
        positives = _add_ties(np.where(positive, sorted_weights, 0), starts)
        predicted = np.cumsum(_add_ties(sorted_weights, starts), axis=0)
        true_positives = np.cumsum(positives, axis=0)
        # Where no row is predicted positive there are no true positives either.
        precision = true_positives / np.maximum(predicted, 1e-30)
        return ratio(
            np.einsum("ij,ij->j", positives, precision, dtype=np.float64), true_positives[-1]
        )

    return values


def _macro_f1(y_true: Floats, y_pred: Floats) -> WeightedMetric:
    """Mean F1 of the classes that occur or were predicted, as scikit-learn defines it."""
    predicted = y_pred.argmax(axis=1)
    classes = np.arange(y_pred.shape[1])[:, None]
    is_true = (y_true == classes).astype(float)
    is_predicted = (predicted == classes).astype(float)

    def values(weights: Floats) -> Floats:
        f1 = ratio(2 * (is_true * is_predicted) @ weights, (is_true + is_predicted) @ weights)
        defined = np.isfinite(f1)
        return ratio(np.nan_to_num(f1).sum(axis=0), defined.sum(axis=0).astype(float))

    return values


def span(metric: str, y_true: Floats, classes: int = 0) -> float:
    """Return the distance of the best constant from perfection, for these rows.

    Args:
        metric: One of `METRICS`.
        y_true: (n,) class indices or values.
        classes: The number of classes; 0 for a regression.
    """
    if classes:
        shares = np.bincount(y_true.astype(int), minlength=classes) / len(y_true)
        constant = np.tile(shares, (len(y_true), 1))
    else:
        constant = np.full(len(y_true), y_true.mean())
    return abs(_perfect(metric) - score(metric, y_true, constant))


def skill(metric: str, value: float, reference: float, span: float | None = None) -> float:
    """Return how much of the way from a reference to perfection a value covers.

    0 is the reference, 1 is perfection, and below 0 it is worse than the reference: the skill score
    of forecast verification (Wilks, Statistical Methods in the Atmospheric Sciences, 2019, 9.1.4).

    Near perfection that way is short, and a share of it means little: 0.9998 would be a whole step
    behind 0.9999. So the way counts as no shorter than `SKILL_FLOOR` of the `span`.

    Args:
        metric: One of `METRICS`.
        value: The metric of the model.
        reference: The metric of what it is compared with.
        span: The distance of a constant from perfection, as `span` returns it. Without it, what is
            worse than a perfect reference has a skill of -1.
    """
    return float(skills(metric, np.array([value]), np.array([reference]), span)[0])


def skills(metric: str, value: Floats, reference: Floats, span: float | None = None) -> Floats:
    """Return `skill` for each of (n,) values and references: NaN where either is not finite."""
    gain, way = gain_and_way(metric, value, reference, span)
    result = np.where(gain == 0, 0.0, -1.0)
    np.divide(gain, way, out=result, where=way > 0)
    return np.where(np.isfinite(value) & np.isfinite(reference), result, UNDEFINED)


def gain_and_way(
    metric: str, value: Floats, reference: Floats, span: float | None
) -> tuple[Floats, Floats]:
    """Return the numerator and the denominator of a skill: see `skill`."""
    sign = 1.0 if metric in HIGHER_IS_BETTER else -1.0
    way = np.maximum(sign * (_perfect(metric) - reference), SKILL_FLOOR * (span or 0.0))
    return sign * (value - reference), way


def _perfect(metric: str) -> float:
    return 1.0 if metric in HIGHER_IS_BETTER else 0.0
