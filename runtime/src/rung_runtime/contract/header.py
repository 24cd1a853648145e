"""Header: the names of a file's columns, and the ones that a person asks for."""

import re
from difflib import get_close_matches
from itertools import pairwise

import polars as pl

from ..exceptions import UsageError
from .wording import quote_all

NUMBER = re.compile(r"\s*[-+]?\d*[.,]?\d+([eE][-+]?\d+)?\s*")
MIN_NUMBER_SHARE = 0.4  # of the names must be numbers, for these to be data
MIN_DATA_NAMES = 2  # unless there are fewer columns


def check_header(rows: pl.DataFrame, source: str) -> None:
    """Refuse a file whose first line is data, so that it has no names.

    Raises:
        UsageError: Names are numbers (other than ascending ones, such as 0, 1, 2 or wavelengths),
            or are values of their own columns.
    """
    names = rows.columns
    data_names = _names_that_are_numbers(names) + _names_that_are_values(rows)
    if data_names >= MIN_DATA_NAMES or (data_names and data_names == len(names)):
        raise UsageError(
            f"{source}: the first line looks like data, not like names ({quote_all(names[:4])}): "
            "put a line with the names of the columns above it"
        )


def _names_that_are_numbers(names: list[str]) -> int:
    """Return how many names are numbers, if these look like data."""
    numbers = [name for name in names if NUMBER.fullmatch(name)]
    values = [float(name.replace(",", ".")) for name in numbers]
    are_ascending = all(later > sooner for sooner, later in pairwise(values))
    is_one_fraction = len(numbers) == 1 and not numbers[0].strip().isdigit()
    are_many = len(numbers) >= MIN_NUMBER_SHARE * len(names)
    return len(numbers) if are_many and (is_one_fraction or not are_ascending) else 0


def _names_that_are_values(rows: pl.DataFrame) -> int:
    """Return how many text columns hold their own name as a value, if all of them do."""
    texts = [
        column
        for column in rows.get_columns()
        if column.dtype == pl.String and not NUMBER.fullmatch(column.name)
    ]
    own = sum(bool(column.name) and (column == column.name).any() for column in texts)
    return own if rows.width > 1 and own == len(texts) else 0


def find_column(rows: pl.DataFrame, name: str, source: str) -> str:
    """Return the column of that name; spaces around a name in the file need not be typed.

    Raises:
        UsageError: There is none.
    """
    if name in rows.columns:
        return name
    same = [column for column in rows.columns if column.strip() == name.strip()]
    if len(same) == 1 and name.strip():
        return same[0]
    near = get_close_matches(name, rows.columns, 3, 0.5) or rows.columns[:9]
    raise UsageError(f"{source}: there is no column {name!r}; there is {quote_all(near)}")
