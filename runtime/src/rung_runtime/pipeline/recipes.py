"""Recipes: what two ways of training are worth on the same rows, each row predicted out of fold.

A holdout of a few hundred rows cannot tell a challenger that is a little better from one that is a
little worse. Cross-fitted, every row is evidence: five times as many. Champion and challenger are
trained anew on the same folds, so neither has seen a row that it is judged on.
"""

from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.base import clone

from ..config import Data
from ..model_package import Features, predict
from .cross_validation import Indices, folds
from .ingest import inputs, labels

FOLDS = 5
MOST = 20_000  # rows, of which there is evidence enough
Floats = NDArray[np.float64]


class Recipe(NamedTuple):
    """What makes a model of rows: an estimator with its parameters, and the code of its inputs."""

    fitted: Any  # its parameters count, not what it has learned
    features: Features
    data: Data  # the contract of its inputs

    def trained(self, rows: pl.DataFrame, y_true: NDArray[Any]) -> Any:
        """Return a new estimator, fitted to (n, …) typed rows and their (n,) labels."""
        return clone(self.fitted).fit(self.features(inputs(rows, self.data)), y_true)


def out_of_fold(
    recipes: list[Recipe], rows: pl.DataFrame, data: Data
) -> tuple[NDArray[Any], list[Floats]]:
    """Predict rows by estimators that were trained without them.

    Args:
        recipes: Each is trained on the same folds.
        rows: (n, …) typed rows with a target; of more than `MOST` a sample.
        data: The contract that the target is read by.

    Returns:
        The labels of the (m,) rows that were predicted, and for each recipe its predictions:
        (m, classes) probabilities or (m,) values. Of a split by time the oldest sixth is only
        trained on, as nothing came before it.
    """
    rows = _bounded(rows)
    y_true = labels(rows, data)
    places: list[Indices] = []
    parts: list[list[Floats]] = [[] for _ in recipes]
    for train, held in folds(rows, data, FOLDS, 1 / (FOLDS + 1)):
        places.append(held)
        for recipe, part in zip(recipes, parts, strict=True):
            fitted = recipe.trained(rows[train], y_true[train])
            part.append(predict(fitted, rows[held], recipe.data, recipe.features))
    return y_true[np.concatenate(places)], [np.concatenate(part) for part in parts]


def cross_fitted(rows: pl.DataFrame, data: Data) -> pl.DataFrame:
    """Return the (m, …) rows that `out_of_fold` predicts of (n, …), in its order."""
    rows = _bounded(rows)
    parts = folds(rows, data, FOLDS, 1 / (FOLDS + 1))
    return rows[np.concatenate([held for _, held in parts])]


def _bounded(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.sample(MOST, seed=0) if rows.height > MOST else rows
