"""The rows of a request: parsed, checked for their shape, and put into a table."""

import math
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

import polars as pl

from ..config import Column, Data
from ..pipeline.ingest import read_column, written_time
from ..pipeline.validate import FailedRule
from ..prediction_log.layout import json_text
from . import pieces
from .pieces import Pieces

Row = dict[str, Any]
MAX_FAULTS = 50  # reported of one request
MAX_NAME = 80  # characters of an unknown column's name
NO_VALUE = type(None)
# Strings, and what separates or opens other values: no pass over them takes more than linear time.
TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[,\[{]', re.DOTALL)
TOKENS_AT_ONCE = 1_000
TOKENS_OF_VALUE = 4  # at most: its name, itself as a text, a comma, a bracket
ISO_TIME = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d([.,]\d{1,9})?)?([Zz]|[+-]\d\d(:?\d\d)?)?", re.ASCII
)
LARGE_BYTES = 65_536  # of a body whose tokens are counted before it is parsed


class JsonType(NamedTuple):
    """How Polars holds a type of the contract, and the JSON values that it takes as they are."""

    dtype: type[pl.DataType]
    native: set[type]


# Any other value goes through its text, as in a CSV file, so that its meaning does not depend on
# the values below and above it.
JSON_TYPES = {
    "number": JsonType(pl.Float64, {float, int, NO_VALUE}),
    "integer": JsonType(pl.Int64, {int, NO_VALUE}),
    "boolean": JsonType(pl.Boolean, {bool, NO_VALUE}),
    "category": JsonType(pl.String, {str, NO_VALUE}),
    "text": JsonType(pl.String, {str, NO_VALUE}),
    "datetime": JsonType(pl.String, {str, NO_VALUE}),
}


class Fault(NamedTuple):
    """What is wrong with a request; `row` and `column` where the fault is in one."""

    row: int | None
    column: str | None
    rule: str
    value: str | None = None
    row_count: int = 1  # rows that this fault stands for
    hint: str = ""  # on how to write it instead

    @property
    def reason(self) -> str:
        """Return the rule, and how to keep it."""
        return f"{self.rule} ({self.hint})" if self.hint else self.rule


class RequestError(Exception):
    """A request that is not answered: its faults, and the HTTP status of the response."""

    def __init__(self, faults: list[Fault], status: int = 422) -> None:
        super().__init__(faults[0].rule)
        self.faults = faults[:MAX_FAULTS]
        self.status = status

    @classmethod
    def for_request(cls, rule: str, status: int = 422, value: str | None = None) -> "RequestError":
        """Return the error of a request that is wrong as a whole."""
        return cls([Fault(None, None, rule, value)], status)


def parse_json(body: bytes, max_values: int | None = None) -> Pieces[Any]:
    """Parse the body of a request, which may hold anything.

    Args:
        max_values: Values that it may have, more or less, as each takes much more memory than its
            text.

    Raises:
        RequestError: It is not JSON, is nested too deeply, or has more values than that.
    """
    if max_values is not None and (yield from _has_more_values(body, max_values)):
        raise RequestError.for_request("too many values, send the rows in parts", 413)
    try:
        return (yield from pieces.parse(body))
    except (ValueError, RecursionError) as error:
        raise RequestError.for_request("not JSON", value=str(error)[:100]) from None


def _has_more_values(body: bytes, max_values: int) -> Pieces[bool]:
    """Check whether a body has more values than that, without parsing it."""
    if len(body) <= LARGE_BYTES or (yield from pieces.count(body, b",[{")) <= max_values:
        return False
    # Some of these may be in texts.
    tokens = TOKENS.finditer(body)
    for _ in range(0, max_values * TOKENS_OF_VALUE, TOKENS_AT_ONCE):
        if len(list(islice(tokens, TOKENS_AT_ONCE))) < TOKENS_AT_ONCE:
            return False
        yield
    return next(tokens, None) is not None


def max_values(contract: Data, max_rows: int) -> int:
    """Return how many values a request of so many rows has at most."""
    return (max_rows + 1) * (len(contract.columns) + len(contract.ignored) + 1)


def parse_rows(body: bytes, contract: Data, max_rows: int) -> Pieces[list[Row]]:
    """Parse the body of `POST /predict`: a row or a list of them, alone or as `rows` of an object.

    Raises:
        RequestError: It is not JSON, or has no rows.
    """
    document = yield from parse_json(body, max_values(contract, max_rows))
    rows = document
    if isinstance(document, dict):
        rows = document.get("rows")
        # A row may have a column of that name.
        is_wrapped = isinstance(rows, list | dict) or "rows" not in contract.columns
        if "rows" not in document or not is_wrapped:
            rows = document
    if isinstance(rows, dict) and rows:
        rows = [rows]
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        expected = '{"rows": [{"column": value, …}, …]}'
        raise RequestError.for_request(f"not {expected} with one row or more")
    return rows


def shape_faults(rows: list[Row], contract: Data) -> list[Fault]:
    """Return the faults that the contract has no rule for: of columns, and of nested values."""
    required = contract.columns.keys()
    accepted = required | contract.ignored.keys()
    faults: list[Fault] = []
    for index, row in enumerate(rows):
        if row.keys() != required:
            faults += islice(_column_faults(index, row, contract), MAX_FAULTS)
        for name, value in row.items():
            if type(value) in (dict, list) and name in accepted:
                faults.append(Fault(index, name, "not a single value"))
        if len(faults) >= MAX_FAULTS:
            break
    return faults


def _column_faults(index: int, row: Row, contract: Data) -> Iterator[Fault]:
    for name in contract.columns:
        if name not in row:
            yield Fault(index, name, "missing column")
    for name in row:
        if name not in contract.columns and name not in contract.ignored:
            yield Fault(index, None, "unknown column", json_text(name[:MAX_NAME]))


def faults_from_failures(failures: list[FailedRule], contract: Data) -> list[Fault]:
    """Return a fault for each row that `pipeline.validate.failures` names.

    The first one stands for the rows that are not named, too.
    """
    faults = []
    for failure in failures:
        indices: list[int | None] = [*failure["rows"]] or [None]
        samples = failure["samples"] if failure["column"] else []
        column = contract.columns.get(failure["column"] or "")
        hint = ""
        if column and column.type == "datetime" and failure["kind"] == "type":
            hint = " or ".join([*column.formats, "2013-01-31T18:15:00Z"])
        for number, index in enumerate(indices):
            value = samples[number] if number < len(samples) else None
            row_count = failure["count"] - len(indices) + 1 if number == 0 else 1
            rule = failure["rule"]
            faults.append(Fault(index, failure["column"], rule, value, row_count, hint))
    return faults


def frame_from_rows(rows: list[Row], contract: Data) -> pl.DataFrame:
    """Return the feature columns of JSON rows as a table that `Model.read` accepts."""
    columns = {}
    for name, column in contract.columns.items():
        gaps = (*contract.missing_values, *column.missing_values)
        has_numeric_gap = any(character.isdigit() for gap in gaps for character in gap)  # like 999
        values = [row[name] for row in rows]
        if column.type == "datetime" and any(map(_is_iso_time, values)):
            columns[name] = _times(name, values, column, contract)
            continue
        dtype, native = JSON_TYPES[column.type]
        is_native = set(map(type, values)) <= native
        if is_native and not (has_numeric_gap and int in native):
            # Too large a number, or half of a surrogate pair.
            with suppress(TypeError, OverflowError, UnicodeEncodeError):
                columns[name] = pl.Series(name, values, dtype)
                continue
        texts = [_csv_text(value, contract) for value in values]
        columns[name] = pl.Series(name, texts, pl.String)
    return pl.DataFrame(columns)


def _is_iso_time(value: Any) -> bool:
    return isinstance(value, str) and ISO_TIME.fullmatch(value.strip()) is not None


def _times(name: str, values: list[Any], column: Column, contract: Data) -> pl.Series:
    """Return times, some of which are ISO 8601 with seconds or an offset, as most callers write it.

    Returns:
        Times in UTC; texts in the contract's format if some values cannot be read.
    """
    texts = pl.Series(name, [_csv_text(value, contract) for value in values], pl.String)
    raw, read = read_column(texts, column, contract)
    unread = (raw.is_not_null() & read.is_null()).to_list()
    if not any(unread):
        return texts
    iso = [_utc(value) if bad else None for value, bad in zip(values, unread, strict=True)]
    times = read.fill_null(pl.Series(iso, dtype=pl.Datetime("us")))
    if (times.is_null() == raw.is_null()).all():
        return times.alias(name)
    form = (column.formats or ["iso"])[0]
    written = pl.DataFrame({"time": times}).select(written_time(pl.col("time"), form)).to_series()
    return written.fill_null(texts).alias(name)


def _utc(value: Any) -> datetime | None:
    """Return a time of ISO 8601 in UTC, without a zone; None if it is not one."""
    if not _is_iso_time(value):
        return None
    try:
        time = datetime.fromisoformat(value.strip().upper())
        return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def rows_from_frame(typed: pl.DataFrame, contract: Data) -> list[Row]:
    """Return typed rows as a caller would send them."""
    texts = []
    for name, column in contract.columns.items():
        if column.type == "datetime" and name in typed.columns:
            time = pl.nth(typed.get_column_index(name))
            time_format = (column.formats or ["iso"])[0]
            text = typed.select(written_time(time, time_format)).to_series()
            texts.append(text.alias(name))
    return typed.with_columns(texts).to_dicts()


def _csv_text(value: Any, contract: Data) -> str | None:
    if type(value) is not float:
        return json_text(value)
    if not math.isfinite(value):
        return None  # a gap, as in a column of numbers
    return str(value).replace(".", contract.decimal)
