"""Labels in batches: what arrives together is judged together."""

import itertools
from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from ..config import Data
from ..config.drift import Drift

MIN_LABELS = 50  # fewer say nothing about performance


class Batch(NamedTuple):
    """Labels that arrived together."""

    rows: pl.DataFrame  # time, told, truth, score, probabilities or prediction
    arrived: datetime


def labelled(rows: pl.DataFrame, data: Data) -> pl.DataFrame:
    """Return the rows with a label, `truth` typed, and a `score` by which labels may be selected.

    The score is the probability of the positive class, of the class that is predicted, or the
    predicted value.
    """
    dtype = pl.Enum(data.classes) if data.classes else pl.Float64()
    typed = rows.with_columns(pl.col("truth").cast(dtype, strict=False), score=score(data))
    return typed.drop_nulls("truth")


def score(data: Data) -> pl.Expr:
    """Return the expression of a prediction as one number."""
    if data.task == "regression":
        return pl.col("prediction")
    if data.task == "binary":
        return pl.col(f"p:{data.classes[-1]}")
    return pl.max_horizontal(f"p:{name}" for name in data.classes)


def batches(rows: pl.DataFrame, settings: Drift) -> list[Batch]:
    """Cut labelled rows into batches, in the order in which the labels arrived.

    What arrives at once is a batch, with as many arrivals before it as it takes to have 50 labels;
    of more labels than a window has rows, or of several windows at once, there are several batches.
    A batch stays what it is, whatever arrives later.
    """
    ordered = rows.sort("told", "time", "request_id", "row")
    arrivals = ordered["told"].to_physical().to_numpy()
    times = ordered["time"].to_physical().to_numpy()
    result: list[Batch] = []
    begin = 0
    while begin + MIN_LABELS <= len(ordered):
        end = int(np.searchsorted(arrivals, arrivals[begin + MIN_LABELS - 1], "right"))
        span = (times[begin:end].max() - times[begin:end].min()) / 3.6e9
        parts = round((end - begin) / settings.window.rows)
        if span > 1.5 * settings.window.hours:
            parts = max(parts, settings.min_windows_in_alarm)
        parts = max(1, min(parts, (end - begin) // MIN_LABELS))
        cuts = np.linspace(begin, end, parts + 1).round().astype(int).tolist()
        result += [
            Batch(ordered[first:last], ordered["told"][last - 1])
            for first, last in itertools.pairwise(cuts)
        ]
        begin = end
    return result


def pooled(batches: list[Batch], size: int) -> list[Batch]:
    """Return each batch with those before it until there are `size` labels, as few tell little."""
    pools = []
    for last in range(len(batches)):
        first = last
        labels = len(batches[last].rows)
        while first and labels < size:
            first -= 1
            labels += len(batches[first].rows)
        rows = pl.concat([batch.rows for batch in batches[first : last + 1]])
        pools.append(Batch(rows, batches[last].arrived))
    return pools
