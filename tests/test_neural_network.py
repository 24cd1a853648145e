"""A neural network sees a table as it was trained on it, and stops early by rows it did not see."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from rung_runtime import UsageError
from rung_runtime.adapters.model_format_torch import (
    NeuralNetworkClassifier,
    NeuralNetworkRegressor,
)
from rung_runtime.compiled.columns import Columns
from rung_runtime.model_format.networks.inner_split import validation_rows
from rung_runtime.model_format.networks.table import MISSING, UNSEEN, Table
from sklearn.base import clone

Module = Callable[[str], ModuleType]
CITIES = pl.Enum(["Aachen", "Bonn", "Celle", "Dresden"])


def table(frame: pl.DataFrame) -> tuple[Table, Columns]:
    columns = Columns.of_frame(frame)
    return Table.of_matrix(columns.matrix(frame), columns), columns


def people(rows: int = 40) -> pl.DataFrame:
    """Return rows with a gap in each column, one rare city, and one that nobody lives in."""
    cities = [None, "Celle", *(["Aachen", "Bonn"] * rows)][:rows]
    return pl.DataFrame(
        {
            "age": [None, *map(float, range(rows - 1))],
            "city": pl.Series(cities, dtype=CITIES),
            "height": [1.5, 1.9] * (rows // 2),
        }
    )


def test_numbers_are_standardized_and_gaps_are_the_mean_with_an_indicator() -> None:
    frame = people()
    learned, columns = table(frame)
    numbers, _ = learned.encode(columns.matrix(frame))
    assert numbers.shape == (40, 3)  # two numbers, and whether the age is missing
    assert numbers[:, :2].mean(axis=0) == pytest.approx([0, 0], abs=1e-12)
    assert numbers[1:, 0].std() == pytest.approx(1)
    assert numbers[:, 2].tolist() == [1.0] + [0.0] * 39
    assert numbers[0, 0] == 0


def test_a_gap_that_training_never_had_is_the_mean() -> None:
    learned, columns = table(people().with_columns(age=pl.col("age").fill_null(0.0)))
    later = people().with_columns(height=None, age=pl.lit(float("inf")))
    numbers, _ = learned.encode(columns.matrix(later.with_columns(pl.col("height").cast(float))))
    assert numbers.shape == (40, 2)
    assert not numbers.any()


def test_a_category_that_training_hardly_had_is_one_that_it_never_had() -> None:
    frame = people()
    learned, columns = table(frame)
    later = pl.DataFrame(
        {"age": 1.0, "city": pl.Series([*CITIES.categories, None], dtype=CITIES), "height": 1.5}
    )
    _, codes = learned.encode(columns.matrix(later))
    aachen, bonn, celle, dresden, missing = codes[:, 0].tolist()
    assert celle == dresden == UNSEEN
    assert missing == MISSING
    assert len({aachen, bonn, UNSEEN, MISSING}) == 4
    assert learned.sizes == [4]


@pytest.mark.parametrize("column", [pl.lit(3.0), pl.lit(None, pl.Float64), pl.lit(1e-300)])
def test_a_column_that_says_nothing_harms_nothing(column: pl.Expr) -> None:
    frame = people().with_columns(age=column)
    learned, columns = table(frame)
    numbers, _ = learned.encode(columns.matrix(frame))
    assert np.isfinite(numbers).all()
    assert np.abs(numbers[:, 0]).max() < 1e-6


def test_numbers_whose_squares_are_too_large_are_standardized() -> None:
    frame = people().with_columns(age=pl.lit(1e306) * pl.int_range(pl.len()))
    learned, columns = table(frame)
    numbers, _ = learned.encode(columns.matrix(frame))
    assert numbers[:, 0].std() == pytest.approx(1)
    assert numbers[:, 0].mean() == pytest.approx(0, abs=1e-9)


def test_what_was_learned_of_a_table_comes_back_from_json() -> None:
    learned, columns = table(people())
    again = Table.model_validate_json(learned.model_dump_json())
    matrix = columns.matrix(people())
    for before, after in zip(learned.encode(matrix), again.encode(matrix), strict=True):
        assert (before == after).all()


# --- the inner split --------------------------------------------------------------------------


def no_classes(frame: pl.DataFrame) -> Any:
    return np.zeros(frame.height, dtype=np.int64)


def test_with_a_time_the_newest_rows_are_for_validation() -> None:
    days = np.random.default_rng(0).permutation(np.repeat(np.arange(50), 4))
    frame = pl.DataFrame({"x": 0, "sold days since 1970": days})
    chosen = validation_rows(frame, no_classes(frame), 0.2, "auto", 0)
    assert days[chosen].min() > days[~chosen].max()  # rows of one instant stay together
    assert chosen.mean() == pytest.approx(0.2, abs=0.03)


def test_a_column_of_categories_is_divided_by_whole_categories() -> None:
    names = [f"shop {number}" for number in range(30)]
    shops = np.random.default_rng(0).choice(names, 400)
    frame = pl.DataFrame({"shop": pl.Series(shops, dtype=pl.Enum(names)), "x": 1.0})
    chosen = validation_rows(frame, no_classes(frame), 0.2, "shop", 0)
    assert not set(shops[chosen]) & set(shops[~chosen])
    assert chosen.mean() == pytest.approx(0.2, abs=0.06)


def test_rows_with_equal_inputs_stay_together() -> None:
    random = np.random.default_rng(0)
    visits = random.integers(0, 60, 400)
    frame = pl.DataFrame({"^x$": visits, "y": pl.Series(visits % 7).cast(pl.Float64)})
    chosen = validation_rows(frame, random.integers(0, 2, 400), 0.2, "auto", 0)
    assert chosen.any()
    assert not set(visits[chosen]) & set(visits[~chosen])


def test_each_class_has_its_share_of_the_validation_rows() -> None:
    classes = np.array([0] * 900 + [1] * 100)
    frame = pl.DataFrame({"x": np.arange(1_000.0)})
    chosen = validation_rows(frame, classes, 0.2, "auto", 0)
    assert chosen[:900].sum() == 180
    assert chosen[900:].sum() == 20


@pytest.mark.parametrize("by", ["auto", "group", "x"])
@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_some_rows_are_always_left_to_learn_from(by: str, rows: int) -> None:
    groups = pl.Series(["a"] * rows, dtype=pl.Enum(["a"]))
    frame = pl.DataFrame({"x": [1.0] * rows, "group": groups})
    assert not validation_rows(frame, no_classes(frame), 0.5, by, 0).all()
    several = pl.DataFrame({"x": np.arange(float(rows)), "group": groups})
    assert not validation_rows(several, np.arange(rows) % 2, 0.9, by, 0).all()


def test_two_classes_are_always_left_to_learn_from() -> None:
    """By time, the newest rows may be all that there is of a class."""
    classes = np.array([0] * 90 + [1] * 10)
    frame = pl.DataFrame({"sold days since 1970": np.arange(100)})
    chosen = validation_rows(frame, classes, 0.2, "auto", 0)
    assert len(np.unique(classes[~chosen])) == 2


def test_a_column_that_there_is_not_is_told_with_those_that_there_are() -> None:
    frame = people()
    with pytest.raises(ValueError, match=r"'shop' is not a column .* age, city, height"):
        validation_rows(frame, no_classes(frame), 0.2, "shop", 0)


# --- the estimators, without torch ------------------------------------------------------------


@pytest.mark.parametrize("network", [NeuralNetworkClassifier, NeuralNetworkRegressor])
def test_a_network_has_the_interface_of_scikit_learn(network: Any) -> None:
    made = network(hidden=[8], epochs=3, device="cpu")
    assert clone(made).get_params() == made.get_params()
    assert made.set_params(dropout=0.5).dropout == 0.5
    assert "epochs=3" in repr(made)


def test_without_torch_a_sentence_says_what_to_install(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match=r"needs torch.*uv add torch"):
        NeuralNetworkRegressor().fit(people(), np.arange(40.0))
