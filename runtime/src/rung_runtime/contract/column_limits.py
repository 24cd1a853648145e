"""Limits of a column: which values the contract allows, and what is doubtful about them."""

import math
from datetime import UTC, datetime, timedelta

import polars as pl

from ..config import Column
from .column_names import dated, possible_range
from .wording import quote_all

MAX_CATEGORIES = 200  # of a column; the boosted trees take at most 255
MANY_CATEGORIES = 50  # from which on others must be expected
RARE_ROWS = 3  # a category in fewer rows shows that others must be expected
MAX_MAGNITUDE = 1e300  # of a number, beyond which no range is set
FUTURE_TOLERANCE = timedelta(days=2)
# Numbers that stand for "no value" in files without a word for it.
SENTINELS = [-99999, -9999, -999, -99, -9, 999, 9999, 99999, 999999, 9999999]


def limit_column(
    values: pl.Series, column: Column, name: str, *, any_value: bool
) -> tuple[Column, str]:
    """Complete a column of the contract with the values that it allows, and a sentence on them.

    Args:
        values: (n,) of the column, as it is typed.
        column: Its type.
        name: Its name.
        any_value: Whether it may hold any value of its type, as keys and groups do.
    """
    known = values.drop_nulls()
    gaps = values.null_count()
    column = column.model_copy(update={"nullable": gaps > 0})
    note = f"{known.n_unique()} different values, {gaps} missing"
    if column.type == "text":
        return column, f"{note}; WARNING: read as text: hashed TF-IDF of its words"
    if column.type == "category":
        if any_value:
            return column.model_copy(update={"categories": [], "allow_unknown": True}), note
        column, limits = _limit_categories(known, column)
        return column, note + limits
    if known.dtype.is_numeric() and len(known) and not any_value:
        column, limits = _limit_numbers(known, column, name)
        return column, note + limits
    if column.type == "datetime" and len(known):
        return column, note + _describe_times(known, column)
    return column, note


def _limit_categories(known: pl.Series, column: Column) -> tuple[Column, str]:
    counts = known.value_counts().sort(-pl.col("count").cast(pl.Int64), "values")
    are_many = len(counts) > MANY_CATEGORIES
    is_open = are_many or bool((counts["count"] < RARE_ROWS).any())
    categories = sorted(counts["values"].head(MAX_CATEGORIES))
    note = ""
    if len(counts) > MAX_CATEGORIES:
        note = f"; the {MAX_CATEGORIES} most frequent are listed, all others are read as missing"
    elif is_open:
        reason = "there are many" if are_many else "some are rare"
        note = f"; new ones are fine, as {reason}"
    column = column.model_copy(update={"categories": categories, "allow_unknown": is_open})
    return column, note + _warn_of_capitals(known)


def _limit_numbers(known: pl.Series, column: Column, name: str) -> tuple[Column, str]:
    """Allow the range of the values and as much again on either side, to two digits."""
    low, high = _lowest_and_highest(known)
    magnitude = max(abs(low), abs(high))
    note = ""
    if magnitude < MAX_MAGNITUDE:
        margin = max(high - low or magnitude or 1.0, 1e-6 * magnitude, 1e-300)
        digits = 1 - math.floor(math.log10(margin))
        lowest = low - margin if low < 0 else max(0.0, low - margin)
        limits = round(lowest, digits), round(high + margin, digits)
        limits = possible_range(name, low, high) or limits
        column = column.model_copy(update={"min": limits[0], "max": limits[1]})
        note = f"; may be {limits[0]:g} to {limits[1]:g}"
    note += _warn_of_sentinels(known)
    if may_count_time(name, known):
        note += (
            "; WARNING: numbers under a name of time: if they count days or seconds, turn them "
            "into dates in problem/data.py"
        )
    return column, note


def _describe_times(known: pl.Series, column: Column) -> str:
    note = f"; read as {quote_all(column.formats)}" if column.formats else ""
    last = known.max()
    now = datetime.now(UTC).replace(tzinfo=None)
    if isinstance(last, datetime) and last > now + FUTURE_TOLERANCE:
        note += f"; WARNING: the last is in the future, {last}"
    # Of two formats that read all words, the one that begins with the day was taken.
    begins_with = {form[:2] for form in column.formats if "%d" in form and "%m" in form}
    # Asked last: only words that such a format reads are sure to be times here.
    if "%d" in begins_with and ("%m" in begins_with or not (known.dt.day() > 12).any()):
        note += "; WARNING: day and month may be the other way round"
    return note


def may_count_time(name: str, known: pl.Series) -> bool:
    """Check whether numbers may be times in an unknown unit, such as a spreadsheet's days."""
    if known.is_empty() or not known.dtype.is_numeric() or not dated(name):
        return False
    low, high = _lowest_and_highest(known)
    return low >= 1000 and high >= 5000


def _warn_of_capitals(known: pl.Series) -> str:
    """Return a warning if categories differ in nothing but their case."""
    words = known.unique().sort().to_frame("word")
    alike = words.group_by(pl.col("word").str.to_lowercase().alias("lower")).agg("word")
    pairs = alike.filter(pl.col("word").list.len() > 1).sort("lower")
    if pairs.is_empty():
        return ""
    return (
        f"; WARNING: {' and '.join(map(repr, pairs['word'][0][:3]))} differ in capitals alone: if "
        "they mean the same, make them one in problem/data.py"
    )


def _warn_of_sentinels(known: pl.Series) -> str:
    """Return a warning if numbers such as -999 lie far from all others, as codes for gaps do."""
    numbers = known.cast(pl.Float64)
    present = [value for value in SENTINELS if (numbers == value).any()]
    others = numbers.filter(~numbers.is_in([float(value) for value in present]))
    if not present or others.is_empty():
        return ""
    low, high = _lowest_and_highest(others)
    margin = max(high - low, 1.0)
    far = [value for value in present if value < low - margin or value > high + margin]
    if not far:
        return ""
    listed = ", ".join(f"{value} ({(numbers == value).sum():,} rows)" for value in far)
    return (
        f"; WARNING: {listed} looks like a missing value: if it is one, list it under "
        "missing_values of the column in config/data.yaml"
    )


def _lowest_and_highest(known: pl.Series) -> tuple[float, float]:
    numbers = known.to_numpy()
    return float(numbers.min()), float(numbers.max())
