"""Explain: model and holdout → `explanations.json`, which columns the predictions come from.

Part of `ml evaluate`. No package has this document, as it holds values of rows.
"""

import time
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from .. import UsageError, project
from ..adapters.explainer_shapley import ShapleyValues
from ..artifacts import HOLDOUT, MODEL, TRAIN, digest, now, read, write
from ..config import Config, Data
from ..explanations import (
    Explanation,
    Subject,
    TooLate,
    Unanswerable,
    background,
    background_size,
    explain,
    open_explainer,
)
from ..model_package import predict
from ..problem import features
from ..records import (
    ColumnContributions,
    Contribution,
    ExplainedRow,
    ExplanationsDocument,
    MetricsDocument,
    Point,
    Which,
)
from .formatting import short
from .ingest import inputs, labels
from .metrics import Floats
from .private import private_columns, public
from .profiles import ColumnProfile, summaries

MAX_ROWS = 24  # of the holdout that the contributions of columns are of
ROUGH_BACKGROUND = 24  # rows: enough, as errors even out over many rows that are explained
ROUGH_PREDICTIONS = 600  # for one of them
MAX_SECONDS = 60.0  # beyond which a model is too slow for it
MAX_TEXT = 60  # characters of a category in the report


class Evaluated(NamedTuple):
    """A model, and what it was trained and evaluated on."""

    fitted: Any
    train: pl.DataFrame  # (n, …) typed rows
    holdout: pl.DataFrame
    y_pred: Floats  # of the holdout


def write_explanations(evaluated: Evaluated, config: Config) -> None:
    """Write `artifacts/explanations.json` for the model that was evaluated."""
    started = now()
    metrics = read(MetricsDocument)
    document = explanations(evaluated, config)
    inputs_read = {str(path): digest(path) for path in (MODEL, TRAIN, HOLDOUT)}
    write(document, started=started, data_digest=metrics.data_digest, inputs=inputs_read)


def explanations(evaluated: Evaluated, config: Config) -> ExplanationsDocument:
    """Return what columns contribute to predictions, and some predictions in full.

    A model that takes too long, or fails on values that never came together in a row, is not
    explained, and the document says why.

    Args:
        evaluated: The model, with the rows that the background is drawn from, and those of which
            some are explained.
        config: With the contract.
    """
    data = config.data
    fitted, train, holdout, y_pred = evaluated
    name = project.current().explainer
    profile = summaries(train, data)
    columns: list[ColumnContributions] = []
    examples: list[ExplainedRow] = []
    reason: str | None = None
    sample = np.random.default_rng(0).permutation(holdout.height)[:MAX_ROWS]

    def predict_rows(some: pl.DataFrame) -> Floats:
        return predict(fitted, some, data, features)

    deadline = time.monotonic() + MAX_SECONDS
    try:
        rough = _subject(predict_rows, profile, data, ROUGH_BACKGROUND)
        shapley = ShapleyValues(rough, predicted_rows=ROUGH_PREDICTIONS)
        explained = [
            explain(shapley, rough, holdout.slice(index, 1), deadline, y_pred[index])
            for index in sample
        ]
        columns = _columns(explained, inputs(holdout[sample], data))
        subject = _subject(predict_rows, profile, data, background_size(len(data.features)))
        explainer = open_explainer(name, subject)
        for which, index in _chosen(y_pred, labels(holdout, data), data).items():
            row = holdout.slice(index, 1)
            explanation = explain(explainer, subject, row, deadline, y_pred[index])
            examples.append(_example(which, row, explanation, y_pred[index], data))
    except TooLate:
        reason = f"it would take more than {MAX_SECONDS:.0f} s"
    except UsageError as error:
        reason = str(error)
    except Unanswerable as error:
        reason = f"the model cannot answer rows of mixed values: {error}"
    except Exception as error:  # of an explainer, none of which may fail a training
        message = str(error).partition("\n")[0]
        reason = f"the explainer {name} failed: {type(error).__name__}: {message}"
    document = ExplanationsDocument(
        model_digest=digest(MODEL),
        method=name,
        rows=len(sample) if columns else 0,
        columns=columns,
        examples=examples,
        reason=reason,
    )
    return public(document, private_columns())


def _subject(
    predict_rows: Any, profile: dict[str, ColumnProfile], data: Data, rows: int
) -> Subject:
    return Subject(predict_rows, background(profile, data, rows), data)


def _columns(explained: list[Explanation], rows: pl.DataFrame) -> list[ColumnContributions]:
    """Return what each column contributes to the predictions of rows, the most first."""
    columns = []
    for values in rows.get_columns():
        contributions = [explanation.contributions[values.name] for explanation in explained]
        points = [
            Point(contribution=contribution, rank=rank)
            for contribution, rank in zip(contributions, _ranks(values), strict=True)
        ]
        mean = float(np.abs(contributions).mean())
        columns.append(ColumnContributions(column=values.name, mean=mean, points=points))
    return sorted(columns, key=lambda part: part.mean, reverse=True)


def _ranks(values: pl.Series) -> list[float | None]:
    """Return where each value is among the others, from 0 to 1; None of what has no order."""
    if values.dtype in (pl.Enum, pl.String) or values.drop_nulls().n_unique() < 2:
        return [None] * len(values)
    ranks = values.to_physical().cast(pl.Float64).rank("average").to_frame("rank")
    rank = pl.col("rank")
    between = (rank - rank.min()) / (rank.max() - rank.min())
    return ranks.select(between).to_series().to_list()


def _chosen(y_pred: Floats, y_true: Floats, data: Data) -> dict[Which, int]:
    """Return the rows to show: by their predictions, and the one of the largest error."""
    if data.task == "regression":
        scores = y_pred
        errors = np.abs(y_pred - y_true)
    else:
        scores = y_pred[:, 1] if data.task == "binary" else y_pred.max(axis=1)
        errors = 1 - y_pred[np.arange(len(y_true)), y_true.astype(int)]
    order = np.argsort(scores, kind="stable")
    return {
        "highest": int(order[-1]),
        "lowest": int(order[0]),
        "worst": int(errors.argmax()),
    }


def _example(
    which: Which,
    row: pl.DataFrame,
    explanation: Explanation,
    y_pred: Any,
    data: Data,
) -> ExplainedRow:
    class_ = explanation.class_
    contributions = [
        Contribution(column=name, value=_shown(row[name][0], data, name), contribution=value)
        for name, value in explanation.contributions.items()
    ]
    contributions.sort(key=lambda part: abs(part.contribution), reverse=True)
    return ExplainedRow(
        which=which,
        class_=class_,
        predicted=float(y_pred if class_ is None else y_pred[data.classes.index(class_)]),
        actual=_text(row[data.target][0]),
        base_value=explanation.base_value,
        contributions=contributions,
        remainder=explanation.remainder or None,
    )


def _shown(value: Any, data: Data, name: str) -> str | None:
    if value is None:
        return None
    if data.columns[name].type == "text":
        return f"a text of {len(value):,} characters"  # which no document repeats
    return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return short(value)
    return str(value)[:MAX_TEXT]
