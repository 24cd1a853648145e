"""Rates of right and wrong verdicts, by simulation with known truth.

Each function is one row of the table of `make bench ONLY=verdicts`. All draw rows, let the template
choose recipe and gate as `ml data use` does, train, and ask the gate; what differs is what is
wrong with the rows. None knows more of the template than what its own steps call.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
from metrics_documents import metrics_document

Import = Callable[[str], ModuleType]  # the fixture `module` of conftest.py
COLUMNS = [f"x{number}" for number in range(10)]
# Of the ten columns, three carry most of the signal and two carry none.
WEIGHTS = np.array([1.0, 0.9, 0.8, 0.5, 0.4, 0.4, 0.3, 0.3, 0.0, 0.0])
HOLDOUT = 0.2


@dataclass(frozen=True)
class Trial:
    """One simulated table, and what the template made of it."""

    data: Any
    gate: Any
    recipe: Any
    train: pl.DataFrame
    holdout: pl.DataFrame


def draw_rows(task: str, rows: int, random: np.random.Generator) -> pl.DataFrame:
    """Draw ten normal columns and a target `y` that depends on eight of them.

    Binary: logistic, ROC AUC about 0.80 at best. Multiclass: three classes by the same score.
    Regression: r² about 0.5 at best.
    """
    x = random.normal(size=(rows, len(WEIGHTS)))
    score = x @ WEIGHTS
    if task == "regression":
        y = pl.Series(score + random.normal(size=rows) * np.linalg.norm(WEIGHTS))
    elif task == "binary":
        chance = 1 / (1 + np.exp(-0.8 * score))
        y = pl.Series(np.where(random.random(rows) < chance, "yes", "no"))
    else:
        noisy = score + random.normal(size=rows)
        y = pl.Series(np.array(["a", "b", "c"])[np.digitize(noisy, [-0.8, 0.8])])
    return pl.DataFrame(x, schema=COLUMNS).with_columns(y=y)


def contract(task: str, module: Import) -> Any:
    """Return the contract of `draw_rows`."""
    config = module("config")
    classes = {"binary": ["no", "yes"], "multiclass": ["a", "b", "c"], "regression": []}[task]
    kind = "number" if task == "regression" else "category"
    columns = {name: config.Column(type="number") for name in COLUMNS}
    return config.Data(
        source="data/raw/simulated.csv",
        target="y",
        task=task,
        classes=classes,
        split=config.Split(by="stratified", holdout=HOLDOUT),
        columns=columns | {"y": config.Column(type=kind, categories=classes)},
    )


def choose(rows: pl.DataFrame, task: str, module: Import) -> Trial:
    """Let the template choose recipe and gate for rows, and split them."""
    data = contract(task, module)
    recipe, gate, _ = module("contract.choose").first_gate(rows, data)
    train, holdout = module("pipeline.split").split(rows, data)
    return Trial(data, gate, recipe, train, holdout)


def refusals(trial: Trial, train: pl.DataFrame, holdout: pl.DataFrame, module: Import) -> list[str]:
    """Train the recipe on `train`; return the checks that refuse it on `holdout`."""
    config = module("config").Config(data=trial.data, model=trial.recipe, gate=trial.gate)
    fitted = module("pipeline.train").fit(train, trial.data, trial.recipe)
    features = module("problem.features").features
    y_true = module("pipeline.ingest").labels(holdout, trial.data)
    y_pred = module("model_package").predict(fitted, holdout, trial.data, features)
    others = module("pipeline.baselines").baseline_predictions(train, holdout, trial.data)
    scores = module("pipeline.evaluate").judge(y_true, y_pred, others, holdout, config)
    checks = module("pipeline.gate").decide(metrics_document(module, scores), trial.gate)
    return [check.check for check in checks if check.verdict == "refused"]


def _rate(verdict: Callable[[np.random.Generator], bool], trials: int, seed: int) -> float:
    """Return the share of trials in which the verdict is true."""
    generators = np.random.default_rng(seed).spawn(trials)
    return sum(map(verdict, generators)) / trials


def good_model_refused(
    module: Import, holdout: int, *, task: str = "binary", trials: int = 100, seed: int = 0
) -> float:
    """Return how often a model that is what it seems is refused, by any check."""

    def refused(random: np.random.Generator) -> bool:
        trial = choose(draw_rows(task, round(holdout / HOLDOUT), random), task, module)
        return bool(refusals(trial, trial.train, trial.holdout, module))

    return _rate(refused, trials, seed)


def shuffled_labels_accepted(
    module: Import, holdout: int, *, task: str = "binary", trials: int = 100, seed: int = 0
) -> float:
    """Return how often rows whose target has nothing to do with the columns are accepted."""

    def accepted(random: np.random.Generator) -> bool:
        rows = draw_rows(task, round(holdout / HOLDOUT), random)
        rows = rows.with_columns(y=rows["y"][random.permutation(rows.height)])
        trial = choose(rows, task, module)
        return not refusals(trial, trial.train, trial.holdout, module)

    return _rate(accepted, trials, seed)


def best_columns_destroyed_accepted(
    module: Import, holdout: int, *, task: str = "binary", trials: int = 100, seed: int = 0
) -> float:
    """Return how often a retraining passes the old gate after three columns became noise."""

    def accepted(random: np.random.Generator) -> bool:
        trial = choose(draw_rows(task, round(holdout / HOLDOUT), random), task, module)
        parts = [
            part.with_columns(
                part[name].gather(random.permutation(part.height)) for name in COLUMNS[:3]
            )
            for part in (trial.train, trial.holdout)
        ]
        return not refusals(trial, parts[0], parts[1], module)

    return _rate(accepted, trials, seed)
