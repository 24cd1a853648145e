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
