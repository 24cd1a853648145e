"""Validate: typed rows → `validation.json`, a verdict on every column and rule. Refuses bad rows.

All failures are reported at once, each with its count and a few of the values.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pandera.polars as pa
import polars as pl

from .. import Refused
from ..config import DATA, Config, Data
from ..documents import ROWS, document
from ..problem.schema import schema
from .ingest import unreadable

DTYPES = {
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "boolean": pl.Boolean(),
    "category": pl.String(),
    "datetime": pl.Datetime("us"),
}
# Pandera's names of failures, as a person says them.
SAYS: dict[Any, Any] = {"not_nullable": "null", "multiple_fields_uniqueness": "duplicate key"}


def step(config: Config) -> str:
    with document("validate", ROWS, DATA) as said:
        rows = pl.read_parquet(ROWS)
        said |= check(rows, config.data)
    if said["failures"]:
        raise Refused("\n  ".join(["the rows break config/data.yaml:", *tell(said["failures"])]))
    return f"{rows.height:,} rows keep the contract, {len(said['columns'])} columns checked"


def check(rows: pl.DataFrame, data: Data, now: datetime | None = None) -> dict[str, Any]:
    """Judge typed rows by the contract.

    Args:
        rows: What `ingest.typed` returned.
        now: UTC without a zone, as the rows are, to tell the age of the newest one.

    Returns:
        `verdict`, `rows`, `columns` (each of contract and rows, with its verdict) and `failures`:
        `column` (None: the table), `rule`, `count` and up to five `samples`.
    """
    failures = []
    if rows.height < data.min_rows:
        failures.append(_failure(None, "too few rows", 1, [f"{rows.height} of {data.min_rows}"]))
    newest = rows[data.time].max() if data.max_age_days and data.time in rows.columns else None
    if isinstance(newest, datetime):
        age = (now or datetime.now(UTC).replace(tzinfo=None)) - newest
        if age.total_seconds() > (data.max_age_days or 0) * 86_400:
            failures.append(_failure(data.time, "stale newest row", 1, [newest]))
    contract = {}
    for name, column in data.columns.items():
        if name not in rows.columns:
            failures.append(_failure(name, "missing column", 1, [name]))
        elif rows.schema[name] != DTYPES[column.type]:
            # Reported as that: values of another type cannot be compared with anything.
            bad = unreadable(rows[name], column, data)
            failures.append(_failure(name, f"not of type {column.type}", len(bad), bad))
        else:
            more = {"dtype": DTYPES[column.type]}
            contract[name] = column.model_dump(exclude={"type", "formats"}) | more
    failures += [_failure(n, "extra column", 1, [n]) for n in rows.columns if n not in data.columns]
    try:
        keys = [name for name in data.keys if name in contract]
        schema(contract, keys).validate(rows.select(rows[name] for name in contract), lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases.cast({"failure_case": pl.String})
        for (name, rule), found in cases.group_by("column", "check", maintain_order=True):
            values = found["failure_case"].unique(maintain_order=True)
            failures.append(_failure(name, SAYS.get(rule, rule), found.height, values))
    broken = {failure["column"] for failure in failures}
    names = dict.fromkeys([*data.columns, *rows.columns])
    return {
        "verdict": "refused" if failures else "passed",
        "rows": rows.height,
        "columns": {name: "refused" if name in broken else "passed" for name in names},
        "failures": failures,
    }


def tell(failures: list[dict[str, Any]]) -> list[str]:
    """A line a failure, for a person."""
    return [
        f"{f['column'] or 'table'}: {f['rule']}, {f['count']:,} × ({', '.join(f['samples'])})"
        for f in failures
    ]


def _failure(column: Any, rule: str, count: int, samples: Iterable[Any]) -> dict[str, Any]:
    shown = [str(value)[:80] for value, _ in zip(samples, range(5), strict=False)]
    return {"column": column, "rule": rule, "count": count, "samples": shown}
