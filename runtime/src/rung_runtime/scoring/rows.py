"""The rows of a batch, judged by the contract and predicted, as the service would."""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import UsageError
from ..isolation.pipe import PackageError, ProcessEndedError
from ..model_package import Model
from ..pipeline.validate import FailedRule
from ..prediction_log.writer import ANY_ERROR

MAX_MODEL_ERRORS = 100  # rows of a run at which code of problem/ may fail; beyond, it is a fault


class Reason(NamedTuple):
    """Why a row is refused: the rule that it breaks, and of which column and value."""

    column: str | None
    rule: str
    value: str | None = None

    @property
    def kind(self) -> str:
        """Return what all rows have in common that break this rule."""
        return f"{self.column}: {self.rule}" if self.column else self.rule

    @property
    def text(self) -> str:
        """Return it for a person."""
        return self.kind if self.value is None else f"{self.kind} ({self.value})"


Reasons = dict[int, list[Reason]]  # by the number of a row in its batch


@dataclass(frozen=True)
class ScoredBatch:
    """What became of the rows of a batch.

    Attributes:
        index: The numbers of the rows that were predicted.
        typed: These rows, typed.
        y_pred: Their predictions: (n, classes) probabilities or (n,) values.
        reasons: Why the other rows were refused.
    """

    index: NDArray[np.int64]
    typed: pl.DataFrame
    y_pred: NDArray[np.float64]
    reasons: Reasons


class RowScorer:
    """Scores batches with a model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.model_errors = 0

    def score(self, rows: pl.DataFrame) -> ScoredBatch:
        """Judge and predict rows, which may have more columns than the contract."""
        contract = self.model.request_contract
        index = np.arange(rows.height)
        features = rows[[name for name in contract.columns if name in rows.columns]]
        reasons: Reasons = {}
        typed = self.model.read(features)
        while failed := self.model.all_failures(typed):
            broken = _reasons(failed, len(index))  # `typed` without columns has no rows
            reasons |= {int(index[row]): why for row, why in broken.items()}
            is_good = np.ones(len(index), dtype=bool)
            is_good[list(broken)] = False
            # Once more: of a column with a value of another type, no other rule was judged.
            index = index[is_good]
            if not len(index):
                return ScoredBatch(index, typed.clear(), self._nothing(), reasons)
            features = features.filter(is_good)
            typed = self.model.read(features)
        y_pred, errors = self._predict(typed)
        if errors:
            reasons |= {int(index[row]): [why] for row, why in errors.items()}
            is_good = np.ones(len(index), dtype=bool)
            is_good[list(errors)] = False
            index = index[is_good]
            typed = typed.filter(is_good)
            y_pred = y_pred[is_good]
        return ScoredBatch(index, typed, y_pred, reasons)

    def _nothing(self) -> NDArray[np.float64]:
        classes = len(self.model.data.classes)
        return np.zeros((0, classes) if classes else 0)

    def _predict(self, typed: pl.DataFrame) -> tuple[NDArray[np.float64], dict[int, Reason]]:
        """Return the predictions of rows, and by row why there is none, in the place of which is 0.

        Raises:
            Exception: Code of problem/ fails at too many rows.
        """
        if not typed.height:
            return self._nothing(), {}
        try:
            y_pred = self.model.predict(typed)
        except ProcessEndedError:  # which no row answers for
            raise
        except ANY_ERROR as error:  # of problem/, for rows that its author did not foresee
            if typed.height == 1:
                return self._failed_row(error)
            half = typed.height // 2
            first, errors = self._predict(typed[:half])
            second, more = self._predict(typed[half:])
            errors |= {half + row: why for row, why in more.items()}
            return np.concatenate([first, second]), errors
        is_finite = np.isfinite(y_pred.reshape(typed.height, -1)).all(axis=1)
        odd = np.flatnonzero(~is_finite)
        return y_pred, {int(row): Reason(None, "the prediction is not a number") for row in odd}

    def _failed_row(self, error: BaseException) -> tuple[NDArray[np.float64], dict[int, Reason]]:
        self.model_errors += 1
        if self.model_errors > MAX_MODEL_ERRORS:
            raise error
        message = (str(error).splitlines() or [""])[0][:200]
        if not isinstance(error, PackageError):  # which says it itself
            message = f"{type(error).__name__}: {message}"
        why = Reason(None, "the model cannot answer", message)
        classes = len(self.model.data.classes)
        return np.zeros((1, classes) if classes else 1), {0: why}


def _reasons(failed: list[FailedRule], count: int) -> Reasons:
    """Return why rows break the contract, by row.

    Args:
        count: How many rows were judged; a failure of the table is one of each.
    """
    reasons: defaultdict[int, list[Reason]] = defaultdict(list)
    for failure in failed:
        column = failure["column"]
        rule = failure["rule"]
        if not failure["rows"]:  # a column is missing
            for row in range(count):
                reasons[row].append(Reason(column, rule))
            continue
        has_values = column is not None and failure["kind"] != "null"
        samples = failure["samples"] if has_values else [None] * len(failure["rows"])
        for row, value in zip(failure["rows"], samples, strict=True):
            reasons[row].append(Reason(column, rule, value))
    return dict(reasons)


def prediction_columns(model: Model, y_pred: NDArray[np.float64]) -> list[pl.Series]:
    """Return the predictions of rows as columns: `prediction` and, by class, `p:CLASS`."""
    if model.data.task == "regression":
        return [pl.Series("prediction", y_pred, pl.Float64)]
    classes = pl.Series(model.data.classes, dtype=pl.String)
    names = classes.gather(y_pred.argmax(axis=1)) if len(y_pred) else classes.clear()
    columns = [names.alias("prediction")]
    for number, name in enumerate(model.data.classes):
        columns.append(pl.Series(f"p:{name}", y_pred[:, number], pl.Float64))
    return columns


def require_free_names(
    names: list[str], model: Model, source: str, sink: tuple[str, ...] = ()
) -> None:
    """Check that a source has no column of a name that the sink gives to its own.

    Args:
        names: The columns of the source.
        model: What scores; its classes have columns.
        source: Its name, for the message.
        sink: Columns of this kind of sink alone.

    Raises:
        UsageError: It has one.
    """
    own = {"request_id", "row", "model", "reasons", "prediction", *sink}
    own |= {f"p:{name}" for name in model.data.classes}
    if taken := [name for name in names if name in own]:
        raise UsageError(f"{source} has a column {taken[0]!r}, as the sink does: rename it")
