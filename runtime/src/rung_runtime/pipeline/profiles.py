"""Profiles: what `profile.json` of a package says about the columns of the training rows."""

from typing import Required, TypedDict

import polars as pl

from ..config import Data
from .ingest import inputs


class UsualChange(TypedDict):
    """The largest change of windows against all training rows: see `differences.Usual`."""

    psi: float
    distance: float
    cohens_w: float
    gap_change: float


class UsualOfLength(UsualChange, total=False):
    """What is usual of windows of one length."""

    hours: Required[float]
    windows: Required[int]
    same_season: UsualChange  # against the same time of the year, if that is known
    correlations: dict[str, float]  # the largest change of each, transformed


class PartProfile(TypedDict, total=False):
    """A column in one part of the year."""

    rows: Required[int]
    gaps: Required[float]
    percentiles: list[float]  # every second one
    counts: dict[str, int]


class ColumnProfile(TypedDict, total=False):
    """A column of the training rows: it has `percentiles` or `counts`."""

    gaps: Required[float]  # the share; with categories that the contract does not list
    percentiles: list[float]  # 0 to 100; seconds of a datetime, characters of a text
    counts: dict[str, int]  # of categories
    missing: float  # of categories, the share of real gaps
    unlisted: float  # the share of values to expect that the contract does not list
    unlisted_rows: int  # that `unlisted` is worth
    correlations: dict[str, float]  # with the columns after this one
    clock: bool  # marks the column that says when a row was created
    parts: list[PartProfile]  # of the year
    usual: list[UsualOfLength]  # shortest windows first; the last one is all training rows


Columns = dict[str, ColumnProfile]  # by name


def summaries(rows: pl.DataFrame, data: Data) -> dict[str, ColumnProfile]:
    """Return the summary of each feature of typed rows; of a text, that of its length."""
    columns = {}
    for column in inputs(rows, data).get_columns():
        is_text = data.columns[column.name].type == "text"
        columns[column.name] = summary(column.str.len_chars() if is_text else column)
    return columns


def summary(values: pl.Series) -> ColumnProfile:
    """Return the share of gaps, and percentiles or counts."""
    gaps = values.null_count() / len(values)
    known = values.drop_nulls()
    if values.dtype in (pl.Enum, pl.Boolean, pl.String):
        counts = dict(known.alias("value").cast(pl.String).value_counts(sort=True).iter_rows())
        return {"gaps": gaps, "counts": counts}
    numbers = known.dt.epoch("s") if values.dtype == pl.Datetime else known
    index = [round(q / 100 * (len(known) - 1)) for q in range(101)] if len(known) else []
    return {"gaps": gaps, "percentiles": numbers.sort()[index].to_list()}
