"""Rows of ordinary callers are read without Polars, with the results that it has."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import Any, cast

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rung_runtime.config import Data
from rung_runtime.model_package import Model
from rung_runtime.pipeline.ingest import typed
from rung_runtime.pipeline.validate import failures
from rung_runtime.serving.plain_rows import MAX_ROWS, PlainReader
from rung_runtime.serving.rows import Row, frame_from_rows

COLUMNS: dict[str, dict[str, Any]] = {
    "wind": {"type": "number", "min": 0, "max": 85.5, "nullable": True},
    "gust": {"type": "number"},
    "stops": {"type": "integer", "min": -1},
    "late": {"type": "boolean", "nullable": True},
    "city": {"type": "category", "categories": ["Oslo", "Rīga", "New York"]},
    "carrier": {"type": "category", "categories": ["AA", "B6"], "allow_unknown": True},
    "note": {"type": "text", "nullable": True},
    "at": {"type": "datetime", "formats": ["%Y-%m-%dT%H:%M"]},
    "day": {"type": "datetime", "nullable": True},
}
GOOD: Row = {
    "wind": 3.5,
    "gust": 7,
    "stops": 1,
    "late": False,
    "city": "Oslo",
    "carrier": "AA",
    "note": "some words",
    "at": "2024-02-29T10:30",
    "day": "2024-02-29",
}
TEXTS = [
    *("", " ", "NA", "0", "1", "true", "3,5", "1e3", "\x1f", "\ud800", "٣"),
    *("Oslo", " Oslo", "Oslo\u00a0", "Rīga", "AA"),
    *("2024-02-29", "2024-2-9", "0000-01-01"),
    *("2024-02-29T10:30", "2023-02-29T10:30", "2024-02-29T24:00"),
    *("2024-02-29T10:30:15", "2024-02-29T10:30Z", "2024-02-29 10:30"),
]
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 100),
    st.sampled_from([2**53, 2**53 + 1, -(2**63), 2**63, 10**400]),
    st.floats(),
    st.sampled_from([-0.0, 0.0, 85.5, 1e300]),
    st.sampled_from(TEXTS),
    st.text(max_size=3),
)
MISSING = st.lists(st.sampled_from(["", "NA", "-999", "true", "Oslo", "2024-02-29"]), max_size=3)


def model(missing_values: list[str], *, has_rules: bool = True) -> Model:
    """Make what a reader needs of a model."""
    data = Data.model_validate(
        {
            "source": "rows.csv",
            "target": "y",
            "task": "regression",
            "split": {"by": "stratified"},
            "missing_values": missing_values,
            "columns": {**COLUMNS, "y": {"type": "number"}},
        }
    )
    rule = {"calm or far": (pl.col("wind") < 50) | (pl.col("stops") > 0)}
    unused = cast(Any, None)
    return Model(
        manifest=unused,
        data=data,
        request_contract=data.for_predicting(),
        load_fitted=unused,
        features=unused,
        rules=lambda columns: rule if has_rules and {"wind", "stops"} <= set(columns) else {},
    )


@pytest.mark.parametrize("has_rules", [False, True])
@settings(max_examples=3 * settings().max_examples, deadline=None)
@given(
    changes=st.lists(st.dictionaries(st.sampled_from([*COLUMNS]), VALUES, max_size=2), max_size=4),
    missing_values=MISSING,
)
def test_any_rows_are_read_and_judged_as_a_query_would(
    changes: list[Row], missing_values: list[str], has_rules: bool
) -> None:
    opened = model(missing_values, has_rules=has_rules)
    contract = opened.request_contract
    rows = [{**GOOD, **change} for change in changes] or [GOOD]
    expected = typed(frame_from_rows(rows, contract), contract)
    reader = PlainReader(opened)
    frame, failed = reader.read(rows)
    assert frame.schema == expected.schema
    assert frame.equals(expected)
    assert failed == failures(expected, contract, opened.rules)
    values = reader.plain_values(rows)
    plain = None if values is None else reader.frame(values, rows)
    if plain is not None:
        assert failed == []
        assert plain.schema == expected.schema
        assert plain.equals(expected)
    elif values is not None:
        assert failed


@pytest.fixture
def no_query(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a query of Polars reads this row")

    monkeypatch.setattr("rung_runtime.serving.plain_rows.frame_from_rows", refuse)


@pytest.mark.parametrize("missing_values", [[""], ["999"]], ids=["plain", "by a query"])
def test_a_zero_has_no_sign_whoever_reads_it(missing_values: list[str]) -> None:
    """A model may divide by it, and a frame equals another whatever the signs of its zeros."""
    opened = model(missing_values, has_rules=False)
    rows = [{**GOOD, "wind": -0.0, "gust": -0.0}]
    reader = PlainReader(opened)
    values = reader.plain_values(rows)
    assert values is not None
    plain = reader.frame(values, rows)
    assert plain is not None
    for frame in (plain, reader.read(rows)[0]):
        assert [math.copysign(1, zero) for zero in frame.select("wind", "gust").row(0)] == [1, 1]


@pytest.mark.usefixtures("no_query")
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"wind": None, "late": None, "note": None, "day": None},
        {"wind": 3, "gust": -0.5, "late": True},
        {"city": "Rīga", "carrier": "ZZ", "note": "ē ü 漢字 🙂"},
        {"day": "2024-02-29T10:30"},
        {"day": "2024-02-29T10:30:59"},
    ],
    ids=json.dumps,
)
def test_what_ordinary_callers_send_needs_no_query(change: Row) -> None:
    rows = [{**GOOD, **change}] * 3
    reader = PlainReader(model([""], has_rules=False))
    frame, failed = reader.read(rows)
    assert failed == []
    assert frame["at"].to_list() == [datetime(2024, 2, 29, 10, 30)] * 3
    values = reader.plain_values(rows)
    assert values is not None
    plain = reader.frame(values, rows)
    assert plain is not None
    assert plain.equals(frame)


@pytest.mark.parametrize(
    "change",
    [{"wind": 86}, {"stops": -2}, {"city": "Paris"}, {"gust": None}, {"gust": "7"}, {"more": 1}],
    ids=json.dumps,
)
def test_a_row_that_may_break_the_contract_is_left_to_a_query(change: Row) -> None:
    assert PlainReader(model([""])).plain_values([GOOD, {**GOOD, **change}]) is None


def test_a_column_that_only_a_query_can_read_is_read_by_one() -> None:
    """A text such as 999 may mean that a number is missing, or the number."""
    opened = model(["999", "true"])
    reader = PlainReader(opened)
    rows = [{**GOOD, "wind": 999, "gust": 7}, {**GOOD, "wind": 2}]
    values = reader.plain_values(rows)
    assert values is not None
    assert {"wind", "gust", "stops", "late"}.isdisjoint(values[0])
    frame = reader.frame(values, rows)
    assert frame is not None
    assert frame["wind"].to_list() == [None, 2.0]
    broken = [{**GOOD, "wind": 86}]
    values = reader.plain_values(broken)
    assert values is not None
    assert reader.frame(values, broken) is None


def test_a_text_may_mean_no_value_twice() -> None:
    contract = model(["NA", "NA", ""]).request_contract
    column = contract.columns["note"].model_copy(update={"missing_values": ["NA"]})
    contract.columns["note"] = column
    rows = frame_from_rows([{**GOOD, "note": "NA", "wind": "NA"}], contract)
    assert typed(rows, contract).select("note", "wind").row(0) == (None, None)


def test_many_rows_are_read_together() -> None:
    rows = [GOOD] * (MAX_ROWS + 1)
    frame, failed = PlainReader(model([""])).read([*rows, {**GOOD, "stops": -2}])
    assert len(frame) == MAX_ROWS + 2
    assert [(failure["column"], failure["rule"]) for failure in failed] == [("stops", "below -1")]
