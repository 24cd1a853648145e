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
    for name in data.features:
        shuffled = rows.with_columns(rows[name].shuffle(seed=1))
        value = score(y_true, predict(fitted, shuffled, data, features))
        loss = float(np.nan_to_num(sign * (unshuffled - value)))
        losses.append(Importance(column=name, loss=loss))
    return sorted(losses, key=attrgetter("loss"), reverse=True)
