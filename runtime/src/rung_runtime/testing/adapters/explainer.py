"""What every explainer promises."""

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from ...config import Data
from ...explanations import Explainer, Explanation, Subject, TooLate, explain
from ..model_formats import ModelFormatContract as ModelFormatContract

# Of everything that a contract can have; the model below uses the first five.
EXPLAINED = {
    "wind": {"type": "number", "nullable": True},
    "gusts": {"type": "number", "nullable": True},
    "city": {"type": "category", "categories": ["Oslo", "Rome"], "allow_unknown": True},
    "note": {"type": "text", "nullable": True},
    "time": {"type": "datetime"},
    "seats": {"type": "integer"},
    "is_full": {"type": "boolean"},
    "height": {"type": "number"},
    "width": {"type": "number"},
    "depth": {"type": "number"},
}
UNUSED = list(EXPLAINED)[5:]
NOON = datetime(2026, 1, 1, 12)
BACKGROUND_ROWS = 100
EXPLAINED_ROW: dict[str, Any] = {
    "wind": 2.0,
    "gusts": 2.0,
    "city": "Oslo",
    "note": "a storm, and another storm",
    "time": NOON.replace(hour=18),
    "seats": 150,
    "is_full": True,
    "height": 3.0,
    "width": -3.0,
    "depth": 3.0,
}
CLASSES = {"binary": ["no", "yes"], "multiclass": ["low", "middle", "high"], "regression": []}


def explained_subject(
    task: str, watch: Callable[[pl.DataFrame], None] = lambda rows: None
) -> Subject:
    """Return a model that uses five of ten columns, `wind` as it uses `gusts`.

    Args:
        task: Of its contract.
        watch: Called with the rows of each prediction.
    """
    data = Data.model_validate(
        {
            "source": "x.csv",
            "target": "y",
            "task": task,
            "classes": CLASSES[task],
            "split": {"by": "stratified"},
            "columns": EXPLAINED | {"y": {"type": "category" if CLASSES[task] else "number"}},
        }
    ).for_predicting()
    random = np.random.default_rng(0)
    n = BACKGROUND_ROWS
    speeds = np.sort(random.normal(size=n))
    times = [NOON.replace(hour=int(hour)) for hour in random.integers(0, 24, n)]
    background = pl.DataFrame(
        {
            # The same values with equal frequency, so that both columns are worth the same.
            "wind": random.permutation(speeds),
            "gusts": random.permutation(speeds),
            "city": pl.Series(random.choice(["Oslo", "Rome"], n), dtype=pl.Enum(["Oslo", "Rome"])),
            "note": [""] * n,
            "time": pl.Series(times, dtype=pl.Datetime("us")),
            "seats": random.integers(50, 400, n),
            "is_full": random.random(n) < 0.5,
            "height": random.normal(size=n),
            "width": random.normal(size=n),
            "depth": random.normal(size=n),
        }
    )

    def predict(rows: pl.DataFrame) -> NDArray[np.float64]:
        watch(rows)
        value = rows.select(
            pl.col("wind").fill_null(1.0)
            + pl.col("gusts").fill_null(1.0)
            + pl.col("city").cast(pl.String).replace_strict({"Oslo": 1.0}, default=0.0)
            + pl.col("note").fill_null("").str.count_matches("storm")
            + pl.col("time").dt.hour() / 12
        ).to_series()
        values = value.to_numpy()
        if task == "regression":
            return values
        positive = 1 / (1 + np.exp(2 - values))
        if task == "binary":
            return np.column_stack([1 - positive, positive])
        return np.column_stack([(1 - positive) / 2, (1 - positive) / 2, positive])

    return Subject(predict, background, data)


class ExplainerContract:
    """Inherit it, and give the fixture `open_explainer`, the function of the adapter.

    Attributes:
        tolerance: How far contributions may be from what they should be, relative to how far the
            prediction is from the base value.
    """

    tolerance = 1e-6

    @pytest.fixture
    def open_explainer(self) -> Callable[[Subject], Explainer]:
        raise NotImplementedError("give a fixture open_explainer: see ExplainerContract")

    @pytest.mark.parametrize("task", list(CLASSES))
    def test_contributions_and_base_value_add_up_to_the_prediction(
        self, open_explainer: Callable[[Subject], Explainer], task: str
    ) -> None:
        subject = explained_subject(task)
        explanation = _explanation(open_explainer, subject)
        predicted = subject.outputs(_row(subject))[0, -1]
        total = sum(explanation.contributions.values()) + explanation.remainder
        assert explanation.base_value + total == pytest.approx(predicted, abs=1e-9)
        assert explanation.class_ == (CLASSES[task][-1] if CLASSES[task] else None)
        assert list(explanation.contributions) == list(EXPLAINED)

    def test_a_column_that_the_model_does_not_use_gets_nothing(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        explanation = _explanation(open_explainer, explained_subject("binary"))
        allowed = self.tolerance * _spread(explanation)
        assert max(abs(explanation.contributions[name]) for name in UNUSED) <= allowed

    def test_columns_that_the_model_uses_alike_get_the_same(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        explanation = _explanation(open_explainer, explained_subject("regression"))
        difference = explanation.contributions["wind"] - explanation.contributions["gusts"]
        assert abs(difference) <= self.tolerance * _spread(explanation)

    def test_what_drives_a_prediction_is_found(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        explanation = _explanation(open_explainer, explained_subject("regression"))
        ranked = sorted(explanation.contributions, key=_size(explanation), reverse=True)
        assert set(ranked[:5]) == set(EXPLAINED) - set(UNUSED)
        assert min(explanation.contributions[name] for name in ranked[:5]) > 0

    def test_the_same_question_gets_the_same_answer(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        subject = explained_subject("binary")
        explainer = open_explainer(subject)
        first = explain(explainer, subject, _row(subject))
        explain(explainer, subject, _row(subject, wind=None))
        assert explain(explainer, subject, _row(subject)) == first
        assert _explanation(open_explainer, explained_subject("binary")) == first

    def test_gaps_and_categories_that_nobody_listed_are_explained(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        subject = explained_subject("regression")
        row = _row(subject, wind=None, city="Paris", note=None)
        explanation = explain(open_explainer(subject), subject, row)
        assert np.isfinite(list(explanation.contributions.values())).all()
        assert explanation.contributions["city"] < 0
        assert explanation.contributions["wind"] > 0

    def test_a_time_limit_is_kept(self, open_explainer: Callable[[Subject], Explainer]) -> None:
        subject = explained_subject("binary")
        explainer = open_explainer(subject)
        with pytest.raises(TooLate):
            explain(explainer, subject, _row(subject), time.monotonic() - 1)

    def test_a_model_that_is_slow_is_not_asked_again_once_the_time_is_over(
        self, open_explainer: Callable[[Subject], Explainer]
    ) -> None:
        deadline = float("inf")
        late: list[int] = []  # rows of each prediction that began after the deadline

        def watch(rows: pl.DataFrame) -> None:
            if time.monotonic() > deadline:
                late.append(len(rows))
            while len(rows) > 1 and time.monotonic() <= deadline != float("inf"):
                time.sleep(0.01)

        subject = explained_subject("binary", watch)
        explainer = open_explainer(subject)
        assert subject.base_predictions.size
        deadline = time.monotonic() + 0.1
        with pytest.raises(TooLate):
            explain(explainer, subject, _row(subject), deadline)
        assert late == []


def _row(subject: Subject, **changes: Any) -> pl.DataFrame:
    """Return the row that is explained, as `Model.read` returns it."""
    schema = dict(subject.background.schema) | {"city": pl.String()}
    return pl.DataFrame([EXPLAINED_ROW | changes], schema)


def _explanation(open_explainer: Callable[[Subject], Explainer], subject: Subject) -> Explanation:
    return explain(open_explainer(subject), subject, _row(subject))


def _spread(explanation: Explanation) -> float:
    return abs(sum(explanation.contributions.values()))


def _size(explanation: Explanation) -> Callable[[str], float]:
    return lambda name: abs(explanation.contributions[name])
