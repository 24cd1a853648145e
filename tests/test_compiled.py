"""A compiled model predicts as its estimator does, for each estimator that a project comes with."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import numpy as np
import packages
import polars as pl
import pytest
from conftest import ROOT
from numpy.typing import NDArray
from rung_runtime import UsageError, compiled
from rung_runtime.artifacts import digest
from rung_runtime.compiled import convert, libraries
from rung_runtime.compiled.export import export
from rung_runtime.config import Config, Data
from rung_runtime.model_format import save
from rung_runtime.model_package import package_digest
from rung_runtime.pipeline.compile import compile_package
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

SEED = 7
ROWS = 1_500
TRUSTED = (
    "functools.partial",
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.utils.validation.check_array",
)
CITIES = [f"city {number}" for number in range(60)]
Predict = Callable[[pl.DataFrame], NDArray[np.float64]]


@pytest.fixture(scope="module")
def problem_model() -> ModuleType:
    """Import the `problem/model.py` that a project comes with."""
    (file,) = (ROOT / "template/src").glob("*/problem/model.py")
    spec = importlib.util.spec_from_file_location("problem_model", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def frame(seed: int, *, words: bool = False) -> pl.DataFrame:
    """Make rows as `features` returns them: numbers and categories with gaps, counts of words."""
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    gap = pl.Series(random.random(ROWS) < 0.1)
    rows = pl.DataFrame(
        {
            "wind": random.normal(size=ROWS),
            "city": pl.Series(random.choice(CITIES[:50], ROWS), dtype=pl.Enum(CITIES)),
            "distance": random.exponential(1_000, ROWS),
            "stops": random.integers(0, 5, ROWS),
            "class": pl.Series(random.choice(["a", "b"], ROWS), dtype=pl.Enum(["a", "b"])),
            "late": pl.Series(random.integers(0, 2, ROWS), dtype=pl.UInt8),
        }
    ).with_columns(
        pl.when(gap).then(None).otherwise(pl.col(name)).alias(name)
        for name in ("wind", "city", "stops", "class")
    )
    if not words:
        return rows
    counts = {f"note word {word}": random.poisson(0.2, ROWS).astype("f4") for word in range(20)}
    return rows.with_columns(**{name: pl.Series(values) for name, values in counts.items()})


def target(rows: pl.DataFrame, task: str) -> NDArray[Any]:
    random = np.random.default_rng(SEED)
    is_busy = rows["city"].cast(pl.String).is_in(CITIES[20:30]).fill_null(False).to_numpy()
    signal = rows["wind"].fill_null(1.0).to_numpy() + 2 * is_busy + random.normal(size=len(rows))
    if task == "binary":
        return np.asarray(signal > 0, dtype=int)
    if task == "multiclass":
        return np.asarray(np.digitize(signal, [-1.0, 0.5, 2.0]))
    return np.asarray(1_000 * signal)


def predictor(fitted: Any) -> Predict:
    if hasattr(fitted, "predict_proba"):
        predict: Predict = fitted.predict_proba
        return predict
    return lambda rows: np.asarray(fitted.predict(rows)).reshape(-1, 1)


def largest_difference(fitted: Any, rows: pl.DataFrame, classes: int) -> float:
    graph = compiled.CompiledModel(convert.compile_estimator(fitted, rows, classes))
    return compiled.check_parity(graph, predictor(fitted), rows).largest_difference


@pytest.mark.parametrize("words", [False, True], ids=["numbers", "words"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("boosted", {"max_iter": 30}),
        ("forest", {"n_estimators": 10}),
        ("linear", {}),
        ("mean", {"boosted": {"max_iter": 10}, "linear": {}, "forest": {"n_estimators": 4}}),
    ],
)
def test_each_estimator_of_a_project_is_compiled_and_predicts_the_same(
    problem_model: ModuleType, name: str, params: dict[str, Any], task: str, words: bool
) -> None:
    trained = frame(SEED, words=words)
    y_true = target(trained, task)
    fitted = problem_model.estimator(name, task, trained, 0, params).fit(trained, y_true)
    classes = 0 if task == "regression" else int(y_true.max()) + 1
    # Other rows, with cities that training lacked.
    rows = frame(SEED + 1, words=words).with_columns(
        pl.Series("city", np.resize(CITIES, ROWS), dtype=pl.Enum(CITIES))
    )
    assert largest_difference(fitted, rows, classes) <= 1e-12


@pytest.mark.parametrize("loss", ["squared_error", "poisson", "gamma", "absolute_error"])
def test_losses_with_a_link_are_compiled_too(loss: str) -> None:
    rows = frame(SEED)
    y_true = np.exp(target(rows, "regression") / 2_000)
    estimator = HistGradientBoostingRegressor(
        loss=loss, max_iter=10, categorical_features="from_dtype"
    )
    assert largest_difference(estimator.fit(rows, y_true), rows, 0) <= 1e-12


def test_trees_without_a_split_are_compiled() -> None:
    rows = frame(SEED)
    stumps = HistGradientBoostingClassifier(
        max_iter=3, min_samples_leaf=ROWS, categorical_features="from_dtype"
    )
    assert largest_difference(stumps.fit(rows, target(rows, "binary")), rows, 2) <= 1e-12


def test_a_class_that_training_lacked_has_probability_0() -> None:
    rows = frame(SEED).drop("city", "class")
    y_true = target(frame(SEED), "multiclass")
    fitted = HistGradientBoostingClassifier(max_iter=5).fit(
        rows.filter(pl.Series(y_true != 2)), y_true[y_true != 2]
    )
    graph = compiled.CompiledModel(convert.compile_estimator(fitted, rows, 4))
    y_pred = graph.predict(rows)
    assert y_pred.shape == (ROWS, 4)
    assert not y_pred[:, 2].any()
    assert y_pred[:, [0, 1, 3]] == pytest.approx(fitted.predict_proba(rows), abs=1e-12)


def test_the_same_estimator_gives_the_same_bytes() -> None:
    rows = frame(SEED)
    fitted = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype")
    fitted.fit(rows, target(rows, "binary"))
    first, second = (convert.compile_estimator(fitted, rows, 2) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("estimator", "reason"),
    [
        (KNeighborsClassifier(), "KNeighborsClassifier has no compiled form"),
        (
            make_pipeline(OneHotEncoder(handle_unknown="ignore"), LogisticRegression()),
            "OneHotEncoder has no compiled form",
        ),
        (  # of which the rows that are compared may have none
            make_pipeline(SimpleImputer(missing_values=-999), LogisticRegression()),
            "an imputer of -999 and not of gaps has no compiled form",
        ),
    ],
    ids=["an estimator", "a transformer", "a number that stands for a gap"],
)
def test_what_has_no_graph_is_said_by_name(estimator: Any, reason: str) -> None:
    rows = frame(SEED).select("distance", "late")
    fitted = estimator.fit(rows, target(frame(SEED), "binary"))
    with pytest.raises(convert.CannotCompile, match=reason):
        convert.compile_estimator(fitted, rows, 2)


def test_a_forest_that_is_too_large_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = frame(SEED).select("distance", "late")
    fitted = RandomForestClassifier(n_estimators=3).fit(rows, target(frame(SEED), "binary"))
    assert largest_difference(fitted, rows, 2) <= 1e-12
    monkeypatch.setattr(convert, "MAX_SPLITS", 100)
    with pytest.raises(convert.CannotCompile, match=r"its trees have \S+ splits, and the limit is"):
        convert.compile_estimator(fitted, rows, 2)


@pytest.mark.parametrize("max_leaf_nodes", [2, 31, pytest.param(None, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", range(3))
def test_trees_with_gaps_in_numbers_and_many_leaves_are_compiled(
    max_leaf_nodes: int | None, seed: int
) -> None:
    rows = frame(seed)
    boosted = HistGradientBoostingClassifier(
        max_iter=10,
        max_leaf_nodes=max_leaf_nodes,
        min_samples_leaf=3,
        class_weight="balanced",
        categorical_features="from_dtype",
    )
    assert largest_difference(boosted.fit(rows, target(rows, "multiclass")), rows, 4) <= 1e-12
    numbers = rows.drop("city", "class")
    forest = RandomForestClassifier(5, max_leaf_nodes=max_leaf_nodes, random_state=0)
    assert largest_difference(forest.fit(numbers, target(rows, "multiclass")), numbers, 4) <= 1e-12


def test_a_graph_that_predicts_otherwise_has_no_parity() -> None:
    rows = frame(SEED).drop("city", "class")
    y_true = target(frame(SEED), "binary")
    fitted, other = (
        HistGradientBoostingClassifier(max_iter=iterations).fit(rows, y_true)
        for iterations in (5, 6)
    )
    graph = compiled.CompiledModel(convert.compile_estimator(other, rows, 2))
    assert not compiled.check_parity(graph, fitted.predict_proba, rows).holds


def contract_of_numbers(**distance: Any) -> Data:
    """Return a contract of two classes and two columns, of which one is as it is told."""
    number = {"type": "number"}
    return Data.model_validate(
        {
            "source": "rows.csv",
            "target": "y",
            "task": "binary",
            "classes": ["no", "yes"],
            "split": {"by": "stratified"},
            "columns": {"distance": number | distance, "late": number, "y": {"type": "category"}},
        }
    )


@pytest.mark.parametrize(
    ("estimator", "is_other", "reason"),
    [
        (HistGradientBoostingClassifier(max_iter=5), False, None),
        (KNeighborsClassifier(), False, "KNeighborsClassifier has no compiled form"),
        (HistGradientBoostingClassifier(max_iter=5), True, r"the graph differs .* by \d"),
    ],
    ids=["equal", "no graph", "another graph"],
)
def test_a_package_gets_the_graph_that_predicts_the_same_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, estimator: Any, is_other: bool, reason: str
) -> None:
    rows = frame(SEED).select("distance", "late").cast(pl.Float64)
    y_true = target(frame(SEED), "binary")
    fitted = estimator.fit(rows, y_true)
    save(fitted, tmp_path / "model.skops")
    data = contract_of_numbers()
    monkeypatch.setattr("rung_runtime.pipeline.compile.features", lambda some: some)
    monkeypatch.setattr("rung_runtime.pipeline.compile.trusted", lambda: TRUSTED)
    if is_other:
        other = HistGradientBoostingClassifier(max_iter=6).fit(rows, y_true)
        content = convert.compile_estimator(other, rows, 2)
        monkeypatch.setattr(convert, "compile_estimator", lambda *_: content)
    verdict = compile_package(tmp_path, rows, cast(Config, SimpleNamespace(data=data)))
    assert verdict.is_compiled == (tmp_path / "model.onnx").exists() == (reason is None)
    assert reason is None or re.search(reason, str(verdict.reason))


def refuse_gaps(some: pl.DataFrame) -> pl.DataFrame:
    """Stand for a `features` that nobody has tried with a gap."""
    if some["distance"].has_nulls():
        raise ZeroDivisionError("no distance")
    return some


@pytest.mark.parametrize(
    ("features", "reason"),
    [
        (lambda some: some, "it fails at a row that the contract allows, .*contains NaN"),
        (
            refuse_gaps,
            r"problem/features\.py fails at a row .* gap: ZeroDivisionError: no distance",
        ),
    ],
    ids=["the estimator", "features"],
)
def test_what_fails_at_a_row_that_nobody_sent_is_packaged_without_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, features: Any, reason: str
) -> None:
    """Training and holdout have no gap, which the contract allows."""
    rows = frame(SEED).select("distance", "late").cast(pl.Float64)
    fitted = LogisticRegression(max_iter=1_000).fit(rows, target(frame(SEED), "binary"))
    save(fitted, tmp_path / "model.skops")
    monkeypatch.setattr("rung_runtime.pipeline.compile.features", features)
    monkeypatch.setattr("rung_runtime.pipeline.compile.trusted", lambda: TRUSTED)
    data = contract_of_numbers(nullable=True)
    verdict = compile_package(tmp_path, rows, cast(Config, SimpleNamespace(data=data)))
    assert not verdict.is_compiled
    assert re.search(reason, str(verdict.reason))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows.rename({"wind": "gale"}),
        lambda rows: rows.select(reversed(rows.columns)),
        lambda rows: rows.with_columns(pl.col("class").cast(pl.String).cast(pl.Enum(["b", "a"]))),
        lambda rows: rows.with_columns(pl.col("class").cast(pl.String)),
    ],
    ids=["renamed", "reordered", "other categories", "text"],
)
def test_inputs_that_are_not_those_of_training_are_refused(
    change: Callable[[pl.DataFrame], pl.DataFrame],
) -> None:
    rows = frame(SEED)
    fitted = HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype")
    fitted.fit(rows, target(rows, "binary"))
    graph = compiled.CompiledModel(convert.compile_estimator(fitted, rows, 2))
    with pytest.raises(ValueError, match="features returned other"):
        graph.predict(change(rows))


def test_a_missing_runtime_and_a_damaged_file_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(UsageError, match=r"model\.onnx is damaged"):
        compiled.load(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"model\.onnx needs onnxruntime: run `uv sync`"):
        compiled.load(tmp_path / "model.onnx")


def test_a_long_table_is_predicted_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = frame(SEED)
    fitted = HistGradientBoostingClassifier(max_iter=2, categorical_features="from_dtype")
    fitted.fit(rows, target(rows, "binary"))
    graph = compiled.CompiledModel(convert.compile_estimator(fitted, rows, 2))
    whole = graph.predict(rows)
    monkeypatch.setattr("rung_runtime.compiled.model.BATCH_ROWS", 400)
    assert np.array_equal(graph.predict(rows), whole)


ALONE = """
import json, sys
import numpy, onnxruntime
signature = json.load(open("signature.json"))
rows = []
for line in open("rows.jsonl"):
    row = json.loads(line)
    numbers = []
    for column in signature["input"]["columns"]:
        value = row[column["name"]]
        if value is not None and "categories" in column:
            value = column["categories"].index(value)
        numbers.append(float("nan") if value is None else value)
    rows.append(numbers)
session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
inputs = {signature["input"]["name"]: numpy.array(rows, dtype=float)}
(predictions,) = session.run([signature["output"]["name"]], inputs)
assert not {"polars", "sklearn", "rung_runtime"} & set(sys.modules)
print(json.dumps([signature["output"]["columns"], predictions.tolist()]))
"""


def test_an_exported_graph_predicts_with_onnxruntime_alone(tmp_path: Path) -> None:
    rows = frame(SEED)
    fitted = HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype")
    fitted.fit(rows, target(rows, "binary"))
    package = tmp_path / "package"
    package.mkdir()
    (package / "model.skops").write_bytes(b"not read")
    (package / "model.onnx").write_bytes(convert.compile_estimator(fitted, rows, 2))
    (package / "contract.json").write_text(
        json.dumps({"task": "binary", "classes": ["no", "yes"], "target": "late"})
    )
    files = {path.name: digest(path) for path in package.iterdir()}
    manifest = {
        "version": "20261127-000000-00000000",
        "package_digest": package_digest(files),
        "model_digest": files["model.skops"],
        "files": files,
    }
    (package / "manifest.json").write_text(json.dumps(manifest))

    exported = tmp_path / "exported"
    export(package, exported)
    (exported / "rows.jsonl").write_bytes(rows.head(20).write_ndjson().encode())
    run = subprocess.run(
        [sys.executable, "-c", ALONE], cwd=exported, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    classes, predictions = json.loads(run.stdout)
    assert classes == ["no", "yes"]
    assert np.array(predictions) == pytest.approx(fitted.predict_proba(rows.head(20)), abs=1e-12)
    with pytest.raises(UsageError, match="is not an empty folder"):
        export(package, exported)


def test_rows_at_the_edges_of_the_contract_keep_it() -> None:
    columns = {
        "at": {"type": "datetime"},
        "note": {"type": "text", "nullable": True},
        "city": {"type": "category", "categories": CITIES, "allow_unknown": True},
        "wind": {"type": "number", "min": 0},
        "stops": {"type": "integer", "min": 0, "max": 4},
        "late": {"type": "boolean"},
        "y": {"type": "boolean"},
    }
    data = Data.model_validate(
        {
            "source": "rows.csv",
            "target": "y",
            "task": "binary",
            "classes": ["false", "true"],
            "split": {"by": "stratified"},
            "columns": columns,
        }
    )
    rows = pl.DataFrame(
        {
            "at": [datetime(2024, 1, day) for day in (1, 2, 3)],
            "note": ["some words", None, "others"],
            "city": pl.Series(CITIES[:3], dtype=pl.Enum(CITIES)),
            "wind": [0.5, 1.5, 20.0],
            "stops": [1, 2, 3],
            "late": [True, False, True],
        }
    )
    edges = compiled.edge_rows(rows, data)
    assert edges.schema == rows.schema
    assert set(edges["city"].drop_nulls()) == set(CITIES)
    assert edges["wind"].min() == 0
    assert edges["wind"].max() == 20_000
    assert (edges["stops"].min(), edges["stops"].max()) == (0, 4)
    assert edges["note"].str.len_chars().max() == 1_000
    assert edges.null_count().row(0) == (0, 2, 2, 0, 0, 0)


WITHOUT_SCIKIT_LEARN = """
import sys
sys.modules.update(dict.fromkeys(["joblib", "narwhals", "scipy", "skops", "sklearn"]))
from rung_runtime.serving import main
main()
"""


@pytest.mark.parametrize(
    ("is_compiled", "line", "code"),
    [(True, "", 0), (False, "", 1), (True, "import sklearn\n", 1)],
    ids=["compiled", "an estimator", "features that import it"],
)
def test_an_image_does_without_scikit_learn_where_the_model_answers_without_it(
    module: Callable[[str], ModuleType], tmp_path: Path, is_compiled: bool, line: str, code: int
) -> None:
    """What the Dockerfile asks before it installs the rest."""
    packages.package(module, tmp_path / "made", is_compiled=is_compiled)
    packages.variant(module, tmp_path / "made", tmp_path / "model", {"problem/features.py": line})
    command = [sys.executable, "-c", WITHOUT_SCIKIT_LEARN, "--check", str(tmp_path / "model")]
    env = os.environ | {"PYTHONPATH": str(ROOT / "runtime/src")}
    run = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert run.returncode == code, run.stderr
    lines = run.stderr.splitlines()
    assert len(lines) == code
    assert not code or "the model does not answer: ModuleNotFoundError" in lines[0]


def test_an_estimator_that_is_loaded_late_is_that_of_the_package(
    module: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    package = packages.package(module, tmp_path / "model", is_compiled=True)
    load = module("model_package").load_package
    assert load(package).fitted.n_iter_ == 10
    opened = load(package)
    (package / "model.skops").write_bytes(b"another")
    with pytest.raises(module("exceptions").UsageError, match="has changed since"):
        _ = opened.fitted


TREES = {"n_estimators": 30}
QUIET = {"verbose": -1, "n_jobs": 1}
LIBRARIES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("lightgbm", "LGBMClassifier", "binary", TREES | QUIET),
    ("lightgbm", "LGBMClassifier", "multiclass", TREES | QUIET),
    ("lightgbm", "LGBMRegressor", "regression", TREES | QUIET | {"boosting_type": "dart"}),
    ("xgboost", "XGBClassifier", "binary", TREES),
    ("xgboost", "XGBClassifier", "multiclass", TREES),
    ("xgboost", "XGBRegressor", "regression", TREES),
]
MORE_OF_LIBRARIES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("lightgbm", "LGBMClassifier", "multiclass", QUIET | {"objective": "multiclassova"}),
    (
        "lightgbm",
        "LGBMClassifier",
        "binary",
        QUIET | {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    ),
    ("lightgbm", "LGBMRegressor", "counts", QUIET | {"objective": "poisson"}),
    ("lightgbm", "LGBMRegressor", "counts", QUIET | {"objective": "tweedie"}),
    ("xgboost", "XGBRFClassifier", "binary", TREES),
    ("xgboost", "XGBRegressor", "counts", TREES | {"objective": "count:poisson"}),
    ("xgboost", "XGBRegressor", "regression", TREES | {"objective": "reg:absoluteerror"}),
    ("catboost", "CatBoostClassifier", "binary", {"iterations": 60, "one_hot_max_size": 100}),
    ("catboost", "CatBoostClassifier", "multiclass", {"iterations": 60, "one_hot_max_size": 100}),
    ("catboost", "CatBoostClassifier", "binary", {"iterations": 60, "max_ctr_complexity": 1}),
    ("catboost", "CatBoostRegressor", "regression", {"iterations": 60, "max_ctr_complexity": 1}),
    (
        "catboost",
        "CatBoostRegressor",
        "counts",
        {"one_hot_max_size": 100, "loss_function": "Poisson"},
    ),
]


def library_estimator(
    library: str, name: str, task: str, params: dict[str, Any], rows: pl.DataFrame
) -> tuple[Any, Predict]:
    """Fit an estimator of another library to the matrix of rows; return it, and its predictions."""
    module = pytest.importorskip(library)
    columns = compiled.Columns.of_frame(rows)
    codes = [columns.names.index(name) for name in columns.categories]
    if library == "xgboost":
        types = ["c" if place in codes else "q" for place in range(rows.width)]
        params = params | {"enable_categorical": True, "feature_types": types}

    def table(frame: pl.DataFrame) -> Any:
        matrix = columns.matrix(frame)
        if library != "catboost":
            return matrix
        positions = [str(place) for place in range(frame.width)]
        categories = [pl.col(str(place)).fill_nan(-1).cast(pl.Int32) for place in codes]
        return pl.from_numpy(matrix, schema=positions).with_columns(categories)

    options: dict[str, Any] = {"lightgbm": {"categorical_feature": codes}, "xgboost": {}}.get(
        library, {"cat_features": codes, "verbose": False}
    )
    y_true = target(rows, "regression" if task == "counts" else task)
    y_true = np.exp(y_true / 2_000) if task == "counts" else y_true
    fitted = getattr(module, name)(**params).fit(table(rows), y_true, **options)

    def predict(frame: pl.DataFrame) -> NDArray[np.float64]:
        outputs = 1 if task in ("regression", "counts") else len(fitted.classes_)
        if not len(frame):
            return np.zeros((0, outputs))
        if outputs > 1:
            return np.asarray(fitted.predict_proba(table(frame)), dtype=float)
        is_exponent = (library, task) == ("catboost", "counts")
        arguments = {"prediction_type": "Exponent"} if is_exponent else {}
        return np.asarray(fitted.predict(table(frame), **arguments), dtype=float).reshape(-1, 1)

    return fitted, predict


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize(
    ("library", "name", "task", "params"),
    [
        *(pytest.param(*case) for case in LIBRARIES),
        *(pytest.param(*case, marks=pytest.mark.nightly) for case in MORE_OF_LIBRARIES),
    ],
)
def test_trees_of_other_libraries_are_compiled_and_predict_the_same(
    library: str, name: str, task: str, params: dict[str, Any]
) -> None:
    rows = frame(SEED)
    fitted, predict = library_estimator(library, name, task, params, rows)
    classes = 0 if task in ("regression", "counts") else len(fitted.classes_)
    # With cities that training lacked, and gaps where it had none.
    others = frame(SEED + 1).with_columns(
        pl.Series("city", np.resize(CITIES, ROWS), dtype=pl.Enum(CITIES)),
        pl.when(pl.int_range(pl.len()) % 50 > 0).then("distance").alias("distance"),
    )
    graph = compiled.CompiledModel(convert.compile_estimator(fitted, others, classes))
    single = libraries.is_single_precision(fitted)
    assert single == (library == "xgboost")
    parity = compiled.check_parity(graph, predict, others, single_precision=single)
    assert parity.holds
    assert single or parity.largest_difference <= 1e-12


@pytest.mark.parametrize(
    ("library", "name", "params", "reason"),
    [
        ("lightgbm", "LGBMRegressor", QUIET | {"linear_tree": True}, "linear trees of LightGBM"),
        ("lightgbm", "LGBMRegressor", QUIET | {"reg_sqrt": True}, "objective 'regression sqrt'"),
        ("xgboost", "XGBRegressor", {"booster": "dart"}, "dart of XGBoost"),
        (
            "xgboost",
            "XGBRegressor",
            {"objective": "binary:hinge"},
            "objective binary:hinge of XGBoost",
        ),
    ],
)
def test_what_a_library_does_beyond_trees_is_said(
    library: str, name: str, params: dict[str, Any], reason: str
) -> None:
    module = pytest.importorskip(library)
    rows = frame(SEED).drop("city", "class")
    y_true = target(frame(SEED), "binary")
    fitted = getattr(module, name)(n_estimators=3, **params)
    fitted.fit(compiled.Columns.of_frame(rows).matrix(rows), y_true)
    with pytest.raises(convert.CannotCompile, match=reason):
        convert.compile_estimator(fitted, rows, 0)


def test_a_graph_reads_no_file_of_the_folder_that_it_is_opened_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor may say that its content is in a file beside the model; ours has none beside it."""
    from onnx import TensorProto, helper

    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.txt").write_text("TOKEN123")
    outside = TensorProto(name="w", data_type=TensorProto.UINT8, dims=[1, 8])
    outside.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "secret.txt"), ("offset", "0"), ("length", "8")):
        outside.external_data.add(key=key, value=value)
    nodes = [
        helper.make_node("Cast", ["w"], ["c"], to=TensorProto.DOUBLE),
        helper.make_node("Expand", ["c", "shape"], ["predictions"]),
        helper.make_node("Shape", ["rows"], ["shape"]),
    ]
    nodes = [nodes[2], nodes[0], nodes[1]]
    rows = helper.make_tensor_value_info("rows", TensorProto.DOUBLE, ["n", 8])
    predictions = helper.make_tensor_value_info("predictions", TensorProto.DOUBLE, ["n", 8])
    graph = helper.make_graph(nodes, "g", [rows], [predictions], [outside])
    opset = helper.make_opsetid("", 21)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    helper.set_model_props(model, {"columns": '{"names": ["a"], "categories": {}}'})
    with pytest.raises(Exception, match=r"secret\.txt"):
        compiled.CompiledModel(model.SerializeToString())
