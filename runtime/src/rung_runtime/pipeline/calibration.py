"""Whether probabilities are right: of rows with 0.3, three in ten should happen."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from scipy.special import betainc, expit, logit

from ..records import Bin, Calibration, Interval, Ratio
from .metrics import Floats

MIN_BIN_ROWS = 50
MAX_BINS = 10
MIN_PROBABILITY = 1e-9  # a probability nearer to 0 or 1 counts as this near
MAX_SHIFT = 30.0  # the largest shift that is tried, in logarithms of odds
BISECTIONS = 60


def calibration(
    y_true: Floats, y_pred: Floats, confidence: float = 0.95, classes: Sequence[str] = ()
) -> Calibration:
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
    predicted, observed, unit = _predicted_and_observed(y_true, y_pred)
    count = int(np.clip(len(y_true) // MIN_BIN_ROWS, 1, MAX_BINS))
    # Rows with equal predictions are divided at random: the file may be sorted by what happened.
    among_equals = np.random.default_rng(0).random(len(predicted))
    parts = np.array_split(np.lexsort((among_equals, predicted)), count)
    bins = []
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
            Bin(
                predicted=float(predicted[rows].mean()),
                observed=float(observed[rows].mean()),
                rows=len(rows),
            )
        )
    certain = squared - NormalDist().inv_cdf((1 + confidence) / 2) * variance**0.5
    return Calibration(
        error=float(max(squared, 0.0) ** 0.5),
        low=float(max(certain, 0.0) ** 0.5),
        bins=bins,
        ratios=ratios(y_true, y_pred, confidence, classes) if y_pred.ndim == 2 else [],
    )


def _predicted_and_observed(y_true: Floats, y_pred: Floats) -> tuple[Floats, Floats, float]:
    """Return what is compared, (n,) each, and the unit that the error is in.

    Of two classes, the positive one; of more, the one that is predicted.
    """
    if y_pred.ndim == 1:
        return y_pred, y_true, float(y_true.std()) or 1.0
    if y_pred.shape[1] == 2:
        observed = (y_true == 1).astype(float)
        return y_pred[:, 1], observed, 2 * float(observed.std()) or 1.0
    likeliest = y_pred.argmax(axis=1)
    predicted = y_pred[np.arange(len(y_true)), likeliest]
    return predicted, (y_true == likeliest).astype(float), 1.0


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
) -> list[Ratio]:
    """Compare how many rows of a class there are with how many were expected.

    Calibration in the large (Van Calster et al., Calibration: the Achilles heel of predictive
    analytics, 2019). Of two classes only the rarer one: the other one's ratio is always close to 1.

    Args:
        y_true: (n,) class indices.
        y_pred: (n, classes) probabilities.
        confidence: That no ratio of a class is outside of its interval (Bonferroni).
        classes: Their names.

    Returns:
        An item for each class that is judged.
    """
    count = y_pred.shape[1]
    names = list(classes) or [str(number) for number in range(count)]
    judged: Sequence[int] = range(count)
    if count == 2:
        judged = [1 if (y_true == 1).mean() + y_pred[:, 1].mean() <= 1 else 0]
    tail = (1 - confidence) / 2 / len(judged)
    result = []
    for number in judged:
        observed = int((y_true == number).sum())
        expected = float(y_pred[:, number].sum())
        ratio = _ratio_interval(observed, y_pred[:, number], tail)
        result.append(
            Ratio(class_=names[number], observed=observed, expected=expected, ratio=ratio)
        )
    return result


def _ratio_interval(observed: int, predicted: Floats, tail: float) -> Interval:
    """Return observed ÷ expected with the ends of its mid-P interval (Lancaster, 1961).

    All odds are shifted by one factor until so few, or so many, rows would hardly be observed; the
    end is what would then be expected, in shares of what is.
    """
    shares = np.clip(predicted, MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    log_odds = logit(shares)
    expected = float(shares.sum())

    def at_most(shift: float) -> tuple[float, float]:
        """Return the probability of fewer rows, with half of that of as many, and their mean."""
        shifted = expit(log_odds + shift)
        mean = float(shifted.sum())
        variance = float((shifted * (1 - shifted)).sum())
        as_many = _binomial(observed, mean, variance)
        fewer = _binomial(observed - 1, mean, variance)
        return (as_many + fewer) / 2, mean

    def end(probability: float) -> float:
        low = -MAX_SHIFT
        high = MAX_SHIFT
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            reached, mean = at_most(middle)
            if reached > probability:
                low = middle
            else:
                high = middle
        return mean / expected

    value = observed / expected
    low = min(end(1 - tail), value)
    high = max(end(tail), value)
    return Interval(value=value, low=low, high=high)


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
