"""Yours: what must be true of your four modules. Keep what fits, add what only you know."""

from pathlib import Path

import polars as pl
import polars.selectors as cs
import pytest
from polars.testing import assert_frame_equal

from rung_runtime import config
from rung_runtime.model_package import predict
from rung_runtime.pipeline import evaluate, ingest, split, train
from rung_runtime.pipeline.ingest import inputs, labels, typed
from rung_runtime.pipeline.metrics import SCORES, skill
from rung_runtime.problem import features


@pytest.fixture(scope="session")
def whole() -> config.Config:
    return config.load()


@pytest.fixture(scope="session")
def rows(whole: config.Config) -> pl.DataFrame:
    """Some of the project's own rows, in their order."""
    data = whole.data
    found = typed(ingest.read(Path(data.source), data.separator), data)
    return found.gather_every(max(1, found.height // 3_000))


def test_a_row_has_the_same_features_alone_as_among_others(
    rows: pl.DataFrame, whole: config.Config
) -> None:
    given = inputs(rows.head(50), whole.data)
    alone = pl.concat([features(given[at]) for at in range(given.height)])
    assert_frame_equal(features(given), alone)


def test_features_are_numbers_and_categories_only(rows: pl.DataFrame, whole: config.Config) -> None:
    found = features(inputs(rows, whole.data))
    assert found.width > 0
    assert found.select(~(cs.numeric() | cs.enum())).columns == []


def test_the_model_learns_something_from_a_sample(rows: pl.DataFrame, whole: config.Config) -> None:
    known, held = split.split(rows, whole.data)
    fitted = train.fit(known, whole.data, whole.model)
    score, truth = SCORES[whole.gate.metric], labels(held, whole.data)
    constant = evaluate.baselines(known, held, whole.data)["constant"]
    model = score(truth, predict(fitted, held, whole.data, features))
    assert skill(whole.gate.metric, model, score(truth, constant)) > 0


def test_the_same_rows_and_seed_give_the_same_model(
    rows: pl.DataFrame, whole: config.Config, tmp_path: Path
) -> None:
    for name in ("first", "second"):
        train.save(train.fit(rows, whole.data, whole.model), tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
