"""The estimator that is trained, and the simple one that it has to be worth more than. Yours."""

from collections.abc import Mapping
from typing import Any

import polars as pl
import polars.selectors as cs
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.feature_extraction.text import TfidfTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

# Types outside scikit-learn's public ones that a saved model may hold; loading refuses all others.
TRUSTED = (
    "functools.partial",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "sklearn.utils.validation.check_array",
)


def estimator(
    name: str, task: str, inputs: pl.DataFrame, seed: int, params: Mapping[str, Any]
) -> BaseEstimator:
    """Make an unfitted scikit-learn estimator.

    Args:
        name: `estimator` of `config/model.yaml`: `boosted`, `forest`, `linear` or `mean`.
        task: `binary`, `multiclass` or `regression`.
        inputs: What `features` returned for the training rows; only its columns matter.
        seed: Of everything random.
        params: `params` of `config/model.yaml`; of `mean` those of each of its parts, by name.

    Raises:
        ValueError: The name is not known here.
        TypeError: The estimator does not know one of the params.
    """
    if name == "boosted":
        kind = (
            HistGradientBoostingRegressor
            if task == "regression"
            else HistGradientBoostingClassifier
        )
        return kind(categorical_features="from_dtype", random_state=seed, **params)
    if name == "forest":
        return forest(task, inputs, seed, **params)
    if name == "linear":
        return linear(task, inputs, **params)
    if name == "mean":
        parts = [(part, estimator(part, task, inputs, seed, p)) for part, p in params.items()]
        if task == "regression":
            return VotingRegressor(parts)
        return VotingClassifier(parts, voting="soft")
    raise ValueError(
        f"unknown estimator '{name}'; problem/model.py defines boosted, forest, linear, mean"
    )


def linear(task: str, inputs: pl.DataFrame, **params: Any) -> BaseEstimator:
    """Make a linear model on scaled numbers and one-hot categories: the baseline of every run."""
    if task != "regression":
        last = LogisticRegression(max_iter=300, **params)
    elif params:
        last = Ridge(**params)
    else:  # a fixed penalty shares a trend out among columns that rise together
        last = RidgeCV(alphas=[0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0])
    return make_pipeline(numeric(inputs), last)


def forest(task: str, inputs: pl.DataFrame, seed: int, **params: Any) -> BaseEstimator:
    """Make extremely randomized trees (Geurts et al., 2006) on the inputs of the linear model."""
    kind = ExtraTreesRegressor if task == "regression" else ExtraTreesClassifier
    return make_pipeline(numeric(inputs), kind(random_state=seed, **params))


def numeric(inputs: pl.DataFrame) -> ColumnTransformer:
    """Make a transformer to numbers without gaps: scaled, one-hot categories, TF-IDF of words."""
    categories = inputs.select(cs.enum()).columns
    words = inputs.select(cs.matches(r" word \d+$")).columns
    # Beside the elapsed days, the number of the month would only share in a trend, and break it off
    # at New Year.
    days = inputs.select(cs.ends_with(" days since 1970")).columns
    months = [name.removesuffix(" days since 1970") + " month" for name in days]
    numbers = [name for name in inputs.columns if name not in {*categories, *words, *months}]
    seen = OneHotEncoder(
        max_categories=30, handle_unknown="infrequent_if_exist", sparse_output=False
    )
    return ColumnTransformer(
        [
            (
                "numbers",
                make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler()),
                numbers,
            ),
            ("categories", seen, categories),
            ("words", TfidfTransformer(sublinear_tf=True), words),
        ],
        sparse_threshold=0,
    )
