"""What must be true of the rows, as a pandera schema. Yours: add the rules only you know."""

from collections.abc import Collection, Mapping
from typing import Any

import pandera.polars as pa
import polars as pl


def schema(contract: Mapping[str, Mapping[str, Any]], keys: Collection[str]) -> pa.DataFrameSchema:
    """Turn the contract into a schema.

    Args:
        contract: The `columns` of `config/data.yaml`, and for each its Polars type as `dtype`.
        keys: Columns that are together unique in every row.

    Returns:
        A schema; the name of a check is what a person reads when rows fail it.
    """
    columns = {name: column(**rules) for name, rules in contract.items()}
    between = [
        pa.Check(lambda frame, rule=rule: frame.lazyframe.select(rule.fill_null(True)), name=name)
        for name, rule in rules_between(contract).items()
    ]
    return pa.DataFrameSchema(columns, checks=between, unique=list(keys) or None, strict=True)


def column(dtype: pl.DataType, nullable: bool, **rules: Any) -> pa.Column:
    """One column: its type, gaps, range and categories."""
    checks = []
    if (low := rules["min"]) is not None:
        checks.append(pa.Check.ge(low, error=f"below {low:g}"))
    if (high := rules["max"]) is not None:
        checks.append(pa.Check.le(high, error=f"above {high:g}"))
    if rules["categories"] and not rules["open"]:
        checks.append(pa.Check.isin(rules["categories"], error="new category"))
    return pa.Column(dtype, checks, nullable=nullable)


def rules_between(columns: Collection[str]) -> dict[str, pl.Expr]:
    """What must hold between columns: by name, an expression that is true for a good row."""
    rules = {}
    if {"origin", "dest"} <= set(columns):
        away = pl.col("origin").cast(pl.String) != pl.col("dest").cast(pl.String)
        rules["a flight goes somewhere else"] = away
    return rules
