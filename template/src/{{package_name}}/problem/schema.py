"""What must be true of the rows, beyond what `config/data.yaml` says of a column. Yours."""

from collections.abc import Collection

import polars as pl


def rules(columns: Collection[str]) -> dict[str, pl.Expr]:
    """Return rules that only you know, for training and serving alike.

    Args:
        columns: The columns that the rows have; for a prediction these are only the features.

    Returns:
        By a name that a person reads when rows break the rule, an expression with one truth value
        per row: true for a good row; null, where a value is missing, counts as good.
    """
    by_name = {}
    if {"origin", "dest"} <= set(columns):
        by_name["a flight goes somewhere else"] = pl.col("origin") != pl.col("dest")
    return by_name
