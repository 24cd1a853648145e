"""Validate: typed rows → `validation.json`, a verdict on every column and rule. Refuses bad rows.

All failures are reported at once, each with its count and a few of the values.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

import polars as pl

from .. import RefusedError
from ..artifacts import ROWS, step_record
from ..config import DATA, Config, Data
from ..escaping import visible
from ..records import ValidationDocument
from .ingest import unreadable

DTYPES = {
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "boolean": pl.Boolean(),
    "category": pl.String(),
    "text": pl.String(),
    "datetime": pl.Datetime("us"),
}
# Pandera's names of failures, as a person says them.
SAYS: dict[Any, Any] = {"not_nullable": "null", "multiple_fields_uniqueness": "duplicate key"}
Rules = Callable[[Collection[str]], Mapping[str, pl.Expr]]


class Rule(NamedTuple):
    """What is true of every good row; null counts as true."""

    column: str | None  # None: a rule of `problem/schema.py`
    said: str  # of a row that breaks it
    holds: pl.Expr


def step(config: Config) -> str:
    with step_record("validate", ROWS, DATA) as record:
        rows = pl.read_parquet(ROWS)
        said = check(rows, config.data)
        record.document = ValidationDocument.model_validate(said)
    if said["failures"]:
        raise RefusedError(
            "\n  ".join(["the rows break config/data.yaml:", *tell(said["failures"])])
        )
    return f"{rows.height:,} rows keep the contract, {len(said['columns'])} columns checked"


def check(rows: pl.DataFrame, data: Data, now: datetime | None = None) -> dict[str, Any]:
    """Judge typed rows by the contract, as a table.

    Args:
        rows: What `ingest.typed` returned.
        now: UTC without a zone, as the rows are, to tell the age of the newest one.

    Returns:
        `verdict`, `rows`, `columns` (each of contract and rows, with its verdict) and `failures`:
        `column` (None: the table), `rule`, `count`, up to five `samples` and the `rows` of these.
    """
    # Here, as serving needs neither: a package brings its own problem/.
    import pandera.polars as pa

    from ..problem import rules as own_rules

    failures, names = columns(rows, data)
    if rows.height < data.min_rows:
        failures.append(_failure(None, "too few rows", 1, [f"{rows.height} of {data.min_rows}"]))
    newest = rows[data.time].max() if data.max_age_days and data.time in rows.columns else None
    if isinstance(newest, datetime):
        age = (now or datetime.now(UTC).replace(tzinfo=None)) - newest
        if age.total_seconds() > (data.max_age_days or 0) * 86_400:
            failures.append(_failure(data.time, "stale newest row", 1, [newest]))
    checks: dict[str | None, list[Any]] = {name: [] for name in [None, *names]}
    for column, said, holds in rules(data, names, own_rules):
        good = holds.fill_null(True)
        checks[column].append(pa.Check(lambda of, g=good: of.lazyframe.select(g), error=said))
    kinds = {n: pa.Column(DTYPES[data.columns[n].type], checks[n], nullable=True) for n in names}
    keys = [name for name in data.keys if name in names] or None
    try:
        schema = pa.DataFrameSchema(kinds, checks=checks[None], unique=keys, strict=True)
        schema.validate(rows.select(rows[name] for name in names), lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases.cast({"failure_case": pl.String})
        for (name, rule), found in cases.group_by("column", "check", maintain_order=True):
            column = name if name in names else None
            told = found.unique("failure_case", maintain_order=True)
            at, values = told["index"].drop_nulls(), told["failure_case"]
            failures.append(_failure(column, SAYS.get(rule, rule), found.height, values, at))
    broken = {failure["column"] for failure in failures}
    every = dict.fromkeys([*data.columns, *rows.columns])
    return {
        "verdict": "refused" if failures else "passed",
        "rows": rows.height,
        "columns": {name: "refused" if name in broken else "passed" for name in every},
        "failures": failures,
    }


def columns(rows: pl.DataFrame, data: Data) -> tuple[list[dict[str, Any]], list[str]]:
    """Find columns that are missing, extra or not of their type, and name those that are good."""
    failures, good = [], []
    for name, column in data.columns.items():
        if name not in rows.columns:
            failures.append(_failure(name, "missing column", 1, [name]))
        elif rows.schema[name] != DTYPES[column.type]:
            # Reported as that: values of another type cannot be compared with anything.
            values, at = unreadable(rows[name], column, data)
            failures.append(_failure(name, f"not of type {column.type}", len(values), values, at))
        else:
            good.append(name)
    extra = [_failure(n, "extra column", 1, [n]) for n in rows.columns if n not in data.columns]
    return failures + extra, good


def rules(data: Data, names: Collection[str], more: Rules) -> list[Rule]:
    """All that must be true of a row, whether it is to train on or to be predicted."""
    found = []
    for name in names:
        column, value = data.columns[name], pl.col(name)
        if not column.nullable:
            found.append(Rule(name, "null", value.is_not_null()))
        if column.min is not None:
            found.append(Rule(name, f"below {column.min:g}", value >= column.min))
        if column.max is not None:
            found.append(Rule(name, f"above {column.max:g}", value <= column.max))
        if column.categories and not column.open:
            found.append(Rule(name, "new category", value.is_in(column.categories)))
    return found + [Rule(None, said, holds) for said, holds in more(names).items()]


def failures(rows: pl.DataFrame, data: Data, more: Rules) -> list[dict[str, Any]]:
    """Judge typed rows one by one: `failures` as of `check`, fifty times as fast on few rows."""
    found, names = columns(rows, data)
    asked = rules(data, names, more)
    held = rows.select(r.holds.fill_null(True).alias(str(n)) for n, r in enumerate(asked))
    for rule, good in zip(asked, held.get_columns(), strict=True):
        if not good.all():
            at = (~good).arg_true()
            values = rows[rule.column].gather(at) if rule.column else ["false"]
            found.append(_failure(rule.column, rule.said, len(at), values, at))
    return found


def tell(failures: list[dict[str, Any]]) -> list[str]:
    """A line a failure, for a person: whatever the data hold, it is one line."""
    return [
        visible(f"{f['column'] or 'table'}: {f['rule']}, {f['count']:,} × ({_samples(f)})")
        for f in failures
    ]


def _samples(failure: dict[str, Any]) -> str:
    return ", ".join(failure["samples"])


def _failure(
    column: Any, rule: str, count: int, samples: Iterable[Any], at: Iterable[int] = ()
) -> dict[str, Any]:
    shown, where = (list(islice(values, 5)) for values in (samples, at))
    told = [str(value)[:80] for value in shown]
    return {"column": column, "rule": rule, "count": count, "samples": told, "rows": where}
