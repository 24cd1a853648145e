"""Simulations of shadow and watch with known truth: how often they are wrong.

The functions take the project's modules, so that the project's own code decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

Floats = NDArray[np.float64]
REQUESTS_PER_SECOND = 100
TRAINING_ROWS = 1_000
LOGGED_ROWS = 500
FEATURES = 8
# Candidates that do the champion's job, and those that do not.
GOOD = ("same recipe, new rows", "another seed", "another estimator", "base rate 10 -> 13 %")
BAD = ("reversed", "constant", "predictions of other rows", "trained on shuffled labels")


def failing_watches(
    watch: ModuleType, error_rate: float, limit: float, seconds: int, trials: int, seed: int
) -> tuple[float, float]:
    """Watch a service with a known error rate at 100 requests a second, with a look a second.

    Returns:
        The share of trials that are rolled back, and the mean number of requests it took.
    """
    rng = np.random.default_rng(seed)
    rolled_back = []
    for _ in range(trials):
        test = watch.FailureTest(limit)
        for errors in rng.binomial(REQUESTS_PER_SECOND, error_rate, size=seconds):
            test.add(REQUESTS_PER_SECOND, int(errors))
            if test.verdict == "failed":
                rolled_back.append(test.requests)
                break
    return len(rolled_back) / trials, float(np.mean(rolled_back)) if rolled_back else float("nan")


def shadow_refusals(shadow: ModuleType, limits: Any, trials: int, seed: int) -> dict[str, float]:
    """Compare champions of a churn-like problem (ROC AUC about .75) with candidates.

    Args:
        shadow: The project's module `delivery.shadow_replay`.
        limits: `settings.Shadow()`.
        trials: How many champions are drawn.
        seed: Of everything random.

    Returns:
        The share of refusals for each of `GOOD` and `BAD`.
    """
    rng = np.random.default_rng(seed)
    refused: Counter[str] = Counter()
    for trial in range(trials):
        champion, logged, candidates = _world(rng, trial)
        for name, predictions in candidates.items():
            replay = shadow.Replay(
                seconds=np.ones((1, 2)),
                candidate=predictions,
                champion=champion,
                row_hashes=np.arange(len(logged), dtype=np.uint64),
            )
            model = SimpleNamespace(data=SimpleNamespace(classes=["no", "yes"], task="binary"))
            old = SimpleNamespace(model=model, profile={})
            refused[name] += bool(shadow.compare_predictions(model, old, replay, limits, {}))
    return {name: refused[name] / trials for name in (*GOOD, *BAD)}


def _world(rng: np.random.Generator, trial: int) -> tuple[Floats, Floats, dict[str, Floats]]:
    """Draw training rows, train a champion and candidates, and let them predict logged rows."""
    rows, labels = _draw(rng, TRAINING_ROWS, -2.6)
    new_rows, new_labels = _draw(rng, TRAINING_ROWS, -2.6)
    later_rows, later_labels = _draw(rng, TRAINING_ROWS, -2.25)
    logged, _ = _draw(rng, LOGGED_ROWS, -2.25)

    def predictions(estimator: Any, x: Floats, y: Floats) -> Floats:
        return np.asarray(estimator.fit(x, y).predict_proba(logged), dtype=float)

    def boosted(seed: int = 0) -> HistGradientBoostingClassifier:
        return HistGradientBoostingClassifier(
            max_iter=60, learning_rate=0.05, max_leaf_nodes=8, random_state=seed
        )

    champion = predictions(boosted(), rows, labels)
    other: Callable[[], Any] = LogisticRegression
    if trial % 2:
        other = lambda: ExtraTreesClassifier(100, min_samples_leaf=5, random_state=trial)  # noqa: E731
    candidates = {
        "same recipe, new rows": predictions(boosted(), new_rows, new_labels),
        "another seed": predictions(boosted(trial + 1), rows, labels),
        "another estimator": predictions(other(), new_rows, new_labels),
        "base rate 10 -> 13 %": predictions(boosted(), later_rows, later_labels),
        "reversed": champion[:, ::-1],
        "constant": np.full_like(champion, champion.mean(axis=0)),
        "predictions of other rows": rng.permutation(champion),
        "trained on shuffled labels": predictions(boosted(), rows, rng.permutation(labels)),
    }
    return champion, logged, candidates


def _draw(rng: np.random.Generator, rows: int, intercept: float) -> tuple[Floats, Floats]:
    """Draw features and labels from a logistic model with an interaction and a curve."""
    x = rng.normal(size=(rows, FEATURES))
    logit = intercept + x[:, 0] + 0.7 * x[:, 1] * x[:, 2] + 0.6 * np.sin(2 * x[:, 3])
    return x, (rng.random(rows) < 1 / (1 + np.exp(-logit))).astype(float)
