"""What the contract must refuse and accept, and what a split must not leak."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from ...config import (
    Column,
    Data,
    Split,
)
from ...pipeline.ingest import typed
from ...pipeline.leaks import features_that_predict_alone, leaks
from ...pipeline.split import split
from ...pipeline.validate import check

START = datetime(2024, 1, 1)
ROWS = 400
DATA = Data(
    source="data/raw/control.csv",
    target="late",
    task="binary",
    classes=["false", "true"],
    split=Split(by="time", column="when"),
    keys=["id"],
    time="when",
    max_age_days=30,
    min_rows=100,
    columns={
        "id": Column(type="integer"),
        "when": Column(type="datetime", formats=["%Y-%m-%dT%H:%M"]),
        "seats": Column(type="number", nullable=True, min=0, max=500),
        "origin": Column(type="category", categories=["EWR", "JFK"]),
        "late": Column(type="boolean"),
    },
)
CLEAN = pl.DataFrame(
    {
        "id": [str(n) for n in range(ROWS)],
        "when": [(START + timedelta(hours=n)).strftime("%Y-%m-%dT%H:%M") for n in range(ROWS)],
        "seats": ["" if n % 7 == 0 else str(n % 300) for n in range(ROWS)],
        "origin": ["EWR", "JFK"] * (ROWS // 2),
        "late": ["true", "false", "false", "true"] * (ROWS // 4),
    }
)
NOW = START + timedelta(hours=ROWS)
EVERY_TENTH = pl.int_range(pl.len()) % 10 == 0
REFUSED: dict[str, tuple[pl.DataFrame, str | None, str, int]] = {
    "a column is missing": (CLEAN.drop("seats"), "seats", "missing column", 1),
    "a column is extra": (CLEAN.with_columns(new=pl.lit("1")), "new", "extra column", 1),
    "a number is text": (
        CLEAN.with_columns(seats=pl.when(EVERY_TENTH).then(pl.lit("many")).otherwise("seats")),
        "seats",
        "not of type number",
        40,
    ),
    "a date is another format": (
        CLEAN.with_columns(when=pl.when(EVERY_TENTH).then(pl.lit("1/2/24")).otherwise("when")),
        "when",
        "not of type datetime",
        40,
    ),
    "a value is null": (
        CLEAN.with_columns(origin=pl.when(EVERY_TENTH).then(pl.lit("")).otherwise("origin")),
        "origin",
        "null",
        40,
    ),
    "a value is too low": (CLEAN.with_columns(seats=pl.lit("-1")), "seats", "below 0", ROWS),
    "a value is too high": (CLEAN.with_columns(seats=pl.lit("501")), "seats", "above 500", ROWS),
    "a category is new": (
        CLEAN.with_columns(origin=pl.when(EVERY_TENTH).then(pl.lit("LGA")).otherwise("origin")),
        "origin",
        "new category",
        40,
    ),
    "a key stands twice": (CLEAN.vstack(CLEAN.head(1)), None, "duplicate key", 2),
    "there are too few rows": (CLEAN.head(99), None, "too few rows", 1),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_contract_refuses_when(case: str) -> None:
    rows, column, rule, count = REFUSED[case]
    document = check(typed(rows, DATA), DATA, NOW)
    assert document["verdict"] == "refused"
    failures = [(f["column"], f["rule"], f["count"]) for f in document["failures"]]
    assert failures == [(column, rule, count)]
    assert all(failure["samples"] for failure in document["failures"])


def test_the_contract_refuses_when_the_newest_row_is_stale() -> None:
    document = check(typed(CLEAN, DATA), DATA, NOW + timedelta(days=31))
    assert [failure["rule"] for failure in document["failures"]] == ["stale newest row"]


def test_the_contract_accepts_clean_rows() -> None:
    document = check(typed(CLEAN, DATA), DATA, NOW)
    assert document["verdict"] == "passed"
    assert set(document["columns"]) == set(DATA.columns)


def test_a_split_by_time_trains_on_nothing_from_the_future() -> None:
    train, holdout = split(typed(CLEAN, DATA), DATA)
    assert train["when"].max() < holdout["when"].min()  # type: ignore[operator]
    assert leaks(train, holdout, DATA) == {"rows": 0, "future": 0, "encodings": 0}


def test_a_leaked_split_is_counted() -> None:
    train, holdout = split(typed(CLEAN, DATA), DATA)
    leaked = leaks(train.vstack(holdout.head(5)), holdout, DATA)
    assert leaked == {"rows": 5, "future": 5, "encodings": 0}


def unkeyed(rows: pl.DataFrame, **columns: Column) -> Data:
    """The contract of these rows, split at random, without keys or times."""
    known = {name: DATA.columns[name] for name in ("seats", "origin", "late")} | columns
    plain = {"split": Split(by="stratified"), "keys": [], "time": None, "max_age_days": None}
    named = {name: column for name, column in known.items() if name in rows.columns}
    return DATA.model_copy(update={**plain, "columns": named})


def test_copied_rows_and_an_encoded_target_are_counted() -> None:
    draw = np.random.default_rng(0)
    late = draw.random(2_000) < 0.3
    place = draw.integers(0, 60, 2_000)
    mean = np.bincount(place, late) / np.bincount(place)
    number = Column(type="number")
    rows = pl.DataFrame({"x": draw.normal(size=2_000), "late": late})
    clean = unkeyed(rows, x=number)
    assert leaks(*split(rows, clean), clean) == {"rows": 0, "encodings": 0}
    copied = rows.vstack(rows.head(800))
    assert leaks(*split(copied, clean), clean)["rows"] > 0
    rows = rows.with_columns(rate=mean[place])
    encoded = unkeyed(rows, x=number, rate=number)
    assert leaks(*split(rows, encoded), encoded)["encodings"] == 1


def test_a_column_that_knows_the_target_is_named_and_no_other() -> None:
    draw = np.random.default_rng(0)
    late = draw.random(1_000) < 0.3
    hours = late * 3 + draw.random(1_000)
    rows = pl.DataFrame({"hours": hours, "x": late + draw.normal(size=1_000), "late": late})
    data = unkeyed(rows, hours=Column(type="number"), x=Column(type="number"))
    assert features_that_predict_alone(rows, data) == ["hours"]
