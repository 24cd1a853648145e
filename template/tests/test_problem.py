"""Yours: what must be true of your four modules. Keep what fits, add what only you know."""

from pathlib import Path

import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

from rung_runtime import config
from rung_runtime.model_package import predict
from rung_runtime.pipeline import ingest, split, train
from rung_runtime.pipeline.baselines import baseline_predictions
from rung_runtime.pipeline.ingest import inputs, labels, typed
from rung_runtime.pipeline.metrics import SCORES, skill
from rung_runtime.problem import features

MAX_ROWS = 3_000


@pytest.fixture(scope="session")
def project_config() -> config.Config:
    return config.load()


@pytest.fixture(scope="session")
def rows(project_config: config.Config) -> pl.DataFrame:
    """Return some of the project's own rows, in their order."""
    data = project_config.data
    all_rows = typed(ingest.read(Path(data.source), data.separator), data)
    return all_rows.gather_every(max(1, all_rows.height // MAX_ROWS))


def test_a_row_has_the_same_features_alone_as_among_others(
    rows: pl.DataFrame, project_config: config.Config
) -> None:
    columns = inputs(rows.head(50), project_config.data)
    row_by_row = pl.concat([features(columns[row]) for row in range(columns.height)])
    assert_frame_equal(features(columns), row_by_row)


def test_features_are_numbers_and_categories_only(
    rows: pl.DataFrame, project_config: config.Config
) -> None:
    model_inputs = features(inputs(rows, project_config.data))
    assert model_inputs.width > 0
    assert model_inputs.select(~(cs.numeric() | cs.enum())).columns == []


def test_the_model_learns_something_from_a_sample(
    rows: pl.DataFrame, project_config: config.Config
) -> None:
    data = project_config.data
    metric = project_config.gate.metric
    train_rows, holdout = split.split(rows, data)
    fitted = train.fit(train_rows, data, project_config.model)
    y_true = labels(holdout, data)
    constant = baseline_predictions(train_rows, holdout, data)["constant"]
    reference = SCORES[metric](y_true, constant)
    value = SCORES[metric](y_true, predict(fitted, holdout, data, features))
    assert skill(metric, value, reference) > 0


def test_the_same_rows_and_seed_give_the_same_model(
    rows: pl.DataFrame, project_config: config.Config, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        fitted = train.fit(rows, project_config.data, project_config.model)
        train.save(fitted, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
