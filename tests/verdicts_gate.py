"""Simulations with known truth of what the gate makes of predictions.

Rows and predictions are drawn from known distributions and go through the gate's own code, as
`ml evaluate` and `ml gate` would take them; nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
from metrics_documents import metrics_document
from numpy.typing import NDArray
from scipy.optimize import brentq

Import = Callable[[str], ModuleType]
Floats = NDArray[np.float64]
RARE = 0.03  # share of positives
SIGNAL = 1.2  # standard deviation of the logits
NOISE = 0.6  # standard deviation of what a model of two adds to them
SLICES = 20
SLICED_ROWS = 12_000  # 600 a slice, of which 18 are positives
LARGE = 400_000  # rows that tell the true value of a metric
LOG_ERROR = 1.0  # standard deviation of the logarithm of a skewed target, given the features


def miscalibrated_refused(
    module: Import, holdout: int, *, times: float, trials: int, seed: int
) -> float:
    """Return how often probabilities are refused that are so many times too high, or right at 1.

    Three in a hundred rows are positive. The order of the rows is the best there is, so nothing
    but calibration is wrong.
    """
    random = np.random.default_rng(seed)
    refused = 0
    for _ in range(trials):
        y_true, chance = _drawn(random, holdout, RARE)
        checks = _checks(module, y_true, _both(np.minimum(times * chance, 1 - 1e-6)), RARE)
        refused += any(
            check.verdict == "refused"
            for check in checks
            if check.id in ("calibration", "observed expected")
        )
    return refused / trials


def equal_slices_refused(module: Import, *, trials: int, seed: int) -> float:
    """Return how often a model that is equally good in 20 slices is refused for one of them."""
    random = np.random.default_rng(seed)
    refused = 0
    for _ in range(trials):
        y_true, chance = _drawn(random, SLICED_ROWS, RARE)
        part = pl.Series("part", np.arange(SLICED_ROWS) % SLICES).cast(pl.String)
        checks = _checks(module, y_true, _both(chance), RARE, part)
        (slices,) = (check for check in checks if check.id == "slice")
        refused += slices.verdict == "refused"
    return refused / trials


def intervals_cover(
    module: Import, names: list[str], *, rows: int, positives: float, trials: int, seed: int
) -> float:
    """Return how often the interval of a metric holds the true value: of several, the lowest."""
    random = np.random.default_rng(seed)
    scores = module("pipeline.metrics").SCORES
    y_true, chance = _drawn(random, LARGE, positives)
    truth = {name: scores[name](y_true, _both(chance)) for name in names}
    covered = dict.fromkeys(names, 0)
    for _ in range(trials):
        y_true, chance = _drawn(random, rows, positives)
        metrics = _judged(module, y_true, _both(chance), positives).metrics
        for name in names:
            covered[name] += metrics[name].low <= truth[name] <= metrics[name].high
    return min(covered.values()) / trials


def skill_interval_covers(
    module: Import, *, rows: int, positives: float, trials: int, seed: int
) -> float:
    """Return how often the interval of one model's skill over another, equally good one holds 0.

    Each sees the logits through noise of its own.
    """
    random = np.random.default_rng(seed)
    gate = module("config").Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
    covered = 0
    for _ in range(trials):
        y_true, chance = _drawn(random, rows, positives)
        logit = np.log(chance / (1 - chance))
        ours, theirs = (
            _both(1 / (1 + np.exp(-logit - random.normal(0, NOISE, rows)))) for _ in range(2)
        )
        resampler = module("pipeline.resampling").Resampler(y_true, "roc_auc", 2, gate)
        skill = resampler.skill(ours, theirs).interval(gate.confidence)
        covered += skill["low"] <= 0 <= skill["high"]
    return covered / trials


def rmse_interval_covers(
    module: Import, *, rows: int, trials: int, seed: int, skewed: bool = True
) -> float:
    """Return how often the interval of RMSE holds the true value.

    The target is lognormal given the features, or normal, and the prediction is its mean.
    """
    random = np.random.default_rng(seed)
    variance = LOG_ERROR**2
    truth = 1.0
    if skewed:
        # E[exp(2x)] of x with standard deviation 1/2, times the variance of the lognormal.
        truth = float(np.sqrt(np.exp(0.5) * (np.exp(variance) - 1) * np.exp(variance)))
    covered = 0
    for _ in range(trials):
        x = random.normal(0, 0.5, rows)
        error = random.normal(0, LOG_ERROR, rows)
        y_true = np.exp(x + error) if skewed else x + error
        y_pred = np.exp(x + variance / 2) if skewed else x
        rmse = _judged(module, y_true, y_pred, None)["metrics"]["rmse"]
        covered += rmse["low"] <= truth <= rmse["high"]
    return covered / trials


def _drawn(random: np.random.Generator, rows: int, share: float) -> tuple[Any, Floats]:
    """Draw classes and their true probabilities, of which the mean is the share."""
    logit = _intercept(share) + SIGNAL * random.normal(size=rows)
    chance = 1 / (1 + np.exp(-logit))
    return (random.random(rows) < chance).astype(np.int64), chance


@cache
def _intercept(share: float) -> float:
    """Return the logit at which the mean probability is the share, by integrating over normals."""
    points, weights = np.polynomial.hermite_e.hermegauss(60)

    def excess(intercept: float) -> float:
        chance = 1 / (1 + np.exp(-intercept - SIGNAL * points))
        return float(chance @ weights / weights.sum()) - share

    return float(brentq(excess, -20, 20))


def _both(positive: Floats) -> Floats:
    return np.column_stack([1 - positive, positive])


def _judged(
    module: Import, y_true: Any, y_pred: Floats, share: float | None, part: pl.Series | None = None
) -> Any:
    """Return what `metrics.json` says; baselines are the constant, twice."""
    config = module("config")
    rows = len(y_true)
    task = "regression" if share is None else "binary"
    table = pl.DataFrame({"x": np.zeros(rows)})
    columns: dict[str, Any] = {"x": {"type": "number"}}
    if part is not None:
        table = table.with_columns(part)
        columns["part"] = {"type": "category", "categories": sorted(part.unique())}
    if share is None:
        columns["y"] = {"type": "number"}
        constant = np.full(rows, float(np.mean(y_true)))
    else:
        columns["y"] = {"type": "category", "categories": ["no", "yes"]}
        constant = _both(np.full(rows, share))
    data = config.Data.model_validate(
        {
            "source": "rows.csv",
            "target": "y",
            "task": task,
            "classes": [] if share is None else ["no", "yes"],
            "split": {"by": "stratified"},
            "columns": columns,
        }
    )
    metric = "rmse" if share is None else "roc_auc"
    gate = config.Gate(metric=metric, thresholds={metric: 0.5})
    whole = config.Config(data=data, model=config.Model(), gate=gate)
    others = {"constant": constant, "linear": constant}
    return module("pipeline.evaluate").judge(y_true, y_pred, others, table, whole)


def _checks(
    module: Import, y_true: Any, y_pred: Floats, share: float, part: pl.Series | None = None
) -> list[Any]:
    """Return the checks of the gate."""
    document = metrics_document(module, _judged(module, y_true, y_pred, share, part))
    gate = module("config").Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
    checks: list[Any] = module("pipeline.gate").decide(document, gate)
    return checks
