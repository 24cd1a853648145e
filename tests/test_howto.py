"""The code of each how-to page works as it stands there, in a project that is new."""

from __future__ import annotations

import importlib
import shutil
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from conftest import ROOT
from howto_pages import blocks, follow_block
from rung_runtime import config, model_format
from rung_runtime.model_package import predict
from rung_runtime.pipeline import ingest, train

Module = Callable[[str], ModuleType]
ROWS = 600


class Project(NamedTuple):
    """A project whose `problem/` has the code of a page."""

    package: str
    problem: Path


@pytest.fixture
def follow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Project]:
    """Return a function that does in a new project what a page says."""

    def follow(page: str) -> Project:
        package = f"howto_{page.replace('-', '_')}"
        template = next((ROOT / "template/src").glob("*/problem"))
        problem = tmp_path / package / "problem"
        shutil.copytree(template, problem, ignore=shutil.ignore_patterns("__pycache__"))
        (tmp_path / "pyproject.toml").write_text(f'[tool.rung]\npackage = "{package}"\n')
        for place, code in blocks(page):
            follow_block(problem, place, code)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        return Project(package, problem)

    return follow


def train_on_flights(estimator: str, params: dict[str, Any], path: Path) -> None:
    """Train an estimator of the project on the example, and see that it comes back from a file."""
    project = ROOT / "template"
    data = config.read(project / config.DATA, config.Data)
    rows = ingest.typed(ingest.read(project / data.source, data.separator).head(ROWS), data)
    fitted = train.fit(rows, data, config.Model(estimator=estimator, params=params))
    model_format.save(fitted, path)
    from rung_runtime.problem import features, trusted

    loaded = model_format.load(path, trusted())
    expected = predict(fitted, rows, data, features)
    assert expected.shape == (ROWS, 2)
    assert (predict(loaded, rows, data, features) == expected).all()


@pytest.mark.parametrize(
    ("page", "estimator", "params"),
    [
        ("own-estimator", "nearest", {"neighbours": 20}),
        ("lightgbm", "lightgbm", {"n_estimators": 20, "learning_rate": 0.05, "num_leaves": 15}),
        ("xgboost", "xgboost", {"n_estimators": 20, "learning_rate": 0.05, "max_depth": 5}),
    ],
)
def test_the_estimator_of_a_page_is_trained_and_saved(
    follow: Callable[[str], Project], tmp_path: Path, page: str, estimator: str, params: Any
) -> None:
    follow(page)
    train_on_flights(estimator, params, tmp_path / "model.skops")


def test_the_inputs_that_the_page_on_text_makes_are_those_of_the_row(
    follow: Callable[[str], Project],
) -> None:
    project = follow("text")
    features = importlib.import_module(f"{project.package}.problem.features")
    texts = pl.Series("note", ["late!", None, "3 hours late!!"])
    described = features.describe(texts)
    assert described.rows() == [(5, 1, 0), (0, 0, 0), (14, 2, 1)]
    assert features.describe(texts[2:]).rows() == described.rows()[2:]


def test_the_script_of_the_page_on_images_makes_a_table(
    follow: Callable[[str], Project], tmp_path: Path
) -> None:
    project = follow("images")
    script = importlib.import_module(f"{project.package}.embed")
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.full((6, 8, 3), float(number)))
    labels = pl.DataFrame({"file": ["2.npy", "0.npy"], "label": ["a", "b"]})
    made = script.table(tmp_path, labels)
    assert made.columns == ["file", "label", *(f"embedding {index}" for index in range(12))]
    assert made["embedding 11"].to_list() == [2.0, 0.0]


def test_each_block_of_every_page_says_where_it_belongs_and_is_python() -> None:
    for page in ("own-estimator", "lightgbm", "xgboost", "neural-network", "text", "images"):
        for _, code in blocks(page):
            in_a_function = "def block():\n" + textwrap.indent(code, "    ")
            assert compile(in_a_function, page, "exec")
