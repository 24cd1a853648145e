"""Simulations with known truth of what the gate says of fairness.

Rows are drawn so that the rates of each group are known, and go through the gate's own code;
nothing is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
from metrics_documents import metrics_document
from numpy.typing import NDArray

Import = Callable[[str], ModuleType]
Floats = NDArray[np.float64]
GROUPS = 20
SIZES = (40, 2_500)  # rows of the smallest and the largest of them; in between by equal factors
LIMIT = 0.1
POSITIVES = 0.3


def equal_groups_refused(module: Import, *, limit: float, trials: int, seed: int) -> float:
    """Return how often a model is refused that treats 20 groups of unequal size alike.

    By any of the limits of selection rate, true and false positive rate, calibration and error.
    """
    random = np.random.default_rng(seed)
    criteria = ["demographic_parity", "equalized_odds", "calibration", "error_rate"]
    config = _config(module, dict.fromkeys(criteria, limit))
    refused = 0
    for _ in range(trials):
        group = _unequal(random)
        chance = 1 / (1 + np.exp(1.1 - 1.2 * random.normal(size=len(group))))
        y_true = (random.random(len(group)) < chance).astype(int)
        refused += _is_refused(module, config, y_true, chance, group)
    return refused / trials


def groups_at_the_limit_refused(module: Import, *, trials: int, seed: int) -> float:
    """Return how often groups are refused whose selection rates differ by the limit, no more."""
    random = np.random.default_rng(seed)
    config = _config(module, {"demographic_parity": LIMIT})
    refused = 0
    for _ in range(trials):
        group = _unequal(random)
        rates = np.where(np.arange(GROUPS) % 2 == 0, 0.4, 0.4 + LIMIT)
        selected = random.random(len(group)) < rates[group]
        refused += _is_refused(
            module, config, np.zeros(len(group), int), selected * 0.8 + 0.1, group
        )
    return refused / trials


def unfair_model_refused(
    module: Import, *, criterion: str, beyond: float, rows: int, groups: int, trials: int, seed: int
) -> float:
    """Return how often one group is found whose rate is lower by more than the limit.

    Args:
        module: Imports a module of the template.
        criterion: `demographic_parity`, of 0.5 in the other groups, or `equal_opportunity`, of 0.8,
            where three in ten rows are positive.
        beyond: What the difference is more than the limit.
        rows: Of the group.
        groups: How many there are; each of the others has 1,000 rows.
        trials: Models.
        seed: Of the rows.
    """
    random = np.random.default_rng(seed)
    config = _config(module, {criterion: LIMIT})
    usual = 0.5 if criterion == "demographic_parity" else 0.8
    sizes = [rows] + [1_000] * (groups - 1) if groups > 2 else [rows, rows]
    group = np.repeat(np.arange(groups), sizes)
    rates = np.where(group == 0, usual - LIMIT - beyond, usual)
    refused = 0
    for _ in range(trials):
        y_true = (random.random(len(group)) < POSITIVES).astype(int)
        selected = random.random(len(group)) < rates
        refused += _is_refused(module, config, y_true, selected * 0.8 + 0.1, group)
    return refused / trials


def difference_is_covered(
    module: Import, *, rows: int, share: float, trials: int, seed: int
) -> float:
    """Return how often the interval of a difference in selection rates holds the true one, 0.1."""
    random = np.random.default_rng(seed)
    config = _config(module, {"demographic_parity": LIMIT})
    group = np.repeat([0, 1], rows)
    rates = np.where(group == 0, share, share + LIMIT)
    covered = 0
    for _ in range(trials):
        selected = random.random(2 * rows) < rates
        y_pred = _both(selected * 0.8 + 0.1)
        (part,) = _compared(module, config, np.zeros(2 * rows, int), y_pred, group)
        covered += part.difference.low <= LIMIT <= part.difference.high
    return covered / trials


def _unequal(random: np.random.Generator) -> Any:
    sizes = np.round(np.geomspace(*SIZES, GROUPS)).astype(int)
    return np.repeat(random.permutation(GROUPS), sizes)


def _both(positive: NDArray[Any]) -> Floats:
    return np.column_stack([1 - positive, positive])


def _config(module: Import, limits: dict[str, float]) -> Any:
    config = module("config")
    fairness = {"columns": ["group"], "max_difference": limits}
    gate = {"metric": "roc_auc", "thresholds": {"roc_auc": 0.5}, "fairness": fairness}
    data = {
        "source": "rows.csv",
        "target": "y",
        "task": "binary",
        "classes": ["no", "yes"],
        "split": {"by": "stratified"},
        "sensitive": ["group"],
        "columns": {
            "x": {"type": "number"},
            "group": {"type": "integer"},
            "y": {"type": "category", "categories": ["no", "yes"]},
        },
    }
    return config.Config(
        data=config.Data.model_validate(data),
        model=config.Model(),
        gate=config.Gate.model_validate(gate),
    )


def _compared(module: Import, config: Any, y_true: Any, y_pred: Floats, group: Any) -> list[Any]:
    rows = pl.DataFrame({"group": group})
    parts: list[Any] = module("pipeline.fairness").compare_groups(y_true, y_pred, rows, config)
    return parts


def _is_refused(module: Import, config: Any, y_true: Any, chance: NDArray[Any], group: Any) -> bool:
    """Return whether the gate refuses for fairness; the other metrics are made up."""
    records = module("records")
    nothing = records.Interval(value=None, low=None, high=None)
    baseline = records.Baseline(value=None, skill=nothing)
    scores = records.Scores(
        task="binary",
        metric="roc_auc",
        rows=len(group),
        metrics={"roc_auc": nothing},
        baselines=records.Baselines(constant=baseline, linear=baseline),
        slices=[],
        calibration=records.Calibration(error=0.0, bins=[]),
        curves={},
        fairness=_compared(module, config, y_true, _both(chance), group),
    )
    checks = module("pipeline.gate").fairness_checks(metrics_document(module, scores), config.gate)
    return any(check.verdict == "refused" for check in checks)
