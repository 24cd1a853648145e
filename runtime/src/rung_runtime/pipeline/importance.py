"""Permutation importance: what a model loses without the information in a column."""

from operator import attrgetter
from typing import Any

import numpy as np
import polars as pl

from ..config import HIGHER_IS_BETTER, Config
from ..model_package import predict
from ..problem import features
from ..records import Importance
from .ingest import labels
from .metrics import SCORES

MAX_ROWS = 1_000
COLUMNS_AT_ONCE = 20  # whose shuffled rows are predicted together: a call costs more than a row


def importance(fitted: Any, holdout: pl.DataFrame, config: Config) -> list[Importance]:
    """Return what the gate's metric loses when a column is shuffled (Breiman, 2001).

    Args:
        fitted: The estimator.
        holdout: (n, …) typed rows, of which at most `MAX_ROWS` are used.
        config: With the contract and the metric.

    Returns:
        An item for each feature, the largest loss first.
    """
    data = config.data
    score = SCORES[config.gate.metric]
    sign = 1 if config.gate.metric in HIGHER_IS_BETTER else -1
    rows = holdout.sample(min(holdout.height, MAX_ROWS), seed=0)
    y_true = labels(rows, data)
    unshuffled = score(y_true, predict(fitted, rows, data, features))
    losses = []
    for first in range(0, len(data.features), COLUMNS_AT_ONCE):
        names = data.features[first : first + COLUMNS_AT_ONCE]
        shuffled = [rows.with_columns(rows[name].shuffle(seed=1)) for name in names]
        y_pred = predict(fitted, pl.concat(shuffled), data, features)
        for name, predicted in zip(names, np.split(y_pred, len(names)), strict=True):
            loss = float(np.nan_to_num(sign * (unshuffled - score(y_true, predicted))))
            losses.append(Importance(column=name, loss=loss))
    return sorted(losses, key=attrgetter("loss"), reverse=True)
