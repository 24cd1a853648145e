"""Whether probabilities mean what they say: of rows with 0.3, three in ten happen."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from scipy.special import betainc, expit, logit

from .intervals import Interval
from .metrics import Floats

BIN_ROWS = 50
BINS = 10
SMALLEST = 1e-9  # a probability nearer to 0 or 1 counts as this near
ODDS = 30.0  # the largest shift that is tried, in logarithms of odds


def calibration(
    y_true: Floats, y_pred: Floats, confidence: float = 0.95, classes: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure how far predictions are from what happens.

    Args:
        y_true: (n,) class indices or values.
        y_pred: (n, classes) probabilities or (n,) values.
        confidence: Of the lower end of the error, and of the ratios of all classes together.
        classes: Their names.

    Returns:
        `error`: root mean square distance of predicted and observed over up to ten bins of equally
        many rows, less what chance alone would make of it (Kumar, Liang and Ma, Verified
        uncertainty calibration, 2019, 4.1). In standard deviations of the target for a regression;
        for two classes in twice those, so that it is in shares of rows where both are as frequent,
        and grows with how rare one of them is.
        `low`: what the error surely is.
        `bins`: `predicted`, `observed`, `rows`.
        `ratios`: see `ratios`; none of a regression.
    """
    predicted, observed, unit = y_pred, y_true, float(y_true.std()) or 1.0
    if y_pred.ndim == 2:
        # Of the positive class; of the class that is predicted, if there are more than two.
        named = np.ones(len(y_true), int) if y_pred.shape[1] == 2 else y_pred.argmax(axis=1)
        predicted = y_pred[np.arange(len(y_true)), named]
        observed = (y_true == named).astype(float)
        unit = 2 * float(observed.std()) or 1.0 if y_pred.shape[1] == 2 else 1.0
    count = int(np.clip(len(y_true) // BIN_ROWS, 1, BINS))
    # Rows that are predicted alike are parted at random: the file may be sorted by what happened.
    among_equals = np.random.default_rng(0).random(len(predicted))
    parts = np.array_split(np.lexsort((among_equals, predicted)), count)
    bins: list[dict[str, Any]] = []
    squared = 0.0
    variance = 0.0
    for rows in parts:
        gap = (predicted[rows] / unit).mean() - (observed[rows] / unit).mean()
        if y_pred.ndim == 2:
            chance = _variance_of_shares(predicted[rows], observed[rows]) / unit**2
        else:
            chance = _variance_of_mean((observed[rows] - predicted[rows]) / unit)
        share = len(rows) / len(y_true)
        squared += share * (gap**2 - chance)
        variance += share**2 * (2 * chance**2 + 4 * max(gap**2 - chance, 0.0) * chance)
        bins.append(
            {
                "predicted": float(predicted[rows].mean()),
                "observed": float(observed[rows].mean()),
                "rows": len(rows),
            }
        )
    certain = squared - NormalDist().inv_cdf((1 + confidence) / 2) * variance**0.5
    return {
        "error": float(max(squared, 0.0) ** 0.5),
        "low": float(max(certain, 0.0) ** 0.5),
        "bins": bins,
        "ratios": ratios(y_true, y_pred, confidence, classes) if y_pred.ndim == 2 else [],
    }


def _variance_of_mean(errors: Floats) -> float:
    return float(np.var(errors, ddof=1) / len(errors)) if len(errors) > 1 else 0.0


def _variance_of_shares(predicted: Floats, observed: Floats) -> float:
    """Return what chance makes of the mean of predicted minus observed, squared.

    The larger of what the probabilities imply and what was observed, as one of the two is small by
    chance where few positives were, or would have been, expected.
    """
    implied = (predicted * (1 - predicted)).mean() / len(observed)
    return float(max(implied, observed.var() / max(len(observed) - 1, 1)))


def ratios(
    y_true: Floats, y_pred: Floats, confidence: float, classes: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Compare how many rows of a class there are with how many were expected.

    Calibration in the large (Van Calster et al., Calibration: the Achilles heel of predictive
    analytics, 2019). Of two classes only the rarer one: the other one's ratio is always close to 1.

    Args:
        y_true: (n,) class indices.
        y_pred: (n, classes) probabilities.
        confidence: That no ratio of a class is outside of its interval (Bonferroni).
        classes: Their names.

    Returns:
        For each class `class`, `observed` and `expected` rows, and the `ratio` of observed to
        expected with its interval.
    """
    count = y_pred.shape[1]
    names = list(classes) or [str(number) for number in range(count)]
    judged: Sequence[int] = range(count)
    if count == 2:
        judged = [1 if (y_true == 1).mean() + y_pred[:, 1].mean() <= 1 else 0]
    tail = (1 - confidence) / 2 / len(judged)
    found = []
    for number in judged:
        observed = int((y_true == number).sum())
        expected = float(y_pred[:, number].sum())
        ratio = _ratio_interval(observed, y_pred[:, number], tail)
        found.append(
            {"class": names[number], "observed": observed, "expected": expected, "ratio": ratio}
        )
    return found


def _ratio_interval(observed: int, predicted: Floats, tail: float) -> Interval:
    """Return observed ÷ expected with the ends of its mid-P interval (Lancaster, 1961).

    All odds are shifted by one factor until so few, or so many, rows would hardly be observed; the
    end is what would then be expected, in shares of what is.
    """
    shares = np.clip(predicted, SMALLEST, 1 - SMALLEST)
    log_odds = logit(shares)
    expected = float(shares.sum())

    def at_most(shift: float) -> tuple[float, float]:
        """Return the probability of fewer rows, with half of that of as many, and their mean."""
        moved = expit(log_odds + shift)
        mean = float(moved.sum())
        spread = float((moved * (1 - moved)).sum())
        both = (_binomial(observed, mean, spread), _binomial(observed - 1, mean, spread))
        return sum(both) / 2, mean

    def end(wanted: float) -> float:
        low, high = -ODDS, ODDS
        for _ in range(60):
            middle = (low + high) / 2
            probability, mean = at_most(middle)
            low, high = (middle, high) if probability > wanted else (low, middle)
        return mean / expected

    value = observed / expected
    low, high = end(1 - tail), end(tail)
    return {"value": value, "low": min(low, value), "high": max(high, value)}


def _binomial(most: int, mean: float, variance: float) -> float:
    """Return the probability of at most so many events that are independent and unequally likely.

    By the binomial distribution with the same mean and variance.
    """
    if most < 0:
        return 0.0
    trials = mean**2 / max(mean - variance, 1e-12 * mean)
    if trials <= most:
        return 1.0
    return float(betainc(trials - most, most + 1, 1 - mean / trials))
