"""Simulations with known truth of what monitoring decides, a function for each row of a table.

Each takes modules of a project's package, trials and a seed, and returns a share of the trials.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import norm

ROWS = 5_000  # of a reference
WINDOW = 500  # rows
COLUMNS = 12


def category_shift(
    drift: ModuleType,
    package: ModuleType,
    settings: Any,
    size: float,
    shares: list[float],
    trials: int,
    seed: int,
) -> float:
    """Return how often at least 2 of 5 windows have a sign in the category that has shifted.

    The category is a normal variable cut at quantiles, whose mean moves by `size` standard
    deviations; eleven columns beside it do not change.
    """
    random = np.random.default_rng(seed)
    edges = norm.ppf(np.cumsum(shares)[:-1])
    names = np.array([f"category {k}" for k in range(len(shares))])
    still = {f"x{k}": drift.Reference({"gaps": 0.0, "percentiles": [0.0] * 101}, ROWS)
             for k in range(COLUMNS - 1)}  # fmt: skip
    alarms = 0
    for _ in range(trials):
        trained = pl.Series(names[np.searchsorted(edges, random.normal(size=ROWS))])
        references = still | {"category": drift.Reference(package.summary(trained), ROWS)}
        signs = 0
        for _ in range(5):
            values = names[np.searchsorted(edges, random.normal(size, 1.0, WINDOW))]
            window = pl.DataFrame({"category": values} | dict.fromkeys(still, 0.0))
            found = drift.judge(window, references, settings)
            signs += any(finding["verdict"] == "drift" for finding in found.values())
        alarms += signs >= 2
    return alarms / trials


def predictions(
    random: np.random.Generator, rows: int, *, change: str | None = None
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Draw outcomes of 25 % positives, and the probabilities of a calibrated model (ROC AUC 0.75).

    Args:
        random: Draws them.
        rows: How many.
        change: None; `logit`: probabilities are one logit too high; `worthless`: they have nothing
            to do with the outcome.
    """
    logit = random.normal(-1.25, 1.0, rows)
    y_true = (random.random(rows) < 1 / (1 + np.exp(-logit))).astype(np.int64)
    if change == "worthless":
        logit = random.permutation(logit)
    if change == "logit":
        logit = logit + 1
    positive = 1 / (1 + np.exp(-logit))
    return y_true, np.column_stack([1 - positive, positive])


def performance_alarm(
    module: Any,
    holdout: int,
    windows: int,
    trials: int,
    seed: int,
    *,
    change: str | None = None,
    labels: int = WINDOW,
) -> float:
    """Return how often performance alarms in a number of windows that are labelled.

    Args:
        module: Imports a module of a project's package by its name.
        holdout: Rows.
        windows: How many are judged, one after the other.
        trials: How many champions are monitored.
        seed: Of all that is drawn.
        change: As `predictions` takes it; after the holdout.
        labels: Of each window.
    """
    metrics, config, settings = map(module, ("pipeline.metrics", "config", "settings"))
    monitoring, performance = module("monitoring"), module("monitoring.performance")
    random = np.random.default_rng(seed)
    gate = config.Gate(metric="roc_auc", thresholds={"roc_auc": 0.6})
    data = config.Data.model_validate(
        {
            "source": "rows.csv",
            "target": "y",
            "task": "binary",
            "classes": ["no", "yes"],
            "split": {"by": "stratified"},
            "columns": {
                "x": {"type": "number"},
                "y": {"type": "category", "categories": ["no", "yes"]},
            },
        }
    )
    names = ("roc_auc", "log_loss")
    alarms = 0
    for _ in range(trials):
        y_true, y_pred = predictions(random, holdout)

        def values(index: Any, y_true: Any = y_true, y_pred: Any = y_pred) -> list[float]:
            return [float(metrics.SCORES[name](y_true[index], y_pred[index])) for name in names]

        known = performance.expected(
            {
                "task": "binary",
                "metric": "roc_auc",
                "rows": holdout,
                "metrics": dict(zip(names, metrics.bootstrap(values, holdout, gate), strict=True)),
                "calibration": metrics.calibration(y_true, y_pred),
            }
        )
        outcomes: list[dict[str, Any]] = []
        for number in range(windows):
            y_true, y_pred = predictions(random, labels, change=change)
            rows = pl.DataFrame(
                {
                    "truth": pl.Series(np.array(data.classes)[y_true], dtype=pl.Enum(data.classes)),
                    "p:no": y_pred[:, 0],
                    "p:yes": y_pred[:, 1],
                    "score": y_pred[:, 1],
                }
            )
            judged = performance.judge(rows, y_pred[:, 1], known, data, gate, settings.Drift())
            outcomes.append({"arrived": f"{number:06}", "signs": {"performance": judged["signs"]}})
            if monitoring.updated({}, [], outcomes, 0.0, settings.Drift()):
                alarms += 1
                break
    return alarms / trials
