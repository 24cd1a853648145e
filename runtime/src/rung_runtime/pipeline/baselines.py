"""What a constant and a linear model predict: the least that a model has to be better than."""

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from .. import UsageError
from ..config import DATA, Data
from ..model_package import predict
from ..problem import features, linear
from .ingest import inputs, labels
from .metrics import Floats

MAX_LINEAR_ROWS = 10_000
LARGEST = 1e150  # beyond it the square of a number overflows


def require_judgeable(y_true: Floats, data: Data, rows: str = "the holdout") -> None:
    """Check that a model can be judged by a target.

    Args:
        y_true: (n,) class indices or values.
        data: The contract.
        rows: What the message calls these rows.

    Raises:
        UsageError: It is the same in all rows, or too large to be squared.
    """
    if data.task == "regression" and (largest := np.abs(y_true).max()) > LARGEST:
        raise UsageError(
            f"column {data.target} has values such as {largest:.3g}, whose squares are too large "
            "for a computer: divide it by a constant in problem/data.py"
        )
    if np.ptp(y_true) == 0:
        value = f"{y_true[0]:g}" if data.task == "regression" else data.classes[int(y_true[0])]
        raise UsageError(
            f"{rows} has a single value of {data.target}, {value}, in all {len(y_true):,} rows, so "
            f"no model can be judged by them: choose another split in {DATA}"
        )


def baseline_predictions(
    train: pl.DataFrame, holdout: pl.DataFrame, data: Data
) -> dict[str, Floats]:
    """Return what a constant and a linear model predict for the holdout.

    Args:
        train: (m, …) typed rows; the linear model is trained on at most `MAX_LINEAR_ROWS` of them.
        holdout: (n, …) typed rows.
        data: The contract.

    Returns:
        `constant` and `linear`: (n, classes) probabilities or (n,) values.

    Raises:
        UsageError: The linear model cannot be trained, or predicts values that are not finite.
    """
    y_train = labels(train, data)
    require_judgeable(y_train, data, "the training part")
    constant: Floats = np.asarray(y_train.mean())
    if data.task != "regression":
        constant = np.bincount(y_train, minlength=len(data.classes)) / len(y_train)
    repeated = np.repeat(np.expand_dims(constant, 0), holdout.height, axis=0)
    return {"constant": repeated, "linear": _linear_predictions(train, holdout, data)}


def _linear_predictions(train: pl.DataFrame, holdout: pl.DataFrame, data: Data) -> Floats:
    sample = train.sample(min(train.height, MAX_LINEAR_ROWS), seed=0)
    x = features(inputs(sample, data))
    try:
        # On so few rows, threads take longer; and digits would depend on how many there are.
        with threadpool_limits(1, "blas"):
            fitted = linear(data.task, x).fit(x, labels(sample, data))
            y_pred = predict(fitted, holdout, data, features)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"the linear baseline cannot be trained: {reason}") from error
    if not np.isfinite(y_pred).all():
        numbers = [name for name in data.features if train[name].dtype.is_numeric()]
        widest = max(numbers, key=lambda name: abs(train[name]).max() or 0, default=data.target)
        raise UsageError(
            f"the linear baseline predicts values that are not finite: check the values of {widest}"
        )
    return y_pred
