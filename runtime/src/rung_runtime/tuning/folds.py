"""What every trial has in common: the rows of the search, their folds, and the metric."""

import warnings
from dataclasses import dataclass

import numpy as np
import polars as pl

from .. import UsageError
from ..config import DATA, HIGHER_IS_BETTER, Config, Model
from ..model_package import predict
from ..pipeline.cross_validation import Indices, folds
from ..pipeline.ingest import labels
from ..pipeline.metrics import Floats, score
from ..pipeline.resampling import Resampler
from ..pipeline.slices import row_groups
from ..pipeline.train import fit
from ..problem import features
from ..records import Interval

FOLDS = 5
FIRST = 0.5  # of a split by time: the share of rows that is only trained on


class Failed(Exception):
    """A fold could not be trained or predicted; the message is the library's reason."""


@dataclass(frozen=True)
class Folds:
    """The rows of a search, and which of them each fold trains on and predicts."""

    rows: pl.DataFrame
    config: Config
    parts: list[tuple[Indices, Indices]]

    @classmethod
    def of_rows(cls, rows: pl.DataFrame, config: Config) -> "Folds":
        """Divide typed rows into folds, as the split of the project has it.

        Raises:
            UsageError: No fold can be learned from.
        """
        parts = list(folds(rows, config.data, FOLDS, FIRST))
        if not parts:
            data = config.data
            raise UsageError(
                f"{DATA}: split: by {data.split.by} gives no part of the training rows with more "
                f"than one class of {data.target!r}; choose another split"
            )
        return cls(rows, config, parts)

    @property
    def metric(self) -> str:
        """The metric of the gate, which is what is improved."""
        return self.config.gate.metric

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the metric is better."""
        return self.metric in HIGHER_IS_BETTER

    def predict(self, model: Model, fold: int) -> Floats:
        """Return the predictions of a fold, by a model of the rows that it trains on.

        Raises:
            Failed: The estimator does not take the params, or cannot learn or predict.
        """
        fit_index, test_index = self.parts[fold]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # hundreds of them, of params that nobody takes
                fitted = fit(self.rows[fit_index], self.config.data, model)
                y_pred = predict(fitted, self.rows[test_index], self.config.data, features)
        except Exception as error:  # of the estimator, which is the user's
            raise Failed(_reason(error)) from error
        if not np.isfinite(y_pred).all():
            raise Failed("it predicts values that are not finite")
        return y_pred

    def score(self, predictions: list[Floats]) -> float:
        """Return the metric of the first folds; NaN where it is not defined."""
        return score(self.metric, self._y_true(len(predictions)), np.concatenate(predictions))

    def interval(self, predictions: list[Floats]) -> Interval:
        """Return the metric of all folds with its confidence interval."""
        y_true = self._y_true(len(predictions))
        data = self.config.data
        gate = self.config.gate
        predicted = self.rows[np.concatenate([test_index for _, test_index in self.parts])]
        groups = row_groups(predicted, data)
        resampler = Resampler(y_true, self.metric, len(data.classes), gate, groups)
        resampled = resampler.score(self.metric, np.concatenate(predictions))
        return Interval(**resampled.interval(gate.confidence))

    def _y_true(self, count: int) -> Floats:
        index = np.concatenate([test_index for _, test_index in self.parts[:count]])
        return np.asarray(labels(self.rows, self.config.data)[index])


def _reason(error: Exception) -> str:
    message = str(error).strip().partition("\n")[0]
    if isinstance(error, UsageError):
        return message.removeprefix("config/model.yaml: nothing can be trained: ")
    return f"{type(error).__name__}: {message}"
