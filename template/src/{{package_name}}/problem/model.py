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
PENALTIES = [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0]


def estimator(
    name: str, task: str, inputs: pl.DataFrame, seed: int, params: Mapping[str, Any]
) -> BaseEstimator:
    """Make an unfitted scikit-learn estimator.

    Args:
        name: `estimator` of `config/model.yaml`: `boosted`, `forest`, `linear` or `mean`.
        task: `binary`, `multiclass` or `regression`.
        inputs: What `features` returned for the training rows; only its columns matter.
        seed: Of everything random.
        params: `params` of `config/model.yaml`; for `mean` those of each of its parts, by name.

    Raises:
        ValueError: There is no estimator of that name here.
        TypeError: The estimator does not have one of the params.
    """
    if name == "boosted":
        return boosted(task, seed, **params)
    if name == "forest":
        return forest(task, inputs, seed, **params)
    if name == "linear":
        return linear(task, inputs, **params)
    if name == "mean":
        return mean(task, inputs, seed, params)
    raise ValueError(
        f"unknown estimator '{name}'; problem/model.py defines boosted, forest, linear, mean"
    )


def boosted(task: str, seed: int, **params: Any) -> BaseEstimator:
    """Make gradient-boosted trees, which take categories and missing values as they are."""
    if task == "regression":
        return HistGradientBoostingRegressor(
            categorical_features="from_dtype", random_state=seed, **params
        )
    return HistGradientBoostingClassifier(
        categorical_features="from_dtype", random_state=seed, **params
    )


def forest(task: str, inputs: pl.DataFrame, seed: int, **params: Any) -> BaseEstimator:
    """Make extremely randomized trees (Geurts et al., 2006) on the inputs of the linear model."""
    trees = ExtraTreesRegressor if task == "regression" else ExtraTreesClassifier
    return make_pipeline(numeric(inputs), trees(random_state=seed, **params))


def linear(task: str, inputs: pl.DataFrame, **params: Any) -> BaseEstimator:
    """Make a linear model on scaled numbers and one-hot categories: the baseline of every run."""
    if task != "regression":
        model = LogisticRegression(max_iter=300, **params)
    elif params:
        model = Ridge(**params)
    else:  # a fixed penalty would distribute a trend among columns that rise together
        model = RidgeCV(alphas=PENALTIES)
    return make_pipeline(numeric(inputs), model)


def mean(
    task: str, inputs: pl.DataFrame, seed: int, params: Mapping[str, Mapping[str, Any]]
) -> BaseEstimator:
    """Make the mean of several estimators, by the params of each."""
    parts = [
        (name, estimator(name, task, inputs, seed, part_params))
        for name, part_params in params.items()
    ]
    if task == "regression":
        return VotingRegressor(parts)
    return VotingClassifier(parts, voting="soft")


def numeric(inputs: pl.DataFrame) -> ColumnTransformer:
    """Make a transformer to numbers without gaps: scaled, one-hot categories, TF-IDF of words."""
    categories = inputs.select(cs.enum()).columns
    words = inputs.select(cs.matches(r" word \d+$")).columns
    # Beside the elapsed days, the number of the month would only take part of a trend, and break
    # it off at New Year.
    days = inputs.select(cs.ends_with(" days since 1970")).columns
    months = [name.removesuffix(" days since 1970") + " month" for name in days]
    numbers = [name for name in inputs.columns if name not in {*categories, *words, *months}]
    scaled = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    one_hot = OneHotEncoder(
        max_categories=30, handle_unknown="infrequent_if_exist", sparse_output=False
    )
    return ColumnTransformer(
        [
            ("numbers", scaled, numbers),
            ("categories", one_hot, categories),
            ("words", TfidfTransformer(sublinear_tf=True), words),
        ],
        sparse_threshold=0,
    )
