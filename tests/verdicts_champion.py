"""Simulations with known truth: how often the rule against the champion is wrong.

Each function plays the template's own comparison and gate on drawn rows, and returns a rate. The
recipes are logistic regressions that see the signal through more or less noise, so that their true
skill over each other can be set, and is measured on rows that nobody is judged by.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

Module = Callable[[str], ModuleType]
SEED = 20_261_126
COLUMNS = 6
LARGE = 40_000  # rows that tell the truth
STEPS = 6  # challengers in a row, of `creep`


def skill_lost(module: Module, lost: float, seed: int) -> float:
    """Return how much noise makes a recipe lose so much skill, by bisection on `LARGE` rows."""
    low = 0.0
    high = 4.0
    sharp = _truth(module, 0.0, seed)
    for _ in range(12):
        noise = (low + high) / 2
        value = _truth(module, noise, seed)
        skill = (value - sharp) / (1 - sharp)
        low, high = (noise, high) if skill > -lost else (low, noise)
    return (low + high) / 2


def accepted(
    module: Module, *, better: float, holdout: int, trials: int, seed: int = SEED
) -> float:
    """Return how often a challenger passes that has so much skill over the champion.

    Args:
        module: Imports a module of the template.
        better: Its true skill over the champion; negative if it is worse.
        holdout: Rows held out: a fifth.
        trials: Comparisons.
        seed: Of the rows.
    """
    noise = skill_lost(module, abs(better), seed)
    ours, theirs = (0.0, noise) if better > 0 else (noise, 0.0)
    passed = 0
    for trial in range(trials):
        draw = np.random.default_rng([seed, trial])
        train = _rows(draw, 4 * holdout)
        held = _rows(draw, holdout)
        passed += _passes(module, train, held, ours, theirs)
    return passed / trials


def creep(module: Module, *, rows: int, trials: int, seed: int = SEED) -> float:
    """Return the mean skill lost after six challengers, each worse than the champion by 0.02."""
    losses = []
    noises = [0.0] + [skill_lost(module, 0.02 * step, seed) for step in range(1, 2 * STEPS)]
    for trial in range(trials):
        champion = best = 0  # steps away from the first recipe
        for turn in range(STEPS):
            draw = np.random.default_rng([seed, trial, turn])
            train = _rows(draw, rows * 4 // 5)
            held = _rows(draw, rows // 5)
            challenger = champion + 1
            over = _compared(module, train, held, noises[challenger], noises[champion])
            anchored = over
            if best != champion:
                anchored = _compared(module, train, held, noises[challenger], noises[best])
                best_comparison = module("records").BestComparison(
                    champion=champion_of(module, "best"),
                    skill=anchored.skill,
                    recipes=anchored.recipes,
                    unseen=anchored.unseen,
                )
                over = over.model_copy(update={"best": best_comparison})
            if not _refused(module, over):
                better = module("pipeline.compare").evidence(anchored).value >= 0
                champion = challenger
                best = challenger if better else best
        losses.append(-0.02 * champion)
    return float(np.mean(losses))


def _rows(draw: Any, n: int) -> pl.DataFrame:
    values = draw.normal(size=(n, COLUMNS))
    logit = values @ np.linspace(1.2, 0.2, COLUMNS)
    noise = draw.normal(size=n)
    table = {f"x{k}": values[:, k] for k in range(COLUMNS)} | {"noise": noise}
    return pl.DataFrame(table | {"y": draw.random(n) < 1 / (1 + np.exp(-logit))})


def _features(noise: float) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """See the strongest column through noise."""
    return lambda rows: rows.with_columns(x0=pl.col("x0") + noise * pl.col("noise")).drop("noise")


def _data(module: Module) -> Any:
    names = [*(f"x{k}" for k in range(COLUMNS)), "noise"]
    columns = {name: {"type": "number"} for name in names} | {"y": {"type": "boolean"}}
    return module("config").Data.model_validate(
        {
            "source": "x.csv",
            "target": "y",
            "task": "binary",
            "classes": ["false", "true"],
            "split": {"by": "stratified"},
            "columns": columns,
        }
    )


def _fitted(module: Module, rows: pl.DataFrame, noise: float) -> Any:
    model = module("problem.model")
    data = _data(module)
    x = _features(noise)(module("pipeline.ingest").inputs(rows, data))
    return model.linear("binary", x).fit(x, module("pipeline.ingest").labels(rows, data))


def _truth(module: Module, noise: float, seed: int) -> float:
    draw = np.random.default_rng([seed, 99])
    train = _rows(draw, LARGE)
    large = _rows(draw, LARGE)
    fitted = _fitted(module, train, noise)
    data = _data(module)
    y_pred = module("model_package").predict(fitted, large, data, _features(noise))
    metrics = module("pipeline.metrics")
    return float(metrics.SCORES["roc_auc"](module("pipeline.ingest").labels(large, data), y_pred))


def _compared(
    module: Module, train: pl.DataFrame, held: pl.DataFrame, ours: float, theirs: float
) -> Any:
    compare = module("pipeline.compare")
    data = _data(module)
    config = module("config")
    gate = config.Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
    whole = config.Config(data=data, model=config.Model(), gate=gate)
    settings = module("config.delivery").Delivery()
    recipe = module("pipeline.recipes").Recipe
    fitted = _fitted(module, train, ours)
    y_pred = module("model_package").predict(fitted, held, data, _features(ours))
    challenger = compare.Challenger(train, held, y_pred, recipe(fitted, _features(ours), data))
    model = module("model_package").Model(
        {},
        data,
        data.for_predicting(),
        lambda: _fitted(module, train, theirs),
        _features(theirs),
        _rules,
    )
    rival = compare.Rival(champion_of(module), model, np.ones(held.height, bool))
    return compare.compare(challenger, rival, whole, settings)


def champion_of(module: Module, version: str = "champion") -> Any:
    """Return what documents call a version."""
    digest = f"sha256:{'0' * 64}"
    return module("records").Champion(version=version, package_digest=digest, model_digest=digest)


def _rules(_: Any) -> dict[str, Any]:
    return {}


def _refused(module: Module, comparison: Any) -> bool:
    checks = module("pipeline.gate").champion_checks(comparison)
    return any(check.verdict == "refused" for check in checks)


def _passes(
    module: Module, train: pl.DataFrame, held: pl.DataFrame, ours: float, theirs: float
) -> bool:
    return not _refused(module, _compared(module, train, held, ours, theirs))
