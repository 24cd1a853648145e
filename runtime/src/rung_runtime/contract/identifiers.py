"""Identifiers, and other columns that a model would learn nothing from."""

from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from .column_limits import MAX_CATEGORIES
from .column_names import ID, THINGS, dated, timely, words

MAX_REPEATED_SHARE = 0.1  # of the rows may have the identifier of another row
MANY_VALUES = 20  # different ones, from which on they are hardly categories
MAX_UNIQUE_SHARE = 0.5  # of the rows may have a text of their own
MIN_COVERED = 0.5  # of the rows must have one of the most frequent categories
MIN_TEXT_SHARE = 0.3  # of the rows must have a sentence of their own
MIN_SPACES = 2  # of a sentence, on average


class Useless(NamedTuple):
    """Why a model would learn nothing from a column."""

    kind: Literal["identifier", "unique", "row number", "other"]
    reason: str


IDENTIFIER = Useless("identifier", "an identifier by its name, different in every row")
UNIQUE = Useless("unique", "most rows have a value of their own, as an identifier has")
ROW_NUMBER = Useless("row number", "the number of the row, an identifier")


def find_useless(values: pl.Series, name: str) -> Useless | None:
    """Return why a model would learn nothing from a column; None if it may."""
    known = values.drop_nulls()
    n = known.n_unique()
    if n == 0:
        return Useless("other", "without a value in any row")
    if n == 1 and len(known) == len(values):
        return Useless("other", f"the same in every row, {known[0]!r}")
    has_fractions = values.dtype.is_float() and bool((known % 1 != 0).any())
    has_id_name = bool(ID.search(name))
    repeated = len(known) - n
    is_nearly_unique = repeated <= MAX_REPEATED_SHARE * len(known) and MANY_VALUES < n < len(values)
    if has_id_name and not dated(name) and not has_fractions and is_nearly_unique:
        return Useless("other", _repeated_identifier(repeated))
    if values.dtype.is_numeric() and n == len(values):
        return _unique_numbers(known, name, has_fractions=has_fractions)
    if values.dtype != pl.String or n <= MANY_VALUES:
        return None
    if n > MAX_UNIQUE_SHARE * len(known):
        return IDENTIFIER if n == len(known) and has_id_name else UNIQUE
    frequent = known.value_counts(sort=True)["count"].head(MAX_CATEGORIES).sum()
    covered = frequent / len(known)
    if covered < MIN_COVERED:
        reason = f"{n} different values; the top {MAX_CATEGORIES} cover {covered:.0%}"
        return Useless("other", reason)
    return None


def _repeated_identifier(repeated: int) -> str:
    if not repeated:
        return "an identifier by its name"
    rows = "1 row repeats" if repeated == 1 else f"{repeated:,} rows repeat"
    return f"WARNING: an identifier by its name, which {rows}"


def _unique_numbers(known: pl.Series, name: str, *, has_fractions: bool) -> Useless | None:
    """Judge numbers that differ in every row: identifiers, row numbers, or quantities."""
    if has_fractions:
        return IDENTIFIER if ID.search(name) else None  # 1.1, 1.2, 2.1: a place within a place
    span = float(np.ptp(known.to_numpy()))
    is_in_order = known.is_sorted() or known.is_sorted(descending=True)
    is_dense = len(known) > 0.5 * (span + 1)
    if is_in_order and is_dense and not timely(name):
        return ROW_NUMBER
    parts = set(words(name))
    names_a_thing = bool(parts) and parts <= THINGS
    return IDENTIFIER if ID.search(name) or names_a_thing else None  # else a rank, perhaps


def is_text(values: pl.Series) -> bool:
    """Check whether a column holds sentences: many different ones, of several words each."""
    if values.dtype != pl.String:
        return False
    known = values.drop_nulls()
    n = known.n_unique()
    are_many = n > MANY_VALUES and (n > MIN_TEXT_SHARE * len(known) or n > MAX_CATEGORIES)
    return are_many and known.str.count_matches(r"\s+").sum() >= MIN_SPACES * len(known)
