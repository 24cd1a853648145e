"""Permutation importance: what a model loses without the information in a column."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import polars as pl

from ..config import HIGHER_IS_BETTER, Config, Data
from ..model_package import Features, predict
from ..problem import features
from ..records import Importance
from .ingest import labels
from .metrics import SCORES, Floats

MAX_ROWS = 1_000
COLUMNS_AT_ONCE = 20  # whose shuffled rows are predicted together: a call costs more than a row


@dataclass(frozen=True)
class Shuffler:
    """Shuffles columns of rows, and predicts them.

    Attributes:
        fitted: The estimator.
        features: Makes of columns what it takes.
        rows: (n, …) typed rows.
        data: Their contract.
        metric: What is lost.
    """

    fitted: Any
    features: Features
    rows: pl.DataFrame
    data: Data
    metric: str

    def unshuffled(self) -> float:
        """Return the metric of the rows as they are."""
        y_pred = predict(self.fitted, self.rows, self.data, self.features)
        return float(SCORES[self.metric](labels(self.rows, self.data), y_pred))

    def __call__(self, names: list[str]) -> list[float]:
        """Return the metric of the rows without the information in each of these columns."""
        y_true = labels(self.rows, self.data)
        shuffled = [self.rows.with_columns(self.rows[name].shuffle(seed=1)) for name in names]
        y_pred = predict(self.fitted, pl.concat(shuffled), self.data, self.features)
        parts: list[Floats] = np.split(y_pred, len(names))
        return [float(SCORES[self.metric](y_true, part)) for part in parts]


# Calls a shuffler for each list of columns, and returns what it returns, in their order.
Caller = Callable[[Shuffler, list[list[str]]], Iterable[list[float]]]


def importance(
    fitted: Any, holdout: pl.DataFrame, config: Config, call: Caller = map
) -> list[Importance]:
    """Return what the gate's metric loses when a column is shuffled (Breiman, 2001).

    Args:
        fitted: The estimator.
        holdout: (n, …) typed rows, of which at most `MAX_ROWS` are used.
        config: With the contract and the metric.
        call: What shuffles and predicts, be it on other machines.

    Returns:
        An item for each feature, the largest loss first.
    """
    data = config.data
    sign = 1 if config.gate.metric in HIGHER_IS_BETTER else -1
    rows = holdout.sample(min(holdout.height, MAX_ROWS), seed=0)
    shuffler = Shuffler(fitted, features, rows, data, config.gate.metric)
    unshuffled = shuffler.unshuffled()
    names = data.features
    chunks = [
        names[first : first + COLUMNS_AT_ONCE] for first in range(0, len(names), COLUMNS_AT_ONCE)
    ]
    losses = []
    for chunk, values in zip(chunks, call(shuffler, chunks), strict=True):
        for name, value in zip(chunk, values, strict=True):
            loss = float(np.nan_to_num(sign * (unshuffled - value)))
            losses.append(Importance(column=name, loss=loss))
    return sorted(losses, key=attrgetter("loss"), reverse=True)
