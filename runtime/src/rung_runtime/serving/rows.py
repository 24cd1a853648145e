"""The rows of a request: parsed, checked for their shape, and put into a table."""

import json
import math
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import polars as pl

from ..config import Data
from ..pipeline.ingest import written_time
from ..pipeline.validate import FailedRule
from ..prediction_log.layout import json_text

Row = dict[str, Any]
MAX_FAULTS = 50  # reported of one request
MAX_NAME = 80  # characters of an unknown column's name
NO_VALUE = type(None)


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


def parse_json(body: bytes) -> Any:
    """Parse the body of a request, which may hold anything.

    Raises:
        RequestError: It is not JSON, or is nested too deeply.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError.for_request("not JSON", value=str(error)[:100]) from None


def parse_rows(body: bytes) -> list[Row]:
    """Parse the body of `POST /predict`: one row, or a list of them.

    Raises:
        RequestError: It is not JSON, or has no rows.
    """
    document = parse_json(body)
    rows = document.get("rows") if isinstance(document, dict) else None
    if isinstance(rows, dict):
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
            faults += _column_faults(index, row, contract)
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


def faults_from_failures(failures: list[FailedRule]) -> list[Fault]:
    """Return a fault for each row that `pipeline.validate.failures` names.

    The first one stands for the rows that are not named, too.
    """
    faults = []
    for failure in failures:
        indices: list[int | None] = [*failure["rows"]] or [None]
        samples = failure["samples"] if failure["column"] else []
        for number, index in enumerate(indices):
            value = samples[number] if number < len(samples) else None
            row_count = failure["count"] - len(indices) + 1 if number == 0 else 1
            faults.append(Fault(index, failure["column"], failure["rule"], value, row_count))
    return faults


def frame_from_rows(rows: list[Row], contract: Data) -> pl.DataFrame:
    """Return the feature columns of JSON rows as a table that `Model.read` accepts."""
    columns = {}
    for name, column in contract.columns.items():
        gaps = (*contract.missing_values, *column.missing_values)
        has_numeric_gap = any(character.isdigit() for gap in gaps for character in gap)  # like 999
        values = [row[name] for row in rows]
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
