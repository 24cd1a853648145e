"""Rows as ordinary callers send them, read and checked without a query of Polars.

A query costs the same for one row as for a thousand, and a request has a row or a few. So values of
the expected JSON type are read and checked in Python. Everything else, and every row that breaks
the contract, is left to `pipeline.ingest.typed` and `pipeline.validate.failures`, whose results
these are to the byte.
"""

import re
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import polars as pl

from ..config import Column, Data
from ..model_package import Model
from ..pipeline.ingest import BOOLEANS, ISO
from ..pipeline.validate import DTYPES, MAX_SAMPLES, FailedRule, failures
from .rows import Row, frame_from_rows

MAX_ROWS = 128  # beyond which queries are faster
MAX_EXACT_INTEGER = 2**53  # of a float
MAX_INTEGER = 2**63 - 1
MAX_FLOAT = sys.float_info.max
# What a time looks like in a format; Python reads these as Polars does.
TIMES = {
    "%Y-%m-%d": r"\d{4}-\d\d-\d\d",
    "%Y-%m-%dT%H:%M": r"\d{4}-\d\d-\d\dT\d\d:\d\d",
    "%Y-%m-%d %H:%M": r"\d{4}-\d\d-\d\d \d\d:\d\d",
    "%Y-%m-%dT%H:%M:%S": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d",
    "%Y-%m-%d %H:%M:%S": r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d",
}
ISO_TIME = "|".join(TIMES[form] for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"))


class NotPlain(Exception):
    """A value that only a query can read."""


class PlainReader:
    """Reads the rows of requests for a model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._contract = model.request_contract
        self._columns = {
            name: _PlainColumn(column, self._contract)
            for name, column in self._contract.columns.items()
        }
        self._names = self._columns.keys()
        self._readers = [
            (name, column.read) for name, column in self._columns.items() if column.is_readable
        ]
        self._unreadable = [
            name for name, column in self._columns.items() if not column.is_readable
        ]
        self._dtypes = {name: self._columns[name].dtype for name, _ in self._readers}

    def read(
        self, rows: list[Row], max_samples: int = MAX_SAMPLES
    ) -> tuple[pl.DataFrame, list[FailedRule]]:
        """Return typed rows, and what is wrong with them.

        Args:
            rows: With the columns of the contract, and others that it ignores.
            max_samples: Values that a failure shows at most.
        """
        frame = self._read_plainly(rows) if len(rows) <= MAX_ROWS else None
        if frame is not None and self._keeps_rules(frame):
            return frame, []
        if frame is None:
            frame = self._model.read(frame_from_rows(rows, self._contract))
        return frame, failures(frame, self._contract, self._model.rules, max_samples)

    def plain_values(self, rows: list[Row]) -> list[Row] | None:
        """Return the values of rows that keep the contract of their columns.

        Columns that only a query can read whatever they hold are left out.

        Returns:
            None if a row has other columns, or a value that only a query can read or that breaks
            the contract of its column.
        """
        values = []
        for row in rows:
            if row.keys() != self._names:
                return None
            try:
                values.append({name: read(row[name]) for name, read in self._readers})
            except NotPlain:
                return None
        return values

    def frame(self, values: list[Row], rows: list[Row]) -> pl.DataFrame | None:
        """Return typed rows; None if they break the contract, as only a query can tell.

        Args:
            values: What `plain_values` returned for these rows.
        """
        frame = pl.from_dicts(values, self._dtypes)
        if self._unreadable:
            queried = self._with_queried(frame, self._unreadable, rows)
            if queried is None:
                return None
            frame = queried
        return frame if self._keeps_rules(frame) else None

    def _read_plainly(self, rows: list[Row]) -> pl.DataFrame | None:
        """Return typed rows, or None if a column of theirs breaks the contract."""
        columns: dict[str, list[Any]] = {}
        unread = [*self._unreadable]
        for name, read in self._readers:
            try:
                columns[name] = [read(row[name]) for row in rows]
            except NotPlain:
                unread.append(name)
        # In one go, by rows: a series for each column would take four times as long.
        frame = pl.DataFrame(
            list(zip(*columns.values(), strict=True)),
            {name: self._dtypes[name] for name in columns},
            orient="row",
        )
        return self._with_queried(frame, unread, rows) if unread else frame

    def _with_queried(
        self, frame: pl.DataFrame, unread: list[str], rows: list[Row]
    ) -> pl.DataFrame | None:
        """Add the columns that only a query can read; None if one of them breaks the contract."""
        columns = {name: self._contract.columns[name] for name in unread}
        contract = self._contract.model_copy(update={"columns": columns})
        queried = self._model.read(frame_from_rows(rows, contract))
        for name in unread:
            series = queried[name]
            column = self._columns[name]
            if series.dtype != column.dtype or not column.accepts(series.to_list()):
                return None
        return pl.DataFrame(
            [(queried if name in columns else frame)[name] for name in self._columns]
        )

    def _keeps_rules(self, frame: pl.DataFrame) -> bool:
        """Check whether rows whose columns keep the contract keep the rules of `problem/`, too."""
        rules = self._model.rules(self._contract.columns)
        verdicts = frame.select_seq(
            holds.all().alias(str(number))  # which skips nulls
            for number, holds in enumerate(rules.values())
        )
        return all(verdicts.row(0)) if rules else True


class _PlainColumn:
    """A column of the contract, made ready for values one by one.

    Attributes:
        read: Returns a value that keeps the contract, typed; raises NotPlain for any other, and for
            what only a query can read.
        is_readable: Whether there are values that it can read.
    """

    def __init__(self, column: Column, contract: Data) -> None:
        self.dtype = DTYPES[column.type]
        self._column = column
        self._gaps = {*contract.missing_values, *column.missing_values}
        self._categories = set(column.categories) if not column.allow_unknown else set()
        has_numeric_gap = any(character.isdigit() for gap in self._gaps for character in gap)
        reader = self._reader(has_numeric_gap)
        self.is_readable = reader is not None
        self.read: Callable[[Any], Any] = reader or _unreadable

    def _reader(self, has_numeric_gap: bool) -> Callable[[Any], Any] | None:
        column = self._column
        kind = column.type
        has_limit = column.min is not None or column.max is not None
        if has_limit and kind not in ("number", "integer"):
            return None
        if kind in ("number", "integer"):
            if has_numeric_gap:
                return None
            of_type = _number if kind == "number" else _integer
            return of_type(column.min, column.max, column.nullable)
        if kind == "boolean":
            return None if self._gaps & BOOLEANS.keys() else _boolean(column.nullable)
        if kind == "datetime":
            formats = column.formats or ISO
            pattern = TIMES.get(formats[0]) if column.formats else ISO_TIME
            return _datetime(pattern, self._gaps, column.nullable) if pattern else None
        return _text(column, self._gaps, self._categories)

    def accepts(self, values: list[Any]) -> bool:
        """Check whether typed values keep the contract; see `pipeline.validate.rules`."""
        column = self._column
        for value in values:
            if value is None:
                if not column.nullable:
                    return False
            elif (
                (column.min is not None and not value >= column.min)
                or (column.max is not None and not value <= column.max)
                or (self._categories and value not in self._categories)
            ):
                return False
        return True


# Each returns what reads a value: a function with all that it needs at hand, as it is called for
# each value of each request.


def _unreadable(value: Any) -> None:
    raise NotPlain


def _number(low: float | None, high: float | None, nullable: bool) -> Callable[[Any], Any]:
    least = -MAX_FLOAT if low is None else low
    most = MAX_FLOAT if high is None else high

    def read(value: Any) -> float | None:
        if type(value) is float:
            if least <= value <= most and -MAX_FLOAT <= value <= MAX_FLOAT:
                return value or 0.0  # not -0.0
        elif type(value) is int:
            if -MAX_EXACT_INTEGER <= value <= MAX_EXACT_INTEGER and least <= value <= most:
                return float(value)
        elif value is None and nullable:
            return None
        raise NotPlain

    return read


def _integer(low: float | None, high: float | None, nullable: bool) -> Callable[[Any], Any]:
    least = -MAX_INTEGER if low is None else low
    most = MAX_INTEGER if high is None else high

    def read(value: Any) -> int | None:
        if type(value) is int:
            if -MAX_INTEGER <= value <= MAX_INTEGER and least <= value <= most:
                return value
        elif value is None and nullable:
            return None
        raise NotPlain

    return read


def _boolean(nullable: bool) -> Callable[[Any], Any]:
    def read(value: Any) -> bool | None:
        if type(value) is bool or (value is None and nullable):
            return value
        raise NotPlain

    return read


def _text(column: Column, gaps: set[str], categories: set[str]) -> Callable[[Any], Any]:
    """Return what reads a text, which has to be one of the categories if there are any."""
    nullable = column.nullable
    # Most values are one of these, which need no other check.
    known = {text for text in column.categories if _is_plain(text) and text not in gaps}

    def read(value: Any) -> str | None:
        if type(value) is str:
            if value in known:
                return value
            if _is_plain(value):
                if value in gaps:
                    value = None
                elif not categories:
                    return value
        if value is None and nullable:
            return None
        raise NotPlain

    return read


def _is_plain(text: str) -> bool:
    """Check whether Polars takes a text as it is, which has no white space around it for that."""
    if not text or not (text[0] + text[-1]).isprintable() or " " in (text[0], text[-1]):
        return False
    try:
        return text.isascii() or bool(text.encode())
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _datetime(pattern: str, gaps: set[str], nullable: bool) -> Callable[[Any], Any]:
    matches = re.compile(pattern, re.ASCII).fullmatch

    def read(value: Any) -> datetime | None:
        if type(value) is str and _is_plain(value):
            if value not in gaps:
                if matches(value):
                    with suppress(ValueError):
                        return datetime.fromisoformat(value)
                raise NotPlain
            value = None
        if value is None and nullable:
            return None
        raise NotPlain

    return read
