"""What a project's own tests ask for: its rows, and models that learn from them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal


@pytest.fixture
def project(
    module: Callable[[str], ModuleType],
    render: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    for name in ("config", "data"):  # without a package of its own, `problem/` is the template's
        shutil.copytree(render(level=0) / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return module("testing.project")


@pytest.mark.parametrize("at_most", [1, 7, 999, 1_000, 10**6])
def test_rows_are_no_more_than_asked_for_spread_evenly_and_in_their_order(
    project: Any, at_most: int
) -> None:
    everything = project.rows(10**9)
    some = project.rows(at_most)
    step = math.ceil(everything.height / at_most)
    assert everything.height == pl.read_csv("data/raw/flights.csv").height
    assert some.height <= at_most
    assert_frame_equal(some, everything[::step])


@pytest.mark.slow  # it trains
def test_a_model_that_learns_from_noise_has_no_skill_and_its_digest_is_that_of_its_file(
    project: Any, module: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    data = module("config").load().data
    rows = project.rows(600)
    knows = rows.with_columns(
        pl.when(pl.col(data.target) == data.classes[1]).then(1e4).otherwise(0)
    )
    features = [name for name, column in data.columns.items() if column.type == "number"]
    assert project.skill(rows.with_columns(knows["literal"].alias(features[0]))) > 0.9
    noise = rows.with_columns(rows[data.target].shuffle(seed=0))
    assert project.skill(noise) < 0.1
    fitted = project.fit(rows)
    module("model_format").save(fitted, tmp_path / "model")
    assert project.model_digest(fitted) == module("artifacts").digest(tmp_path / "model")
    assert project.predict(fitted, rows).shape == (rows.height, 2)
