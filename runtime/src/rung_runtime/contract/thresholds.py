"""Thresholds of the gate that an honest retraining meets, and the power of a comparison."""

from collections.abc import Callable

import numpy as np
import polars as pl
from scipy.stats import norm

from ..config import HIGHER_IS_BETTER, Data, Gate
from ..pipeline.cross_validation import Indices
from ..pipeline.intervals import expanded_tail
from ..pipeline.metrics import SCORES, Floats
from ..pipeline.resampling import Resampler

HoldoutSampler = Callable[[np.random.Generator], Indices]

DRAWS = 1_000
# Of models that are as good as the cross-validated one, the share that the thresholds refuse.
REFUSED_SHARE = 0.02
# The share of the gain over a constant that is left to the luck of a seed, and to errors too rare
# to be among the rows.
SLACK = 0.03
CHALLENGER_SKILL = 0.02  # of the challenger whose acceptance `power` computes
TOLERANCE = 0.05  # the default of config/delivery.yaml


def holdout_sampler(
    rows: pl.DataFrame, fold_sizes: list[int], holdout_rows: int, data: Data
) -> HoldoutSampler:
    """Return what draws indices as a holdout would: rows, whole groups, or blocks of time.

    As many rows are drawn as give the variance of a holdout *and* of the rows drawn from, so
    that 1/m = 1/holdout + 1/n. Blocks keep what neighbours in time have in common (Künsch, 1989).

    Args:
        rows: (n,) the predicted rows, fold after fold.
        fold_sizes: How many rows each fold has.
        holdout_rows: How many rows the holdout has.
        data: The contract, with the kind of the split.
    """
    n = rows.height
    m = max(1, round(1 / (1 / holdout_rows + 1 / n)))
    column = data.split.column
    if data.split.by == "group" and column is not None:
        groups = rows[column].rank("dense").fill_null(0).to_numpy()
        order = np.argsort(groups, kind="stable")
        units = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1)
    elif data.split.by == "time" and column is not None:
        order = rows[column].arg_sort().to_numpy()
        units = np.array_split(order, max(1, round(10 * n / m)))
    else:
        return lambda random: random.integers(0, n, m)
    count = max(1, round(m * len(units) / n))

    def draw(random: np.random.Generator) -> Indices:
        return np.concatenate([units[unit] for unit in random.integers(0, len(units), count)])

    return draw


def thresholds(
    metrics: list[str],
    y_true: Floats,
    y_pred: Floats,
    constant: Floats,
    draw_holdout: HoldoutSampler,
) -> dict[str, float]:
    """Return the bound of each metric that a retrained model of the same worth meets.

    Together the bounds refuse a share of `REFUSED_SHARE` of such models: each is the same quantile
    of its metric over samples of a holdout's size, chosen so that the share holds for all at once.
    No bound is weaker than the value of a constant.

    Args:
        metrics: Their names.
        y_true: (n,) class indices or values.
        y_pred: (n, classes) or (n,), out of fold.
        constant: The predictions of the best constant, of the same shape.
        draw_holdout: Draws indices of rows as a holdout would.
    """
    random = np.random.default_rng(0)
    signs = np.array([1.0 if metric in HIGHER_IS_BETTER else -1.0 for metric in metrics])
    holdouts = [draw_holdout(random) for _ in range(DRAWS)]
    values = np.array(
        [[SCORES[metric](y_true[i], y_pred[i]) for metric in metrics] for i in holdouts]
    )
    values = np.where(np.isfinite(values), values, np.nan) * signs
    worst_ranks = np.argsort(np.argsort(values, axis=0), axis=0).min(axis=1)
    tail = (np.quantile(worst_ranks, REFUSED_SHARE) + 0.5) / DRAWS
    tail = expanded_tail(tail, _rarest_class_rows(y_true, y_pred, len(holdouts[0])))
    bounds = {}
    for index, metric in enumerate(metrics):
        sign = signs[index]
        value = sign * float(SCORES[metric](y_true, y_pred))
        floor = sign * float(SCORES[metric](y_true, constant))
        bound = float(np.nanquantile(values[:, index], tail))
        bound = round_down(min(bound, value - SLACK * (value - floor)))
        lowest = -round_down(-floor)  # rounded up, so that a constant never meets it by rounding
        bounds[metric] = float(sign * max(bound, lowest))
    return bounds


def power(
    y_pred: Floats, rival: Floats, y_true: Floats, rows: int, metric: str, data: Data
) -> float:
    """Return how often a challenger with `CHALLENGER_SKILL` is accepted (normal approximation).

    It is accepted if the lower end of its skill over the champion is not below −`TOLERANCE`, out
    of fold on so many rows. How much a skill varies is taken from one candidate over another.

    Args:
        y_pred: (n, classes) or (n,), out of fold, of the chosen candidate.
        rival: The predictions of another candidate, of the same shape.
        y_true: (n,) class indices or values.
        rows: How many rows a comparison will have.
        metric: Of the skill.
        data: The contract.
    """
    gate = Gate(metric=metric, thresholds={metric: 0.0})
    resampler = Resampler(y_true, metric, len(data.classes), gate)
    deviations = resampler.skill(y_pred, rival).deviations
    error = float(np.nanstd(deviations)) * (len(y_true) / rows) ** 0.5
    margin = (CHALLENGER_SKILL + TOLERANCE) / max(error, 1e-12)
    return float(norm.cdf(margin - norm.ppf(0.975)))


def round_down(value: float) -> float:
    """Return three significant digits, never more than the value: 0.9996 is not 1."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (np.floor(np.log10(abs(value))) - 2)
    return float(f"{np.floor(value / unit) * unit:.12g}")


def _rarest_class_rows(y_true: Floats, y_pred: Floats, rows: int) -> int:
    """Return how many of so many rows are of the rarest class; all of them in a regression."""
    if y_pred.ndim == 1:
        return rows
    counts = np.bincount(y_true.astype(int), minlength=y_pred.shape[1])
    return int(rows * counts[counts > 0].min() / len(y_true))
