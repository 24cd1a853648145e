"""Simulations with known truth: how often `ml tune` takes over params that are no better.

Rows are drawn from a linear model whose weights are drawn, too, so the best penalty of a ridge
regression is known: the variance of the noise ÷ that of the weights (Hoerl and Kennard, 1970). It
is the present one where nothing better is to be found, and far from it where something is.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import polars as pl

Module = Callable[[str], ModuleType]
COLUMNS = 20
NOISE = 1.0  # standard deviation; that of the weights is 1 ÷ the root of the columns
PENALTY = NOISE**2 * COLUMNS  # the best
TRIALS = 30  # of a search
LARGE = 20_000  # rows that tell the truth


class Tuned(NamedTuple):
    """What a search came to."""

    replaced: bool
    skill: float  # of the best params over the present ones, on rows that tell the truth


def replaced_without_need(
    module: Module, *, rows: int, searches: int, trials: int, seed: int
) -> float:
    """Return how often params are replaced although the present ones are the best.

    Args:
        module: Imports a module of the runtime.
        rows: Training rows.
        searches: One after the other on the same rows, each with twice the trials of the last.
        trials: Repetitions of the simulation.
        seed: Of the rows.
    """
    return float(
        np.mean(
            [
                any(tuned.replaced for tuned in _searches(module, PENALTY, rows, searches, draw))
                for draw in np.random.default_rng(seed).spawn(trials)
            ]
        )
    )


def noise_replaced(module: Module, *, rows: int, trials: int, seed: int) -> float:
    """Return how often params are replaced where the target has nothing to do with the columns."""
    replaced = []
    for draw in np.random.default_rng(seed).spawn(trials):
        table = _rows(rows, draw.normal(size=COLUMNS), draw)
        labels = np.where(draw.random(rows) < 0.5, "yes", "no")
        table = table.with_columns(y=pl.Series(labels))
        space: dict[tuple[str, ...], Any] = {
            ("min_samples_leaf",): [1, 2, 3, 5, 8, 12, 20],
            ("max_features",): [0.1, 0.5, 1.0],
        }
        params = {"n_estimators": 10, "min_samples_leaf": 3, "max_features": 0.5}
        config = _config(module, "binary", "forest", params)
        replaced.append(_search(module, config, table, space, TRIALS, _storage()).replaced)
    return float(np.mean(replaced))


def gain_found(
    module: Module, *, rows: int, times: float, trials: int, seed: int
) -> tuple[float, float]:
    """Return how often a penalty that is so many times too large is replaced, and what it gains.

    The gain is the share of what the best penalty would gain, on rows that tell the truth.
    """
    replaced = []
    shares = []
    for draw in np.random.default_rng(seed).spawn(trials):
        weights = draw.normal(size=COLUMNS) / COLUMNS**0.5
        table = _rows(rows, weights, draw)
        truth = _rows(LARGE, weights, draw)
        present = PENALTY * times
        config = _config(module, "regression", "linear", {"alpha": present})
        storage = _storage()
        tuned = _search(module, config, table, _space(), TRIALS, storage, truth)
        ideal = _true_skill(module, config, {"alpha": PENALTY}, table, truth)
        replaced.append(tuned.replaced)
        shares.append(tuned.skill / ideal if tuned.replaced else 0.0)
    return float(np.mean(replaced)), float(np.mean(shares))


def _searches(
    module: Module, penalty: float, rows: int, searches: int, draw: np.random.Generator
) -> list[Tuned]:
    weights = draw.normal(size=COLUMNS) / COLUMNS**0.5
    table = _rows(rows, weights, draw)
    config = _config(module, "regression", "linear", {"alpha": penalty})
    storage = _storage()
    return [
        _search(module, config, table, _space(), TRIALS * 2**turn, storage)
        for turn in range(searches)
    ]


def _space() -> dict[tuple[str, ...], Any]:
    from rung_runtime.config.tune import Range

    return {("alpha",): Range(low=PENALTY / 1_000, high=PENALTY * 1_000, log=True)}


def _storage() -> Any:
    from optuna.logging import ERROR, set_verbosity
    from optuna.storages import InMemoryStorage

    set_verbosity(ERROR)
    return InMemoryStorage()


def _search(
    module: Module,
    config: Any,
    train: pl.DataFrame,
    space: dict[tuple[str, ...], Any],
    trials: int,
    storage: Any,
    truth: pl.DataFrame | None = None,
) -> Tuned:
    """Search and judge as `ml tune` does, in this process."""
    search = module("tuning.search")
    command = module("tuning.command")
    parts = module("tuning.judgement").divide(train, config.data, LARGE)
    folds = module("tuning.folds").Folds.of_rows(parts.searched, config)
    study = module("tuning.study").Study(storage, folds, space)
    study.store(command.KEPT_BACK, "the same")
    result = search.Search(study, search.Budget(trials, 1_000.0), 1, lambda _: None).run()
    if result.best is None:
        return Tuned(False, 0.0)
    judgement = command.judge_once(study, parts, config, result.best)
    skill = 0.0
    if truth is not None:
        skill = _true_skill(module, config, result.best.model.params, train, truth)
    return Tuned(judgement.is_better, skill)


def _true_skill(
    module: Module, config: Any, params: dict[str, Any], train: pl.DataFrame, truth: pl.DataFrame
) -> float:
    """Return the skill of params over the present ones, trained on all training rows."""
    data = config.data
    metrics = module("pipeline.metrics")
    y_true = module("pipeline.ingest").labels(truth, data)
    rmse = []
    for model in (config.model.model_copy(update={"params": params}), config.model):
        fitted = module("pipeline.train").fit(train, data, model)
        y_pred = module("model_package").predict(
            fitted, truth, data, module("problem.features").features
        )
        rmse.append(metrics.score("rmse", y_true, y_pred))
    return float(1 - rmse[0] / rmse[1])


def _rows(rows: int, weights: Any, draw: np.random.Generator) -> pl.DataFrame:
    x = draw.normal(size=(rows, COLUMNS))
    y = x @ weights + NOISE * draw.normal(size=rows)
    names = [f"x{number}" for number in range(COLUMNS)]
    return pl.DataFrame(x, schema=names).with_columns(y=pl.Series(y))


def _config(module: Module, task: str, estimator: str, params: dict[str, Any]) -> Any:
    config = module("config")
    is_binary = task == "binary"
    classes = ["no", "yes"] if is_binary else []
    columns = {f"x{number}": config.Column(type="number") for number in range(COLUMNS)}
    target = config.Column(type="category" if is_binary else "number", categories=classes)
    data = config.Data(
        source="data/raw/simulated.csv",
        target="y",
        task=task,
        classes=classes,
        split=config.Split(by="stratified"),
        columns=columns | {"y": target},
    )
    metric = "roc_auc" if is_binary else "rmse"
    return config.Config(
        data=data,
        model=config.Model(estimator=estimator, params=params),
        gate=config.Gate(metric=metric, thresholds={metric: 0.0}),
    )
