"""Candidates: the recipes that are tried on new data, compared by cross-validation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from ..config import Data, Model
from ..exceptions import UsageError
from ..model_package import predict
from ..pipeline.cross_validation import Indices
from ..pipeline.ingest import labels
from ..pipeline.metrics import Floats
from ..pipeline.train import fit
from ..problem import features

Fold = tuple[Indices, Indices]  # the rows to fit and those to predict
FoldProgress = Callable[[int, int], None]  # called with the number of a fold, and of all folds

# A rival may end a candidate's race once this many rows are predicted, if it is better by this many
# standard errors.
MIN_RACE_ROWS = 1_000
RACE_STANDARD_ERRORS = 4.0
MIN_MEAN_GAIN = 0.01  # the share of the loss that a mean of candidates must save to be worth it

# The penalty is needed: without it, a leaf that is all but sure of a rare class overshoots by far.
SLOW_BOOSTING = {
    "max_iter": 300,
    "learning_rate": 0.03,
    "max_leaf_nodes": 15,
    "l2_regularization": 1.0,
}
FAST_BOOSTING = {"max_iter": 300, "learning_rate": 0.1, "l2_regularization": 1.0}
# Each step takes a tree for every class, so that many classes get fewer steps; and so do a few, if
# there are many inputs, such as the words of texts.
SHORT_BOOSTING = {"max_iter": 100, "learning_rate": 0.1, "l2_regularization": 1.0}
MANY_CLASSES = 6
MANY_INPUTS = 100
MIN_FAST_ROWS = 1_000  # with fewer rows, slow steps are better than fast ones
# Of a tree of the forest. Both keep the model's file under 20 MB; each leaf stores a number for
# every class.
MAX_LEAVES = 2_000
MAX_LEAVES_TIMES_CLASSES = 52_000


@dataclass(frozen=True)
class Candidate:
    """A recipe, and its out-of-fold predictions: (n, classes) probabilities or (n,) values."""

    model: Model
    y_pred: Floats
    losses: Floats  # (n,) log loss or squared error; of the first folds only, if it was given up
    fitted: Any = None  # the model of the last fold
    error: str = ""  # why it could not be tried
    given_up: bool = False

    @property
    def loss(self) -> float:
        """The mean loss; infinite if there is none, or it is not finite."""
        mean = self.losses.mean() if len(self.losses) else np.inf
        return float(mean) if np.isfinite(mean) else np.inf

    @property
    def name(self) -> str:
        """The estimator, with the learning rate of boosted trees, of which several are tried."""
        if self.model.estimator == "mean":
            return f"mean of {' and '.join(self.model.params)}"
        rate = self.model.params.get("learning_rate")
        return f"{self.model.estimator} (rate {rate:g})" if rate else self.model.estimator


def recipes(data: Data, rows: int, width: int) -> list[Model]:
    """Return the recipes to try on so many rows and inputs: linear, boosted trees and a forest."""
    most_classes = MANY_CLASSES if width < MANY_INPUTS else 3
    if len(data.classes) >= most_classes:
        boosting = [SHORT_BOOSTING]
    elif rows < MIN_FAST_ROWS:
        boosting = [SLOW_BOOSTING]
    else:
        boosting = [SLOW_BOOSTING, FAST_BOOSTING]
    leaves = min(MAX_LEAVES, MAX_LEAVES_TIMES_CLASSES // max(1, len(data.classes)))
    forest: dict[str, Any] = {"n_estimators": 100, "min_samples_leaf": 3, "max_leaf_nodes": leaves}
    if data.task != "regression":
        forest["max_features"] = 0.5
    return [
        Model(estimator="linear"),
        *(Model(estimator="boosted", params=params) for params in boosting),
        Model(estimator="forest", params=forest),
    ]


def cross_validate(
    recipe: Model,
    rows: pl.DataFrame,
    folds: list[Fold],
    data: Data,
    rivals: list[Candidate],
    show_progress: FoldProgress,
) -> Candidate:
    """Predict every fold with a model of the others; give up once a rival is surely better."""
    predictions: list[Floats] = []
    losses = np.empty(0)
    for number, (fit_index, test_index) in enumerate(folds, start=1):
        show_progress(number, len(folds))
        try:
            fitted = fit(rows[fit_index], data, recipe)
            y_pred = predict(fitted, rows[test_index], data, features)
        except (UsageError, ValueError, FloatingPointError) as error:
            return Candidate(recipe, np.empty(0), np.empty(0), error=str(error))
        predictions.append(y_pred)
        losses = np.concatenate([losses, row_losses(labels(rows[test_index], data), y_pred)])
        is_last = number == len(folds)
        if not is_last and any(_is_surely_better(rival, losses) for rival in rivals):
            return Candidate(recipe, np.empty(0), losses, given_up=True)
    return Candidate(recipe, np.concatenate(predictions), losses, fitted)


def best_mean(
    candidates: list[Candidate], rows: pl.DataFrame, folds: list[Fold], data: Data
) -> Candidate | None:
    """Return the best mean of two or three candidates; None if it gains next to nothing.

    Errors of models that work differently partly cancel out (Perrone and Cooper, 1993). What a
    single model does as well is left to that model.
    """
    complete = [candidate for candidate in candidates if len(candidate.y_pred)]
    best_of_estimator: dict[str, Candidate] = {}
    for candidate in sorted(complete, key=lambda candidate: candidate.loss):
        best_of_estimator.setdefault(candidate.model.estimator, candidate)
    if len(best_of_estimator) < 2:
        return None
    y_true = labels(rows, data)[np.concatenate([test_index for _, test_index in folds])]
    means: list[Candidate] = []
    for count in (2, 3):
        for members in combinations(best_of_estimator.values(), count):
            y_pred = np.mean([member.y_pred for member in members], axis=0)
            params = {member.model.estimator: member.model.params for member in members}
            recipe = Model(estimator="mean", params=params)
            means.append(Candidate(recipe, y_pred, row_losses(y_true, y_pred)))
    best = min(means, key=lambda mean: mean.loss)
    if not best.loss < (1 - MIN_MEAN_GAIN) * min(candidate.loss for candidate in complete):
        return None
    last_fit_index, _ = folds[-1]
    try:
        return replace(best, fitted=fit(rows[last_fit_index], data, best.model))
    except (UsageError, ValueError):
        return None  # problem/model.py, which is the user's, has no such estimator


def select_best(candidates: list[Candidate], *, sampled: bool) -> Candidate:
    """Return the candidate with the lowest loss.

    Args:
        candidates: At least one that was not given up.
        sampled: Whether there are more rows than were tried. Boosted trees then get the benefit of
            the doubt (one standard error): of the three they gain most from more rows.
    """
    complete = [candidate for candidate in candidates if not candidate.given_up]
    ranked = sorted(complete, key=lambda candidate: candidate.loss)
    best = ranked[0]
    if not sampled or not np.isfinite(best.loss):
        return best
    boosted = [candidate for candidate in ranked if candidate.model.estimator == "boosted"]
    if not boosted or not len(boosted[0].losses):
        return best
    lost = boosted[0].losses - best.losses
    is_within_an_error = lost.mean() <= lost.std() / len(lost) ** 0.5
    return boosted[0] if is_within_an_error else best


def row_losses(y_true: Floats, y_pred: Floats) -> Floats:
    """Return each row's squared error or log loss: strictly proper (Gneiting and Raftery, 2007)."""
    with np.errstate(over="ignore", invalid="ignore"):
        if y_pred.ndim == 1:
            return np.asarray((y_true - y_pred) ** 2)
        probability = y_pred[np.arange(len(y_true)), y_true.astype(int)]
        return np.asarray(-np.log(np.clip(probability, 1e-15, 1)))


def _is_surely_better(rival: Candidate, losses: Floats) -> bool:
    """Check whether the rival's losses are lower, by far, on the same first rows (a race).

    Maron and Moore, Hoeffding races, 1994; by standard errors of the paired differences.
    """
    n = len(losses)
    if rival.given_up or n < MIN_RACE_ROWS or len(rival.losses) < n:
        return False
    lost = losses - rival.losses[:n]
    return bool(lost.mean() > RACE_STANDARD_ERRORS * lost.std() / n**0.5)
