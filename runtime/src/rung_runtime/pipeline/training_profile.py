"""The profile of a model: what its training rows and its predictions looked like.

It is `profile.json` of a package, by which drift is recognized later.
"""

from typing import TypedDict

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ..config import Data
from .correlations import add_correlations
from .ingest import inputs
from .profiles import ColumnProfile, summaries, summary
from .seasons import CLOCK, add_usual


class TrainingProfile(TypedDict):
    """`profile.json`: the training rows, each feature, and the predictions."""

    rows: int
    columns: dict[str, ColumnProfile]
    prediction: ColumnProfile


def profile(
    train: pl.DataFrame,
    predictions: pl.DataFrame,
    data: Data,
    holdout: pl.DataFrame | None = None,
) -> TrainingProfile:
    """Return what rows and predictions looked like, so that drift can be recognized later.

    Returns:
        For each feature of the training rows, under `columns`, its share of `gaps`, and
        `percentiles` 0 to 100 (of seconds for a datetime, of characters for a text, which the
        profile must not repeat) or the `counts` of its categories. The
        same of the predictions for the holdout: of the positive class's probability, of the
        classes that were named, or of the values. Categories have `missing` too, the share of real
        gaps, and `unlisted`, the share of values to expect that the contract does not list. Numbers
        have their `correlations` with the columns after them. Where the contract has a time, all
        have what is `usual` of windows of the training rows (`seasons.add_usual`).
    """
    y_pred = predictions["given"]
    if data.task == "multiclass":
        likeliest = y_pred.arr.arg_max().cast(pl.Int64)
        y_pred = likeliest.replace_strict(dict(enumerate(data.classes)), return_dtype=pl.String)
    elif data.task == "binary":
        y_pred = y_pred.arr.last()
    columns = summaries(train, data)
    for name, seen in columns.items():
        if data.columns[name].type == "category":
            seen["missing"] = train[name].null_count() / max(1, train.height)
            parts = [train[name]] if holdout is None else [train[name], holdout[name]]
            share, weight = unlisted_share(pl.concat(parts), data.columns[name].categories)
            seen["unlisted"] = share
            seen["unlisted_rows"] = round(train.height * weight)
    frame = inputs(train, data)
    prediction = summary(y_pred)
    with threadpool_limits(1, "blas"):  # for windows of some rows, threads take longer
        ranked = add_correlations(columns, frame)
        if data.time and data.time in train.columns:
            if data.time in columns:
                columns[data.time][CLOCK] = True
            add_usual(columns, frame, train[data.time], train.height, ranked)
            if holdout is not None and holdout.height == y_pred.len():
                answers = {"prediction": prediction}
                y_frame = pl.DataFrame({"prediction": y_pred})
                add_usual(answers, y_frame, holdout[data.time], y_pred.len())
    return {"rows": train.height, "columns": columns, "prediction": prediction}


def unlisted_share(values: pl.Series, listed: list[str]) -> tuple[float, float]:
    """Return the share of values to expect, in rows to come, that a list does not have.

    A list of the most frequent values was chosen by these very rows, and covers them better than it
    will cover others: of 300 equally frequent values, the 200 that happened to come most often. So
    each row is judged by the list that the other rows would choose (Stone, 1974). Where the list is
    complete, the share is that of the values seen once (Good, 1953). The less the list is that of
    the most frequent values, as people chose it or other rows, the less is corrected.

    Args:
        values: (n,) as the source has them, gaps as null.
        listed: The categories of the contract.

    Returns:
        The share, of all n rows, gaps among them; and the part of these rows that would tell a
        share without such a correction as exactly.
    """
    frequencies = values.drop_nulls().alias("value").cast(pl.String).value_counts()
    known = frequencies["value"].is_in(listed)
    outside = int(frequencies["count"].filter(~known).sum())
    size = int(known.sum())
    if not size:
        return outside / max(1, len(values)), 1.0
    counts = frequencies["count"].sort(descending=True)
    least = int(counts[size - 1])
    # How far the list is that of the most frequent values: 1 if it is, 0 if it is no better than
    # any other of its length, and so was not chosen by these rows.
    shared = int((frequencies.filter(known)["count"] >= least).sum()) / size
    by_chance = size / len(counts)
    alike = 1.0
    if by_chance < 1:
        # In a design in which each value comes equally often, nothing was chosen by chance.
        spread = min(1.0, float(np.var(counts.to_numpy()) / counts.to_numpy().mean()))
        alike = spread * max(0.0, (shared - by_chance) / (1 - by_chance))
    above = int((counts > least).sum())
    equal = int((counts == least).sum())
    places = size - above  # of the list, for those that came `least` times
    # A row of one that came once more is one of `equal + 1` without itself, a row of one that came
    # `least` times one of those that came once less.
    lost = (least + 1) * int((counts == least + 1).sum()) * (1 - (places + 1) / (equal + 1))
    below = int((counts == least - 1).sum()) + 1
    kept = 1 / below if places == equal and least > 1 else 0.0
    lost += least * places * (1 - kept)
    lost *= alike
    share = (outside + lost) / len(values)
    binomial = len(values) * share * (1 - share)
    # Lost rows come and go with whole categories, some `least` at a time.
    return share, binomial / (binomial + least * lost) if binomial else 1.0
