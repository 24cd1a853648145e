"""What training knows of the holdout, and columns that know the target: found, and not imagined."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest

Module = Callable[[str], ModuleType]
SEED = 20_261_126


def contract(module: Module, rows: pl.DataFrame, task: str = "binary", **changes: Any) -> Any:
    kinds = {pl.Float64: "number", pl.Boolean: "boolean", pl.String: "category"}
    columns = {name: {"type": kinds[type(dtype)]} for name, dtype in rows.schema.items()}
    classes = sorted(rows["y"].cast(pl.String).unique()) if task != "regression" else []
    fields: dict[str, Any] = {"source": "x.csv", "target": "y", "task": task, "classes": classes}
    fields |= {"split": {"by": "stratified"}, "columns": columns}
    return module("config").Data.model_validate(fields | changes)


def find_leaks(module: Module, rows: pl.DataFrame, task: str = "binary", **changes: Any) -> Any:
    data = contract(module, rows, task, **changes)
    train, holdout = module("pipeline.split").split(rows, data)
    return module("pipeline.leaks").leaks(train, holdout, data)


def noise(n: int, columns: int = 4, seed: int = SEED) -> pl.DataFrame:
    draw = np.random.default_rng(seed)
    rows = pl.DataFrame({f"x{k}": draw.normal(size=n) for k in range(columns)})
    return rows.with_columns(y=pl.Series(draw.random(n) < 0.4))


@pytest.mark.parametrize("nearly", [False, True])
def test_copied_rows_on_both_sides_are_counted(module: Module, nearly: bool) -> None:
    rows = noise(1_000)
    again = rows.head(400)
    if nearly:
        again = again.with_columns(pl.col("x0") * (1 + 1e-9))
    leaked = find_leaks(module, pl.concat([rows, again]))
    # Of 280 rows held out four in seven have a copy, of which four fifths are trained on.
    assert 80 < leaked["rows"] < 180


def test_copied_rows_of_a_regression_are_counted(module: Module) -> None:
    rows = noise(1_000).with_columns(y=pl.col("x0") * 0.2 + pl.col("x1").shuffle(seed=3))
    assert find_leaks(module, pl.concat([rows, rows.head(400)]), "regression")["rows"] > 80


COARSE: dict[str, Callable[[Any, int], pl.DataFrame]] = {
    "yes/no questions": lambda draw, n: pl.DataFrame(
        {f"q{k}": draw.random(n) < 0.3 for k in range(6)}
    ),
    "questions that go together": lambda draw, n: pl.DataFrame(
        {f"q{k}": draw.random(n) < 0.1 + 0.8 * (draw.random(n) < 0.5) for k in range(5)}
    ),
    "classes, sex and a rounded age": lambda draw, n: pl.DataFrame(
        {
            "class": draw.choice(list("abc"), n),
            "age": draw.normal(35, 12, n).round(),
            "fare": draw.choice([7.25, 7.75, 8.05, 13.0, 26.0, 30.5], n),
        }
    ),
    "products that come again": lambda draw, n: pl.DataFrame(
        {"price": (weight := draw.integers(0, 300, n)) * 1.7 + 0.99, "weight": weight * 0.37 % 11}
    ),
}


@pytest.mark.parametrize("kind", COARSE)
def test_rows_that_are_equal_as_their_columns_are_coarse_are_no_leak(
    module: Module, kind: str
) -> None:
    for seed in range(5):
        draw = np.random.default_rng(seed)
        rows = COARSE[kind](draw, 2_000)
        rows = rows.with_columns(y=pl.Series(draw.random(2_000) < 0.4))
        assert find_leaks(module, rows)["rows"] == 0, seed


def test_rows_that_follow_from_their_columns_are_no_leak_where_the_model_gets_them_right(
    module: Module,
) -> None:
    draw = np.random.default_rng(SEED)
    product = draw.integers(0, 300, 2_000)
    rows = pl.DataFrame({"price": product * 1.7, "weight": product * 0.37 % 11})
    rows = rows.with_columns(y=pl.col("price") > 250)
    data = contract(module, rows)
    train, holdout = module("pipeline.split").split(rows, data)
    right = holdout["y"].to_numpy().astype(float)
    perfect = np.column_stack([1 - right, right])
    # Without rows that are alone, only what the model does elsewhere tells.
    odd = holdout.height // 5
    spread = holdout.with_columns(
        weight=pl.when(pl.int_range(pl.len()) < odd)
        .then(pl.int_range(pl.len()) + 50.5)
        .otherwise("weight")
    )
    leaks = module("pipeline.leaks").leaks
    assert leaks(train, spread, data, perfect)["rows"] == 0
    assert leaks(train, spread, data, np.full_like(perfect, 0.5))["rows"] > 0


def encoded(draw: Any, n: int, levels: int, smooth: float, whole: bool) -> pl.DataFrame:
    """A category without meaning, as the mean target of its rows: of all, or of the first half."""
    level = draw.integers(0, levels, n)
    y = draw.random(n) < 0.3
    used = np.ones(n, bool) if whole else np.arange(n) < n // 2
    count = np.bincount(level[used], minlength=levels)
    hits = np.bincount(level[used], y[used], minlength=levels)
    code = (hits + smooth * 0.3) / (count + smooth + (0 if whole else 1e-9))
    rows = pl.DataFrame({"code": code[level], "x": draw.normal(size=n)})
    return rows.with_columns(y=pl.Series(y))


@pytest.mark.parametrize(
    ("levels", "smooth"), [(40, 0.0), (40, 5.0), (40, 20.0), (300, 0.0), (300, 5.0)]
)
def test_a_target_encoding_made_before_the_split_is_found(
    module: Module, levels: int, smooth: float
) -> None:
    for seed in range(5):
        rows = encoded(np.random.default_rng(seed), 4_000, levels, smooth, whole=True)
        assert find_leaks(module, rows)["encodings"] == 1, seed


def test_a_column_that_knows_nothing_of_the_holdout_is_no_encoding(module: Module) -> None:
    for seed in range(30):
        draw = np.random.default_rng(seed)
        score = draw.integers(1, 60, 4_000) / 60  # calibrated: its mean target is what it says
        rows = pl.DataFrame({"score": score, "age": draw.integers(18, 90, 4_000).astype(float)})
        rows = rows.with_columns(y=pl.Series(draw.random(4_000) < score))
        assert find_leaks(module, rows)["encodings"] == 0, seed


def test_an_encoding_made_of_training_rows_is_none(module: Module) -> None:
    for seed in range(10):
        rows = encoded(np.random.default_rng(seed), 4_000, 40, 0.0, whole=False)
        when = pl.datetime(2024, 1, 1) + pl.duration(hours=pl.int_range(pl.len()))
        rows = rows.with_columns(when=when)
        kinds = {"code": "number", "x": "number", "y": "boolean", "when": "datetime"}
        data = module("config").Data.model_validate(
            {
                "source": "x.csv",
                "target": "y",
                "task": "binary",
                "classes": ["false", "true"],
                "split": {"by": "time", "column": "when", "holdout": 0.5},
                "columns": {name: {"type": kind} for name, kind in kinds.items()},
            }
        )
        train, holdout = module("pipeline.split").split(rows, data)
        assert module("pipeline.leaks").leaks(train, holdout, data)["encodings"] == 0, seed


def test_a_row_with_a_key_that_training_has_is_the_same_row(module: Module) -> None:
    rows = noise(400).with_columns(id=pl.Series([f"u{n}" for n in range(400)]))
    data = contract(module, rows, keys=["id"])
    train, holdout = module("pipeline.split").split(rows, data)
    leaks = module("pipeline.leaks").leaks
    assert leaks(train, holdout, data)["rows"] == 0
    assert leaks(pl.concat([train, holdout.head(2)]), holdout, data)["rows"] == 2


def leaking_columns(module: Module, columns: dict[str, Any], y: Any, task: str) -> list[str]:
    series = {name: pl.Series(values) for name, values in columns.items()}
    names: list[str] = module("pipeline.leaks").predict_alone(series, pl.Series(y), task)
    return names


def test_a_column_that_predicts_the_target_almost_alone_is_named(module: Module) -> None:
    draw = np.random.default_rng(SEED)
    n = 3_000
    y = draw.random(n) < 0.3
    close = y + draw.normal(0, 0.2, n)
    far = y + draw.normal(0, 0.7, n)
    category = np.where(y, draw.choice(["won", "paid"], n), draw.choice(["lost", "open"], n))
    columns = {"close": close, "backwards": -close, "far": far, "category": category}
    assert leaking_columns(module, columns, y, "binary") == ["close", "backwards", "category"]
    three = np.array(["a", "b", "c"])[draw.integers(0, 3, n)]
    leak = np.where(three == "a", 1.0, np.where(three == "b", 9.0, 4.0)) + draw.normal(0, 0.3, n)
    assert leaking_columns(module, {"leak": leak, "far": far}, three, "multiclass") == ["leak"]
    value = draw.normal(size=n)
    columns = {"close": value * 3 + draw.normal(0, 0.05, n), "far": value + draw.normal(0, 0.5, n)}
    assert leaking_columns(module, columns, value, "regression") == ["close"]


def test_a_severity_that_is_written_afterwards_is_named_where_positives_are_rare(
    module: Module,
) -> None:
    """As injSeverity of crash records: one level holds most of the deaths, and few others."""
    draw = np.random.default_rng(SEED)
    n = 25_000
    y = draw.random(n) < 0.005
    severity = np.where(y & (draw.random(n) < 0.9), 4, draw.integers(0, 4, n)).astype(float)
    severity[draw.random(n) < 0.0013] = 4
    ordinary = y * 1.5 + draw.normal(size=n)
    columns = {"severity": severity, "ordinary": ordinary}
    assert leaking_columns(module, columns, y, "binary") == ["severity"]


def test_a_text_that_only_one_class_has_is_told_before_the_gate_takes_it(module: Module) -> None:
    """A reason for leaving is written for those who left; `predicts_alone` lists it."""
    draw = np.random.default_rng(SEED)
    y = draw.random(400) < 0.5
    why = [f"left, as number {n} was too dear" if left else None for n, left in enumerate(y)]
    comment = [f"a comment of number {n} on it" for n in range(400)]
    rows = pl.DataFrame({"x": draw.normal(size=400), "why": why, "comment": comment, "y": y})
    data, notes = module("contract.propose").infer(rows, "y", source="t.csv", separator=",")
    typed = module("pipeline.ingest").typed(rows, data)
    named = module("pipeline.leaks").features_that_predict_alone(typed, data)
    assert named == ["why"]
    assert [name for name, note in notes.items() if "alone" in note] == named


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_columns_that_know_nothing_are_never_named(module: Module, task: str) -> None:
    for seed in range(20):
        draw = np.random.default_rng(seed)
        n = 300
        y = {"binary": draw.random(n) < 0.05, "regression": draw.normal(size=n)}.get(
            task, draw.integers(0, 3, n).astype(str)
        )
        columns = {
            "number": draw.normal(size=n),
            "names": [f"n{k}" for k in range(n)],
            "many": draw.integers(0, 150, n).astype(str),
        }
        assert leaking_columns(module, columns, y, task) == [], seed
