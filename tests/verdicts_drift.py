"""Simulations with known truth of drift: a shift in a number, and many equal categories."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import numpy as np
import polars as pl

Import = Callable[[str], ModuleType]
REFERENCE_ROWS = 5_000
WINDOW_ROWS = 500
WINDOWS = 5
COLUMNS = 12
SHOPS = 300
LISTED = 200  # categories that a contract lists
WINDOWS_OF_SHOPS = 8  # of each champion


def number_shift(module: Import, size: float, trials: int, seed: int) -> float:
    """Return how often at least 2 of 5 windows have a sign where one of 12 numbers has shifted.

    Args:
        module: Imports a module of a project's package by its name.
        size: By which the mean of that column moves, in standard deviations.
        trials: References, each with five windows.
        seed: Of all that is drawn.
    """
    drift = module("monitoring.drift")
    package = module("pipeline.training_profile")
    settings = module("config.drift").Drift()
    random = np.random.default_rng(seed)
    names = [f"x{number}" for number in range(COLUMNS)]
    alarms = 0
    for _ in range(trials):
        trained = pl.DataFrame(random.normal(size=(REFERENCE_ROWS, COLUMNS)), schema=names)
        references = {
            column.name: drift.Reference(package.summary(column), REFERENCE_ROWS)
            for column in trained.get_columns()
        }
        signs = 0
        for _ in range(WINDOWS):
            values = random.normal(size=(WINDOW_ROWS, COLUMNS))
            values[:, 0] += size
            findings = drift.judge(pl.DataFrame(values, schema=names), references, settings)
            signs += any(finding["verdict"] == "drift" for finding in findings.values())
        alarms += signs >= 2
    return alarms / trials


def equal_shops(module: Import, rows: int, trials: int, seed: int) -> float:
    """Return the share of windows with a sign, of 300 shops that stay equally frequent.

    The contract lists the 200 that were most frequent in the rows, as `ml data use` does.

    Args:
        module: Imports a module of a project's package by its name.
        rows: In the source; a fifth is the holdout.
        trials: Champions, each with eight windows.
        seed: Of all that is drawn.
    """
    drift = module("monitoring.drift")
    package = module("pipeline.training_profile")
    config = module("config")
    settings = module("config.drift").Drift()
    random = np.random.default_rng(seed)
    names = np.array([f"shop {number:03}" for number in range(SHOPS)])
    predictions = pl.DataFrame({"given": [[0.5, 0.5]]}, schema={"given": pl.Array(pl.Float64, 2)})
    signs = 0
    for _ in range(trials):
        source = pl.DataFrame({"shop": random.choice(names, rows), "y": ["no"] * rows})
        counts = source["shop"].value_counts().sort(-pl.col("count").cast(pl.Int64), "shop")
        listed = sorted(counts["shop"].head(LISTED))
        data = config.Data.model_validate(
            {
                "source": "rows.csv",
                "target": "y",
                "task": "binary",
                "classes": ["no", "yes"],
                "split": {"by": "stratified"},
                "columns": {
                    "shop": {"type": "category", "categories": listed, "allow_unknown": True},
                    "y": {"type": "category", "categories": ["no", "yes"]},
                },
            }
        )
        held = rows // 5
        profile = package.profile(source[held:], predictions, data, source[:held])
        references = {"shop": drift.Reference(profile["columns"]["shop"], profile["rows"])}
        for _ in range(WINDOWS_OF_SHOPS):
            window = pl.DataFrame({"shop": random.choice(names, WINDOW_ROWS)})
            findings = drift.judge(window, references, settings)
            signs += findings["shop"]["verdict"] == "drift"
    return signs / (trials * WINDOWS_OF_SHOPS)
