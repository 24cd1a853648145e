"""Training: what is saved comes back, byte for byte the same, and what cannot be is told truly."""

from __future__ import annotations

import importlib
import pickle
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import verdicts
from sklearn.cluster import KMeans
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]

Module = Callable[[str], ModuleType]


def rows_of(module: Module) -> tuple[Any, Any]:
    data = verdicts.contract("binary", module)
    return verdicts.draw_rows("binary", 300, np.random.default_rng(0)), data


def test_files_with_random_names_are_renumbered_whole(module: Module, tmp_path: Path) -> None:
    """XGBoost and others keep bytes, which skops writes to files named by a UUID."""
    train = module("pipeline.train")
    inference = module("model_package")
    for number in range(8):  # six in ten UUIDs begin with a digit
        fitted = DummyClassifier().fit([[0], [1]], [0, 1])
        fitted.first_ = b"one"
        fitted.second_ = bytearray(b"two")
        fitted.array_ = np.arange(3)
        train.save(fitted, tmp_path / str(number))
        loaded = inference.load_estimator(tmp_path / str(number), ())
        assert (loaded.first_, bytes(loaded.second_)) == (b"one", b"two")
        assert loaded.array_.tolist() == [0, 1, 2]
        assert (tmp_path / str(number)).read_bytes() == (tmp_path / "0").read_bytes()
    assert {name.partition(".")[0].isdigit() for name in names(tmp_path / "0")} == {True}


def test_machines_with_few_and_with_many_cores_give_one_file(module: Module) -> None:
    """Scikit-learn notes in a model how many threads trained it."""
    rows = np.random.default_rng(0).normal(size=(300, 4))
    trees = HistGradientBoostingClassifier(max_iter=3).fit(rows, rows[:, 0] > 0)
    groups = KMeans(3, n_init=1).fit(rows)
    files = set()
    for cores in (1, 2, 64):
        trees._bin_mapper.n_threads = groups._n_threads = cores
        files.add(module("model_format").to_bytes([trees, groups]))
        assert (trees._bin_mapper.n_threads, groups._n_threads) == (cores, cores)
    assert len(files) == 1


def test_the_linear_baseline_has_the_same_digits_on_any_number_of_cores(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[set[int]] = []

    class Watched(DummyClassifier):  # type: ignore[misc]
        def fit(self, *rows: Any) -> Any:
            pools = [pool for pool in threadpool_info() if pool["user_api"] == "blas"]
            threads.append({pool["num_threads"] for pool in pools})
            return super().fit(*rows)

    baselines = module("pipeline.baselines")
    monkeypatch.setattr(baselines, "linear", lambda task, x: Watched())
    rows, data = rows_of(module)
    with threadpool_limits(2, "blas"):
        baselines.baseline_predictions(rows.head(200), rows.tail(100), data)
    assert threads == [{1}]


def names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as file:
        return [name for name in file.namelist() if name != "schema.json"]


def test_a_param_that_cannot_be_saved_is_named(module: Module, tmp_path: Path) -> None:
    config = module("config")
    train = module("pipeline.train")
    rows, data = rows_of(module)
    params = {"max_iter": 3, "early_stopping": True, "scoring": "roc_auc"}
    model = config.Model(params=params)
    fitted = train.fit(rows, data, model)
    with pytest.raises(train.Unsavable) as caught:
        train.save(fitted, tmp_path / "model.skops")
    assert not list(tmp_path.iterdir())
    gate = config.Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
    whole = config.Config(data=data, model=model, gate=gate)
    message = train._explain(caught.value, rows, whole)
    assert "scoring" in message
    assert "max_iter" not in message
    assert "\n" not in message


class Broken:
    """An estimator whose library is not whole."""

    def fit(self, x: Any, y: Any) -> None:
        raise ImportError("libgomp.so.1 is missing\nand more")


def test_an_estimator_that_fails_is_told_with_module_and_line(
    module: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = module("pipeline.train")
    rows, data = rows_of(module)
    monkeypatch.setattr(train, "estimator", lambda *_: Broken())
    with pytest.raises(module("exceptions").UsageError) as caught:
        train.fit(rows, data, module("config").Model())
    message = str(caught.value)
    assert message.startswith("problem/model.py: estimator 'boosted'")
    assert "ImportError: libgomp.so.1 is missing (test_train.py, line " in message
    assert "\n" not in message


@pytest.mark.parametrize("params", [{"max_iter": 1e300}, {"leaves": 3}, {"learning_rate": "fast"}])
def test_a_param_that_is_wrong_is_told_in_a_sentence(
    module: Module, params: dict[str, object]
) -> None:
    rows, data = rows_of(module)
    with pytest.raises(module("exceptions").UsageError, match=next(iter(params))):
        module("pipeline.train").fit(rows, data, module("config").Model(params=params))


def test_only_the_projects_own_problem_is_the_users(module: Module, tmp_path: Path) -> None:
    cli = module("cli.app")
    assert cli._is_problem(module("problem").folder())
    assert not cli._is_problem(tmp_path / "problem")
    (tmp_path / "manifest.json").write_text("{}")
    assert cli._is_problem(tmp_path / "problem")


def test_a_refit_learns_from_the_rows_that_were_held_out_too(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = module("config")
    train = module("pipeline.train")
    documents = module("artifacts")
    rows, data = rows_of(module)
    model = config.Model(estimator="linear", refit=True)
    gate = config.Gate(metric="roc_auc", thresholds={"roc_auc": 0.5})
    monkeypatch.chdir(tmp_path)
    documents.write_rows(rows[:200], documents.TRAIN)
    documents.write_rows(rows[200:], documents.HOLDOUT)
    whole = config.Config(data=data, model=model, gate=gate)
    module("pipeline.package").refit(tmp_path / "refitted", whole)
    train.save(train.fit(rows, data, model), tmp_path / "of all")
    train.save(train.fit(rows[:200], data, model), tmp_path / "of some")
    refitted = (tmp_path / "refitted").read_bytes()
    assert refitted == (tmp_path / "of all").read_bytes()
    assert refitted != (tmp_path / "of some").read_bytes()


def test_a_line_over_time_goes_on_after_new_year(module: Module) -> None:
    """Within one year the number of the month and the elapsed days are the same line."""
    n = 400
    known = 320
    noise = 5.0
    when = [datetime(2015, 1, 15) + timedelta(days=day) for day in range(n)]
    errors = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        inputs = module("problem.features").features(
            pl.DataFrame({"when": when, "x": random.normal(size=n)})
        )
        y = 0.1 * np.arange(n) + random.normal(0, noise, n)
        linear = module("problem.model").linear("regression", inputs)
        predicted = linear.fit(inputs[:known], y[:known]).predict(inputs[known:])
        errors.append(float(np.mean((predicted - y[known:]) ** 2) ** 0.5))
    print("seeds 0 to 2:", errors)
    assert max(errors) < 1.2 * noise


OWN = """
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

TRUSTED = [f"{__name__}.Own"]


class Own(ClassifierMixin, BaseEstimator):
    def fit(self, x, y):
        self.model_ = LogisticRegression().fit(x, y)
        self.classes_ = self.model_.classes_
        return self

    def predict_proba(self, x):
        return self.model_.predict_proba(x)
"""


def test_a_class_of_your_own_is_loaded_from_the_problem_that_came_with_it(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container does not have the project's package, and a working tree has other code by now."""
    model_format = module("model_format")
    for name in ("flights", "packaged"):
        folder = tmp_path / name / "problem"
        folder.mkdir(parents=True)
        (folder / "model.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "pyproject.toml").write_text('[tool.rung]\npackage = "flights"\n')
    monkeypatch.chdir(tmp_path)
    own, packaged = (importlib.import_module(f"{n}.problem.model") for n in ("flights", "packaged"))
    fitted = own.Own().fit([[0], [1]], [0, 1])
    path = tmp_path / "model.skops"
    model_format.save(fitted, path)
    assert b"flights" not in path.read_bytes()
    loaded = model_format.load(path, packaged.TRUSTED, problem="packaged.problem")
    assert type(loaded) is packaged.Own
    assert type(model_format.load(path, own.TRUSTED)) is own.Own
    assert loaded.predict_proba([[0.3]]).tolist() == fitted.predict_proba([[0.3]]).tolist()
    with pytest.raises(module("exceptions").UsageError, match="does not trust"):
        model_format.load(path, [])


@pytest.mark.parametrize("content", [b"", b"x", pickle.dumps({"a": 1}), b"PK\x03\x04" + bytes(99)])
def test_what_is_no_archive_of_skops_is_told_as_a_damaged_model(
    module: Module, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "model.skops").write_bytes(content)
    with pytest.raises(module("exceptions").UsageError, match="is damaged"):
        module("model_format").load(tmp_path / "model.skops", [])
