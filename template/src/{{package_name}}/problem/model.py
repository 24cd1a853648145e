"""The estimator that is trained, and the simple one that it has to be worth more than. Yours."""

from collections.abc import Mapping
from typing import Any

import polars as pl
import polars.selectors as cs
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

# Types outside scikit-learn's public ones that a saved model may hold; loading refuses all others.
TRUSTED = (
    "functools.partial",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.utils.validation.check_array",
)


def estimator(
    name: str, task: str, inputs: pl.DataFrame, seed: int, params: Mapping[str, Any]
) -> BaseEstimator:
    """Make an unfitted scikit-learn estimator.

    Args:
        name: `estimator` of `config/model.yaml`: `boosted` or `linear`.
        task: `binary`, `multiclass` or `regression`.
        inputs: What `features` returned for the training rows; only its columns matter.
        seed: Of everything random.
        params: `params` of `config/model.yaml`.

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
    if name == "linear":
        return linear(task, inputs, **params)
    raise ValueError(f"'{name}' is no estimator of problem/model.py; there are boosted and linear")


def linear(task: str, inputs: pl.DataFrame, **params: Any) -> BaseEstimator:
    """Make a linear model on scaled numbers and one-hot categories: the baseline of every run."""
    categories = inputs.select(cs.enum()).columns
    numbers = [name for name in inputs.columns if name not in categories]
    seen = OneHotEncoder(
        max_categories=30, handle_unknown="infrequent_if_exist", sparse_output=False
    )
    columns = ColumnTransformer(
        [
            (
                "numbers",
                make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler()),
                numbers,
            ),
            ("categories", seen, categories),
        ]
    )
    last = Ridge(**params) if task == "regression" else LogisticRegression(max_iter=300, **params)
    return make_pipeline(columns, last)
