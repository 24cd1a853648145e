"""What must be true of the rows, beyond what `config/data.yaml` says of a column. Yours."""

from collections.abc import Collection

import polars as pl


def rules(columns: Collection[str]) -> dict[str, pl.Expr]:
    """Rules that only you know, for training and serving alike.

    Args:
        columns: Those that are there; for a prediction there are only the features.

    Returns:
        By a name that a person reads when rows break it: an expression of one truth value a row,
        true for a good one; null, where a value is missing, counts as good.
    """
    found = {}
    if {"origin", "dest"} <= set(columns):
        found["a flight goes somewhere else"] = pl.col("origin") != pl.col("dest")
    return found
