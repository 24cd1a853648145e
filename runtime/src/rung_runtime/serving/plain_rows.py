"""Rows as ordinary callers send them, read and checked without a query of Polars.

A query costs the same for one row as for a thousand, and a request has a row or a few. So values of
the expected JSON type are read and checked in Python. Everything else, and every row that breaks
the contract, is left to `pipeline.ingest.typed` and `pipeline.validate.failures`, whose results
these are to the byte.
"""

import re
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


UNREAD = (NotPlain, TypeError, OverflowError, UnicodeEncodeError)


class PlainReader:
    """Reads the rows of requests for a model."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._contract = model.request_contract
        self._columns = {
            name: _PlainColumn(column, self._contract)
            for name, column in self._contract.columns.items()
        }

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

    def doubtful(self, rows: list[Row]) -> set[int]:
        """Return the rows that break the contract of a column, or that only a query can read.

        Columns that only a query can read whatever they hold are not judged.
        """
        return {index for index, row in enumerate(rows) if not self._is_plain(row)}

    def _is_plain(self, row: Row) -> bool:
        for name, column in self._columns.items():
            if column.read is _unreadable:
                continue
            try:
                value = column.read(row[name])
            except UNREAD:
                return False
            if not column.accepts([value]):
                return False
        return True

    def _read_plainly(self, rows: list[Row]) -> pl.DataFrame | None:
        """Return typed rows, or None if a column of theirs breaks the contract."""
        columns: dict[str, list[Any]] = {}
        unread = []
        is_good = True
        for name, column in self._columns.items():
            try:
                columns[name] = values = [column.read(row[name]) for row in rows]
            except UNREAD:
                unread.append(name)
                continue
            is_good = is_good and column.accepts(values)
        if not is_good:
            return None
        # In one go, by rows: a series for each column would take four times as long.
        frame = pl.DataFrame(
            list(zip(*columns.values(), strict=True)),
            {name: self._columns[name].dtype for name in columns},
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
        verdicts = frame.select(
            holds.fill_null(True).all().alias(str(number))
            for number, holds in enumerate(rules.values())
        )
        return all(verdicts.row(0)) if rules else True


class _PlainColumn:
    """A column of the contract, made ready for values one by one."""

    def __init__(self, column: Column, contract: Data) -> None:
        self.dtype = DTYPES[column.type]
        self._column = column
        self._gaps = {*contract.missing_values, *column.missing_values}
        self._categories = set(column.categories) if not column.allow_unknown else set()
        has_numeric_gap = any(character.isdigit() for gap in self._gaps for character in gap)
        self.read = self._reader(has_numeric_gap)
        formats = column.formats or ISO
        pattern = TIMES.get(formats[0]) if column.formats else ISO_TIME
        self._time = re.compile(pattern, re.ASCII).fullmatch if pattern else None

    def _reader(self, has_numeric_gap: bool) -> Callable[[Any], Any]:
        kind = self._column.type
        has_limit = self._column.min is not None or self._column.max is not None
        if has_limit and kind not in ("number", "integer"):
            return _unreadable
        if kind in ("number", "integer"):
            if has_numeric_gap:
                return _unreadable
            return _number if kind == "number" else _integer
        if kind == "boolean":
            return _unreadable if self._gaps & BOOLEANS.keys() else _boolean
        return self._datetime if kind == "datetime" else self._text

    def _text(self, value: Any) -> str | None:
        if value is None:
            return None
        if type(value) is not str:
            raise NotPlain
        # Without spaces or control characters around it, which Polars would take away.
        if not value or not (value[0] + value[-1]).isprintable() or " " in (value[0], value[-1]):
            raise NotPlain
        if not value.isascii():
            value.encode()  # half of a surrogate pair has no encoding
        return None if value in self._gaps else value

    def _datetime(self, value: Any) -> datetime | None:
        text = self._text(value)
        if text is None:
            return None
        if self._time and self._time(text):
            with suppress(ValueError):
                return datetime.fromisoformat(text)
        raise NotPlain

    def accepts(self, values: list[Any]) -> bool:
        """Check whether values keep the contract; see `pipeline.validate.rules`."""
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


def _unreadable(value: Any) -> None:
    raise NotPlain


def _number(value: Any) -> float | None:
    if type(value) is float and abs(value) < float("inf"):
        return value or 0.0  # not -0.0
    if type(value) is int and abs(value) <= MAX_EXACT_INTEGER:
        return float(value)
    if value is None:
        return None
    raise NotPlain


def _integer(value: Any) -> int | None:
    if type(value) is int and abs(value) <= MAX_INTEGER:
        return value
    if value is None:
        return None
    raise NotPlain


def _boolean(value: Any) -> bool | None:
    if value is None or type(value) is bool:
        return value
    raise NotPlain
