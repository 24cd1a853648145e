"""What every explainer promises, and what it is given."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from .. import adapters
from ..config import Data
from ..pipeline.ingest import inputs

CHUNK_ROWS = 1_024  # predicted at once: between two of them, the time limit is looked at
MAX_MESSAGE = 200  # characters of an error of `problem/`
NEVER = float("inf")
ROUNDING = 1e-9  # of what contributions may leave of a prediction, relative to its size

Floats = NDArray[np.float64]
Codes = NDArray[np.integer]


class TooLate(Exception):
    """The time for an explanation is over."""


class Unanswerable(Exception):
    """The model fails on rows whose values come from several, or predicts what is not a number."""


class Attribution(NamedTuple):
    """What an explainer finds for a row."""

    base_value: float  # what is predicted without any of its values
    contributions: Floats  # (columns,)


class Explanation(NamedTuple):
    """How a prediction comes from the columns of a row.

    `base_value`, all `contributions` and `remainder` add up to what was predicted: the probability
    of `class_`, or the value of a regression.
    """

    class_: str | None
    base_value: float
    contributions: dict[str, float]
    remainder: float  # what the explainer attributes to no column; 0 of Shapley values


@dataclass(frozen=True)
class Subject:
    """A model that is to be explained, as a function of the columns that callers send.

    Attributes:
        predict: Returns for (n, columns) typed rows (n, classes) probabilities or (n,) values.
        background: (rows, columns) what a row is compared with.
        data: The contract.
    """

    predict: Callable[[pl.DataFrame], Floats] = field(repr=False)
    background: pl.DataFrame = field(repr=False)
    data: Data = field(repr=False)

    @property
    def columns(self) -> list[str]:
        return self.background.columns

    @cached_property
    def base_predictions(self) -> Floats:
        """Predictions for the background: (rows, outputs)."""
        return self.outputs(self.background)

    def outputs(self, rows: pl.DataFrame) -> Floats:
        """Return predictions: (n, outputs).

        Raises:
            Unanswerable: The model fails, or one is not a finite number.
        """
        try:
            y_pred = np.asarray(self.predict(rows), dtype=float).reshape(len(rows), -1)
        except (Exception, pl.exceptions.PanicException) as error:  # of problem/
            message = str(error).partition("\n")[0][:MAX_MESSAGE]
            raise Unanswerable(f"{type(error).__name__}: {message}") from error
        if not np.isfinite(y_pred).all():
            raise Unanswerable("a prediction is not a number")
        return y_pred


class Question:
    """A row whose prediction is to be explained.

    Attributes:
        prediction: The probability of the class that is explained, or the value.
        output: The index of that class: the positive one of two, the predicted one of several.
        own: The code of the row's own value; lower ones are those of rows of the background.
    """

    def __init__(
        self,
        subject: Subject,
        row: pl.DataFrame,
        deadline: float = NEVER,
        y_pred: Floats | None = None,
    ) -> None:
        """Predict the row.

        Args:
            subject: The model.
            row: (1, columns) typed.
            deadline: Of `time.monotonic`.
            y_pred: (outputs,) predicted for the row, if that is known.
        """
        self.subject = subject
        self.deadline = deadline
        self.own = subject.background.height
        row = inputs(row, subject.data)
        y_pred = subject.outputs(row)[0] if y_pred is None else np.atleast_1d(y_pred)
        self.output = 1 if subject.data.task == "binary" else int(y_pred.argmax())
        self.prediction = float(y_pred[self.output])
        self._pool = pl.concat([subject.background, row])

    @property
    def base_predictions(self) -> Floats:
        """Predictions for the background, (rows,), as `ask` returns them."""
        return self.subject.base_predictions[:, self.output]

    def ask(self, codes: Codes) -> Floats:
        """Return predictions, (n,), for rows of values that come from different rows.

        Args:
            codes: (n, columns) where the value of each column comes from: see `own`.

        Raises:
            TooLate: The time is over.
            Unanswerable: See `Subject.outputs`.
        """
        parts = [np.empty(0)]
        for start in range(0, len(codes), CHUNK_ROWS):
            if time.monotonic() > self.deadline:
                raise TooLate
            chunk = np.asarray(codes[start : start + CHUNK_ROWS], dtype=np.int64)
            rows = pl.DataFrame(
                [self._pool[name].gather(chunk[:, i]) for i, name in enumerate(self._pool.columns)]
            )
            parts.append(self.subject.outputs(rows)[:, self.output])
        return np.concatenate(parts)


class Explainer(Protocol):
    """Attributes predictions to columns; the same question always gets the same answer."""

    def attribute(self, question: Question) -> Attribution:
        """Attribute a prediction.

        Raises:
            TooLate: The time is over.
            Unanswerable: See `Subject.outputs`.
        """


def explain(
    explainer: Explainer,
    subject: Subject,
    row: pl.DataFrame,
    deadline: float = NEVER,
    y_pred: Floats | None = None,
) -> Explanation:
    """Explain the prediction for a row.

    Args:
        explainer: Of `subject`.
        subject: The model.
        row: (1, columns) typed, as `Model.read` returns it.
        deadline: Of `time.monotonic`.
        y_pred: (outputs,) predicted for the row, if that is known.

    Raises:
        TooLate: The time is over.
        Unanswerable: The model fails on rows that have some of its values.
    """
    classes = subject.data.classes
    question = Question(subject, row, deadline, y_pred)
    base_value, contributions = explainer.attribute(question)
    if not np.isfinite([base_value, *contributions]).all():  # JSON has no NaN
        raise Unanswerable("the explainer attributes what is not a number")
    remainder = question.prediction - base_value - float(contributions.sum())
    if abs(remainder) <= ROUNDING * max(1.0, abs(question.prediction)):
        remainder = 0.0
    return Explanation(
        class_=classes[question.output] if classes else None,
        base_value=float(base_value),
        contributions=dict(zip(subject.columns, contributions.tolist(), strict=True)),
        remainder=remainder,
    )


def open_explainer(name: str, subject: Subject) -> Explainer:
    """Return an explainer of a model.

    Args:
        name: An adapter of the slot `explainer`.
        subject: The model.

    Raises:
        UsageError: There is none of that name, or a library that it needs is not installed.
    """
    adapter = adapters.load("explainer", name)
    try:
        explainer: Explainer = adapter.open_explainer(subject)
    except ModuleNotFoundError as error:
        raise adapters.missing_library("explainer", name, error) from None
    return explainer
