"""Simulation with known truth: is a champion judged on rows that it was trained on?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl

Import = Callable[[str], ModuleType]
ROWS = 1_000
CHANGES = (
    "another column",
    "a column left out",
    "a column retyped",
    "another seed",
    "rows appended",
    "older rows come late",
    "labels corrected",
)


def champion_rows_judged(module: Import, change: str, trials: int, seed: int) -> float:
    """Return the share of the rows a champion is judged on that it was trained on.

    Args:
        module: Imports a module of a project's package by its name.
        change: One of `CHANGES`, between the champion's training and the comparison.
        trials: Champions.
        seed: Of all that is drawn.
    """
    identity = module("pipeline.identity")
    split = module("pipeline.split")
    random = np.random.default_rng(seed)
    judged = wrong = 0
    for _ in range(trials):
        source = _rows(random, ROWS).with_columns(row=pl.int_range(ROWS))
        contract = _contract(module, {"a": "number", "b": "integer", "c": "number"})
        held = split.sides(source, contract).to_numpy()
        columns = identity.identifying(contract)
        trained_on = source["row"].filter(pl.Series(~held))
        with tempfile.TemporaryDirectory() as folder:
            numbers = identity.identities(source, columns).filter(pl.Series(~held))
            identity.write(Path(folder), columns, numbers, f"sha256:{random.bytes(32).hex()}")
            training = identity.read(Path(folder))
        source, contract = _changed(module, source, change, random)
        held = split.sides(source, contract).to_numpy()
        known = training.includes(source)
        assert known is not None, change
        unseen = source["row"].filter(pl.Series(held & ~known))
        judged += len(unseen)
        wrong += int(unseen.is_in(trained_on.implode()).sum())
    return wrong / max(judged, 1)


def _changed(
    module: Import, source: pl.DataFrame, change: str, random: np.random.Generator
) -> tuple[pl.DataFrame, Any]:
    """Return the source and the contract of the challenger."""
    types = {"a": "number", "b": "integer", "c": "number"}
    seed = 0
    if change == "another column":
        source = source.with_columns(d=pl.Series(random.normal(size=source.height)))
        types["d"] = "number"
    elif change == "a column left out":
        del types["c"]
    elif change == "a column retyped":
        types["b"] = "number"
        source = source.with_columns(pl.col("b").cast(pl.Float64))
    elif change == "another seed":
        seed = 7
    elif change == "labels corrected":
        flipped = pl.Series(random.random(source.height) < 0.1)
        source = source.with_columns(y=pl.col("y") != flipped)
    else:
        more = _rows(random, 300).with_columns(row=ROWS + pl.int_range(300))
        parts = [source, more] if change == "rows appended" else [more, source]
        source = pl.concat(parts)
    return source, _contract(module, types, seed)


def _rows(random: np.random.Generator, count: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "a": random.normal(size=count).round(3),
            "b": random.integers(0, 1_000, count),
            "c": random.lognormal(3, 1, count).round(2),
            "y": random.random(count) < 0.4,
        }
    )


def _contract(module: Import, types: dict[str, str], seed: int = 0) -> Any:
    columns = {name: {"type": kind} for name, kind in types.items()}
    return module("config").Data.model_validate(
        {
            "source": "rows.csv",
            "target": "y",
            "task": "binary",
            "classes": ["false", "true"],
            "split": {"by": "stratified", "seed": seed},
            "columns": columns | {"y": {"type": "boolean"}},
        }
    )
