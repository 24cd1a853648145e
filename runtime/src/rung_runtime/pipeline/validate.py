"""Validate: typed rows → `validation.json`, a verdict on every column and rule. Refuses bad rows.

All failures are reported at once, each with its count and a few of the values.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple, TypedDict

import polars as pl

from .. import RefusedError
from ..artifacts import ROWS, step_record
from ..config import DATA, Config, Data
from ..escaping import visible
from ..records import RuleKind, ValidationDocument, Verdict
from .ingest import unreadable

MAX_SAMPLES = 5
MAX_SAMPLE_LENGTH = 80  # characters
SECONDS_PER_DAY = 86_400
DTYPES = {
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "boolean": pl.Boolean(),
    "category": pl.String(),
    "text": pl.String(),
    "datetime": pl.Datetime("us"),
}
DUPLICATE_KEY = "duplicate key"
PANDERA_UNIQUENESS = "multiple_fields_uniqueness"  # what pandera calls it
# These are of a column as a whole. Of its values, no other rule can be judged then.
COLUMN_KINDS: tuple[RuleKind, ...] = ("missing_column", "extra_column", "type")
Rules = Callable[[Collection[str]], Mapping[str, pl.Expr]]


class FailedRule(TypedDict):
    """A rule that rows break, as `validation.json` has it."""

    column: str | None  # None: the table
    rule: str
    kind: RuleKind
    count: int
    samples: list[str]
    rows: list[int]  # of the samples, from 0


class TableVerdict(TypedDict):
    """What is to be said of a table, as `validation.json` has it."""

    verdict: Verdict
    rows: int
    columns: dict[str, Verdict]  # each of contract and rows
    failures: list[FailedRule]


class Rule(NamedTuple):
    """What is true of every good row; null counts as true."""

    column: str | None  # None: a rule of `problem/schema.py`
    name: str  # what a row that breaks it is called
    kind: RuleKind
    holds: pl.Expr


def step(config: Config) -> str:
    with step_record("validate", ROWS, DATA) as record:
        rows = pl.read_parquet(ROWS)
        verdict = check(rows, config.data)
        record.document = ValidationDocument.model_validate(verdict)
    if failed := verdict["failures"]:
        raise RefusedError("\n  ".join(["the rows break config/data.yaml:", *describe(failed)]))
    columns = len(verdict["columns"])
    return f"{rows.height:,} rows satisfy the contract, {columns} columns checked"


def check(rows: pl.DataFrame, data: Data, now: datetime | None = None) -> TableVerdict:
    """Judge typed rows by the contract, as a table.

    Args:
        rows: What `ingest.typed` returned.
        data: The contract.
        now: UTC without a zone, as the rows are, for the age of the newest one.
    """
    # Imported when it is called, as serving needs neither: a package has its own problem/.
    import pandera.polars as pa

    from ..problem import rules as own_rules

    failed, names = column_failures(rows, data)
    if rows.height < data.min_rows:
        sample = f"{rows.height} of {data.min_rows}"
        failed.append(failed_rule(None, "too few rows", "row_count", 1, [sample]))
    newest = rows[data.time].max() if data.max_age_days and data.time in rows.columns else None
    if isinstance(newest, datetime):
        age = (now or datetime.now(UTC).replace(tzinfo=None)) - newest
        if age.total_seconds() > (data.max_age_days or 0) * SECONDS_PER_DAY:
            failed.append(failed_rule(data.time, "stale newest row", "freshness", 1, [newest]))
    checks: dict[str | None, list[Any]] = {name: [] for name in [None, *names]}
    # A check goes by the number of its rule, as a user may call a rule anything.
    required = {str(number): rule for number, rule in enumerate(rules(data, names, own_rules))}
    for number, rule in required.items():
        holds = rule.holds.fill_null(True)
        checks[rule.column].append(
            pa.Check(lambda table, holds=holds: table.lazyframe.select(holds), error=number)
        )
    required[PANDERA_UNIQUENESS] = Rule(None, DUPLICATE_KEY, "duplicate", pl.lit(True))
    columns = {}
    for name in names:
        dtype = DTYPES[data.columns[name].type]
        columns[name] = pa.Column(dtype, checks[name], nullable=True)
    keys = [name for name in data.keys if name in names] or None
    try:
        schema = pa.DataFrameSchema(columns, checks=checks[None], unique=keys, strict=True)
        schema.validate(rows.select(rows[name] for name in names), lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases.cast({"failure_case": pl.String})
        for (check_name,), part in cases.group_by("check", maintain_order=True):
            rule = required[str(check_name)]
            distinct = part.unique("failure_case", maintain_order=True)
            failed.append(
                failed_rule(
                    rule.column,
                    rule.name,
                    rule.kind,
                    part.height,
                    distinct["failure_case"],
                    distinct["index"].drop_nulls(),
                )
            )
    broken = {failure["column"] for failure in failed}
    every = dict.fromkeys([*data.columns, *rows.columns])
    return {
        "verdict": "refused" if failed else "passed",
        "rows": rows.height,
        "columns": {name: "refused" if name in broken else "passed" for name in every},
        "failures": failed,
    }


def column_failures(
    rows: pl.DataFrame, data: Data, max_samples: int = MAX_SAMPLES
) -> tuple[list[FailedRule], list[str]]:
    """Find columns that are missing, extra or not of their type.

    Returns:
        These, and the names of the other columns.
    """
    failed = []
    good = []
    for name, column in data.columns.items():
        if name not in rows.columns:
            failed.append(failed_rule(name, "missing column", "missing_column", 1, [name]))
        elif rows.schema[name] != DTYPES[column.type]:
            # No other rule applies: values of another type cannot be compared with anything.
            values, index = unreadable(rows[name], column, data)
            rule = f"not of type {column.type}"
            count = len(values)
            failed.append(failed_rule(name, rule, "type", count, values, index, max_samples))
        else:
            good.append(name)
    for name in rows.columns:
        if name not in data.columns:
            failed.append(failed_rule(name, "extra column", "extra_column", 1, [name]))
    return failed, good


def rules(data: Data, names: Collection[str], more: Rules) -> list[Rule]:
    """Return all that must be true of a row, whether it is to train on or to be predicted."""
    result = []
    for name in names:
        column = data.columns[name]
        value = pl.col(name)
        if not column.nullable:
            result.append(Rule(name, "null", "null", value.is_not_null()))
        if column.min is not None:
            result.append(Rule(name, f"below {column.min:g}", "range", value >= column.min))
        if column.max is not None:
            result.append(Rule(name, f"above {column.max:g}", "range", value <= column.max))
        if column.categories and not column.allow_unknown:
            result.append(Rule(name, "new category", "category", value.is_in(column.categories)))
    return result + custom_rules(more(names))


def custom_rules(by_name: Mapping[str, pl.Expr]) -> list[Rule]:
    """Return the rules that `problem/schema.py` has by name."""
    return [Rule(None, name, "custom", holds) for name, holds in by_name.items()]


def failures(
    rows: pl.DataFrame, data: Data, more: Rules, max_samples: int = MAX_SAMPLES
) -> list[FailedRule]:
    """Judge typed rows one by one: the failures of `check`, fifty times as fast on few rows."""
    failed, names = column_failures(rows, data, max_samples)
    return failed + rule_failures(rows, rules(data, names, more), max_samples)


def rule_failures(
    rows: pl.DataFrame, required: list[Rule], max_samples: int = MAX_SAMPLES
) -> list[FailedRule]:
    """Return which of some rules typed rows break."""
    failed = []
    verdicts = rows.select(
        rule.holds.fill_null(True).alias(str(number)) for number, rule in enumerate(required)
    )
    for rule, good in zip(required, verdicts.get_columns(), strict=True):
        if not good.all():
            index = (~good).arg_true()
            values = rows[rule.column].gather(index) if rule.column else ["false"]
            failure = failed_rule(
                rule.column, rule.name, rule.kind, len(index), values, index, max_samples
            )
            failed.append(failure)
    return failed


def describe(failed: list[FailedRule]) -> list[str]:
    """Return one line for each failure, whatever characters the data hold."""
    return [visible(_describe(failure)) for failure in failed]


def _describe(failure: FailedRule) -> str:
    column = failure["column"]
    name = column or "table"
    rule = failure["rule"]
    count = "1 row" if failure["count"] == 1 else f"{failure['count']:,} rows"
    samples = ", ".join(sample for sample in failure["samples"] if sample != column)
    if not failure["rows"]:  # it is of the whole table: a column is missing, or rows are few
        return f"{name}: {rule}" + (f" ({samples})" if samples else "")
    if failure["kind"] == "custom":  # its name says what is true of good rows
        return f"{name}: not true in {count}: {rule}"
    if failure["kind"] == "null":
        return f"{name}: null in {count}"
    return f"{name}: {rule} in {count}, such as {samples}"


def failed_rule(
    column: str | None,
    rule: str,
    kind: RuleKind,
    count: int,
    samples: Iterable[Any],
    index: Iterable[int] = (),
    max_samples: int = MAX_SAMPLES,
) -> FailedRule:
    """Return a failure with the first few samples, each cut to a length, and their rows."""
    texts = [str(value)[:MAX_SAMPLE_LENGTH] for value in islice(samples, max_samples)]
    rows = list(islice(index, max_samples))
    return {
        "column": column,
        "rule": rule,
        "kind": kind,
        "count": count,
        "samples": texts,
        "rows": rows,
    }
