"""Yours: what must be true of your four modules. Keep what fits, add what only you know."""

import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

from rung_runtime.problem import features
from rung_runtime.testing import project


@pytest.fixture(scope="session")
def rows() -> pl.DataFrame:
    """Return some of the project's own rows, in their order."""
    return project.rows(at_most=3_000)


def test_a_row_has_the_same_features_alone_as_among_others(rows: pl.DataFrame) -> None:
    columns = project.inputs(rows.head(50))
    row_by_row = pl.concat([features(columns[row]) for row in range(columns.height)])
    assert_frame_equal(features(columns), row_by_row)


def test_features_are_numbers_and_categories_only(rows: pl.DataFrame) -> None:
    model_inputs = features(project.inputs(rows))
    assert model_inputs.width > 0
    assert model_inputs.select(~(cs.numeric() | cs.enum())).columns == []


def test_the_model_learns_something_from_a_sample(rows: pl.DataFrame) -> None:
    assert project.skill(rows) > 0  # 0: no better than a constant prediction; 1: perfect


def test_the_same_rows_and_seed_give_the_same_model(rows: pl.DataFrame) -> None:
    first, second = (project.fit(rows) for _ in range(2))
    assert project.model_digest(first) == project.model_digest(second)
