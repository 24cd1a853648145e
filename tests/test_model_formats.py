"""Every model format keeps the contract of its slot, and says in a sentence what it cannot do."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse
import tables
import verdicts
from conftest import ROOT, Copy, digest
from libraries import environment
from lightgbm import LGBMClassifier, LGBMRegressor
from rung_runtime.testing.model_formats import Make, ModelFormatContract, rows_to_train_on
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from test_delivery import DELIVERY, Loop
from test_torch import environment_of_networks
from xgboost import XGBClassifier, XGBRegressor

Module = Callable[[str], ModuleType]
RUNTIME = ROOT / "runtime/src"


class TestSkops(ModelFormatContract):
    """scikit-learn's own."""

    name = "skops"
    trusted = (
        "functools.partial",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.utils.validation.check_array",
    )

    @pytest.fixture
    def make(self) -> Make:
        def make(task: str) -> Any:
            params = {"categorical_features": "from_dtype", "max_iter": 20, "random_state": 0}
            if task == "regression":
                return HistGradientBoostingRegressor(**params)
            return HistGradientBoostingClassifier(**params)

        return make


@pytest.mark.slow  # processes start
class TestLightgbm(ModelFormatContract):
    """LightGBM."""

    name = "lightgbm"

    @pytest.fixture
    def make(self) -> Make:
        def make(task: str) -> Any:
            kind = LGBMRegressor if task == "regression" else LGBMClassifier
            return kind(n_estimators=20, random_state=0)

        return make


@pytest.mark.slow  # processes start
class TestXgboost(ModelFormatContract):
    """XGBoost."""

    name = "xgboost"

    @pytest.fixture
    def make(self) -> Make:
        def make(task: str) -> Any:
            kind = XGBRegressor if task == "regression" else XGBClassifier
            return kind(n_estimators=20, random_state=0)

        return make


CATBOOST = """
import pytest
from catboost import CatBoostClassifier, CatBoostRegressor
from rung_runtime.testing.model_formats import ModelFormatContract


class TestCatboost(ModelFormatContract):
    name = "catboost"

    @pytest.fixture
    def make(self):
        def make(task):
            kind = CatBoostRegressor if task == "regression" else CatBoostClassifier
            return kind(n_estimators=20, random_seed=0)

        return make
"""


def environment_of_catboost() -> Path:
    """Return one of its own, as it is an eighth of a gigabyte."""
    return environment(f"{ROOT / 'runtime'}[train]", "catboost>=1.2.10", "pytest>=9.2")


@pytest.mark.slow
@pytest.mark.nightly
def test_catboost_keeps_the_contract_of_model_formats(tmp_path: Path) -> None:
    folder = environment_of_catboost()
    (tmp_path / "test_catboost.py").write_text(CATBOOST)
    variables = os.environ | {"PYTHONPATH": str(RUNTIME)}
    variables.pop("PYTEST_ADDOPTS", None)
    run = subprocess.run(
        [folder / "bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3_000:]
    assert not (tmp_path / "catboost_info").exists()


@pytest.mark.parametrize("suffix", [".txt", ".ubj"])
def test_the_librarys_own_file_can_be_taken_out_of_the_archive(
    module: Module, tmp_path: Path, suffix: str
) -> None:
    model_format = module("model_format")
    frame, y = rows_to_train_on("binary")
    kind = LGBMClassifier if suffix == ".txt" else XGBClassifier
    members = [(name, kind(n_estimators=number)) for number, name in enumerate("abc", 3)]
    vote = VotingClassifier([*members, ("d", LogisticRegression())], voting="soft")
    frame = frame.select("the z", "flag")
    model_format.save(model_format.adapt(vote).fit(frame, y), tmp_path / "model.skops")
    with zipfile.ZipFile(tmp_path / "model.skops") as archive:
        files = [name for name in archive.namelist() if name.endswith(suffix)]
        assert len(files) == 3  # not once more for each place that mentions a member
        archive.extract(files[0], tmp_path)
    if suffix == ".txt":
        import lightgbm

        assert lightgbm.Booster(model_file=tmp_path / files[0]).num_trees() == 3
    else:
        import xgboost

        booster = xgboost.Booster()
        booster.load_model(tmp_path / files[0])
        assert booster.num_boosted_rounds() == 3


def test_a_vote_of_two_libraries_names_both(module: Module, tmp_path: Path) -> None:
    model_format = module("model_format")
    frame, y = rows_to_train_on("binary")
    members = [("a", LGBMClassifier(n_estimators=3)), ("b", XGBClassifier(n_estimators=3))]
    calibrated = CalibratedClassifierCV(VotingClassifier(members, voting="soft"), cv=2)
    model_format.save(model_format.adapt(calibrated).fit(frame, y), tmp_path / "model")
    assert model_format.formats(tmp_path / "model") == ["lightgbm", "xgboost"]
    trusted = ["sklearn.calibration._CalibratedClassifier", "sklearn.utils._bunch.Bunch"]
    trusted += ["sklearn.calibration._SigmoidCalibration", "numpy.dtype"]
    loaded = model_format.load(tmp_path / "model", trusted)
    assert loaded.predict_proba(frame).shape == (frame.height, 2)


@pytest.mark.parametrize("kind", [LGBMRegressor, XGBRegressor])
def test_a_sparse_matrix_of_a_step_before_is_taken(module: Module, kind: Any) -> None:
    words = pl.DataFrame({"word": [f"w{number % 40}" for number in range(400)]})
    y = np.arange(400) % 40 / 10
    made = make_pipeline(OneHotEncoder(), kind(n_estimators=20, random_state=0))
    assert scipy.sparse.issparse(made[0].fit_transform(words))
    adapted = module("model_format").adapt(clone(made)).fit(words, y)
    assert adapted.predict(words) == pytest.approx(made.fit(words, y).predict(words))


@pytest.mark.parametrize(
    "params",
    [{"missing": -999.0}, {"booster": "gblinear", "updater": "coord_descent", "n_jobs": 1}],
)
def test_xgboost_predicts_by_the_params_that_it_was_trained_with(
    module: Module, params: dict[str, Any]
) -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(300, 3))
    matrix[random.random((300, 3)) < 0.2] = -999.0
    y = np.where(matrix[:, 0] == -999.0, 5.0, matrix[:, 0])
    plain = XGBRegressor(n_estimators=20, **params).fit(matrix, y)
    adapted = module("model_format").adapt(XGBRegressor(n_estimators=20, **params)).fit(matrix, y)
    assert adapted.predict(matrix) == pytest.approx(plain.predict(matrix))
    frame = pl.DataFrame(matrix, schema=["a", "b", "c"])
    fitted = module("model_format").adapt(XGBRegressor(n_estimators=20, **params)).fit(frame, y)
    with pytest.raises(module("compiled.convert").CannotCompile, match="has no compiled form"):
        module("compiled.convert").compile_estimator(fitted, frame, 0)


def test_a_word_that_is_called_as_keys_of_an_archive_are_is_a_word(
    module: Module, tmp_path: Path
) -> None:
    fitted = CountVectorizer(token_pattern=r"\S+").fit(["__module__ __class__ other"])
    module("model_format").save(fitted, tmp_path / "model.skops")
    assert module("model_format").formats(tmp_path / "model.skops") == ["skops"]


def test_weights_of_classes_are_by_the_classes_even_if_training_lacks_one(module: Module) -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(300, 2))
    y = np.where(matrix[:, 0] + random.normal(size=300) > 0, 2, 0)
    weights = {0: 1.0, 1: 7.0, 2: 50.0}
    plain = LGBMClassifier(n_estimators=10, class_weight={0: 1.0, 2: 50.0}, verbose=-1).fit(
        matrix, y
    )
    made = LGBMClassifier(n_estimators=10, class_weight=weights, deterministic=False)
    adapted = module("model_format").adapt(made).fit(matrix, y)
    assert adapted.predict_proba(matrix) == pytest.approx(plain.predict_proba(matrix))


@pytest.mark.parametrize(
    ("estimator", "named"),
    [
        (LGBMClassifier(n_estimators=2, objective=lambda y, p: (p - y, p)), "objective"),
        (XGBClassifier(n_estimators=2, eval_metric=lambda y, p: 0.0), "eval_metric"),
        (make_pipeline(LGBMClassifier(n_estimators=2, init=print)), "init"),
    ],
)
def test_a_param_that_is_a_function_is_named_when_it_cannot_be_saved(
    module: Module, estimator: Any, named: str
) -> None:
    model_format = module("model_format")
    adapted = model_format.adapt(estimator)
    with pytest.raises(model_format.Unsavable, match=named):
        model_format.to_bytes(adapted)


@pytest.mark.parametrize("objective", ["multi:softmax", "binary:logitraw"])
def test_an_objective_without_probabilities_is_refused_before_anything_is_judged(
    module: Module, objective: str
) -> None:
    task = "multiclass" if objective.startswith("multi") else "binary"
    frame, y = rows_to_train_on(task)
    adapted = module("model_format").adapt(XGBClassifier(n_estimators=5, objective=objective))
    with pytest.raises(ValueError, match="probabilities"):
        adapted.fit(frame, y)


@pytest.mark.parametrize("kind", [LGBMClassifier, XGBClassifier])
@pytest.mark.parametrize("selector", [SelectFromModel, RFE])
def test_a_library_may_choose_columns_for_another_estimator(
    module: Module, kind: Any, selector: Any, tmp_path: Path
) -> None:
    estimator = kind(n_estimators=9)
    frame, y = rows_to_train_on("binary")
    matrix = frame.select("x", "the z").fill_null(0.0).to_numpy()
    matrix = np.column_stack([matrix, np.zeros(len(matrix))])
    model_format = module("model_format")
    pipeline = make_pipeline(selector(clone(estimator)), LogisticRegression())
    fitted = model_format.adapt(pipeline).fit(matrix, y)
    chosen = fitted[0].get_support()
    assert chosen[0]
    assert not chosen[2]
    theirs = clone(estimator).fit(matrix, y).feature_importances_
    ours = model_format.adapt(clone(estimator)).fit(matrix, y).feature_importances_
    assert ours == pytest.approx(theirs / theirs.sum(), rel=1e-5)
    model_format.save(fitted, tmp_path / "model.skops")
    trusted = ["numpy.dtype", f"sklearn.feature_selection.{selector.__name__}"]
    loaded = model_format.load(tmp_path / "model.skops", trusted)
    assert (loaded.predict_proba(matrix) == fitted.predict_proba(matrix)).all()
    table = pl.DataFrame(matrix, schema=["a", "b", "c"])
    graph = module("compiled.convert").compile_estimator(fitted, table, 2)
    predicted = module("compiled").CompiledModel(graph).predict(table)
    np.testing.assert_allclose(predicted, fitted.predict_proba(matrix), atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "wrong", "alias"),
    [(LGBMClassifier, "num_leafs", "lambda_l1"), (XGBClassifier, "max_depht", "eta")],
)
def test_a_param_that_the_library_does_not_have_is_refused(
    module: Module, kind: Any, wrong: str, alias: str, recwarn: pytest.WarningsRecorder
) -> None:
    """Both take any name, LightGBM without a word; so a typo would train another model."""
    frame, y = rows_to_train_on("binary")
    adapt = module("model_format").adapt
    with pytest.raises(ValueError, match=f"^{kind.__name__} has no param {wrong}$"):
        adapt(kind(n_estimators=2, **{wrong: 3})).fit(frame, y)
    adapt(kind(n_estimators=2, **{alias: 0.5})).fit(frame, y)
    assert not [warning for warning in recwarn if "not used" in str(warning.message)]


def test_params_of_the_library_are_set_by_their_own_names(module: Module) -> None:
    """As a search over params does."""
    adapted = module("model_format").adapt(LGBMClassifier())
    adapted.set_params(num_leaves=7, estimator__n_estimators=5)
    assert (adapted.estimator.num_leaves, adapted.estimator.n_estimators) == (7, 5)


def test_classes_that_training_lacks_have_no_probability(module: Module) -> None:
    frame, y = rows_to_train_on("multiclass")
    present = y != 1
    for kind in (LGBMClassifier, XGBClassifier):
        adapted = module("model_format").adapt(kind(n_estimators=3))
        fitted = adapted.fit(frame.filter(present), y[present])
        assert fitted.classes_.tolist() == [0, 2]
        assert fitted.predict_proba(frame).shape == (frame.height, 2)
        assert fitted.predict_proba(frame.clear()).shape == (0, 2)


MODEL = """from collections.abc import Mapping
from typing import Any

import polars as pl
from {module} import {classifier}
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from .linear import numeric

TRUSTED = ["numpy.dtype", "sklearn.utils._bunch.Bunch"]


def estimator(
    name: str, task: str, inputs: pl.DataFrame, seed: int, params: Mapping[str, Any]
) -> BaseEstimator:
    return {classifier}(random_state=seed, **params)


def linear(task: str, inputs: pl.DataFrame) -> BaseEstimator:
    return make_pipeline(numeric(inputs), LogisticRegression(max_iter=300))
"""


CLASSIFIERS = {
    "lightgbm": ("lightgbm", "LGBMClassifier"),
    "xgboost": ("xgboost", "XGBClassifier"),
    "catboost": ("catboost", "CatBoostClassifier"),
    "torch": ("rung_runtime.adapters.model_format_torch", "NeuralNetworkClassifier"),
    "keras": ("rung_runtime.adapters.model_format_keras", "KerasClassifier"),
}


def bring(library: str, loop: Loop) -> None:
    """Put a library beside a project's code: that of this environment, or of one of its own.

    To install a second one would take half a minute.
    """
    source = loop.path / "src"
    if library not in ("lightgbm", "xgboost"):
        is_network = library in ("torch", "keras")
        folder = environment_of_networks() if is_network else environment_of_catboost()
        (packages,) = folder.glob("lib/python*/site-packages")
        (own,) = loop.copy.project.path.glob(".venv/lib/python*/site-packages")
        for entry in packages.iterdir():
            if not (own / entry.name).exists() and not (source / entry.name).exists():
                (source / entry.name).symlink_to(entry)
        return
    packages = Path(import_module(library).__file__ or "").parents[1]
    for folder in (packages / library, *packages.glob(f"{library}*.libs")):
        shutil.copytree(folder, source / folder.name)


@pytest.fixture
def boosted(
    library: str, ran: Callable[..., Copy], render: Callable[..., Path], tmp_path: Path
) -> Iterator[Loop]:
    """Give a project whose `problem/model.py` returns an estimator of a library."""
    loop = Loop(ran(1, "binary").again(tmp_path / "project"))
    name = f"model_format_{library}"
    adapter = Path("src/rung_runtime/adapters", name)
    source = render(level=1, model_format=["skops", library])
    shutil.copytree(source / adapter, loop.path / adapter)
    bring(library, loop)
    problem = loop.path / "src/flight_delays/problem"
    (problem / "model.py").rename(problem / "linear.py")
    module, classifier = CLASSIFIERS[library]
    (problem / "model.py").write_text(MODEL.format(module=module, classifier=classifier))
    (loop.path / "config/delivery.yaml").write_text(DELIVERY.format(port=0, seconds=1))
    configure(loop, library, rounds=30)
    yield loop
    loop.ml("stop", exits=None)


def configure(loop: Loop, library: str, rounds: int = 30, **params: int) -> None:
    """Write `config/model.yaml`."""
    params["epochs" if library in ("torch", "keras") else "n_estimators"] = rounds
    if library == "xgboost":
        params["max_depth"] = 3  # its own, 6, is too deep for the example
    (loop.path / "config/model.yaml").write_text(json.dumps({"params": params}))


@pytest.mark.slow
@pytest.mark.parametrize(
    "library",
    [
        "lightgbm",
        *(
            pytest.param(name, marks=pytest.mark.nightly)
            for name in ("xgboost", "catboost", "torch", "keras")
        ),
    ],
)
def test_a_project_of_another_library_is_trained_gated_served_compared_and_watched(
    boosted: Loop, library: str
) -> None:
    boosted.ml("run")
    manifest = json.loads((boosted.path / "artifacts/model/manifest.json").read_text())
    assert manifest["formats"] == [library]
    assert manifest["model_digest"] == digest(boosted.path / "artifacts/model.skops")
    boosted.ml("register")
    boosted.ml("deploy")
    first = boosted.serves
    assert first == manifest["version"]
    rows = pl.read_csv(tables.FLIGHTS, n_rows=60).drop("delayed").to_dicts()
    served = boosted.answers("/predict", {"rows": rows})["predictions"]
    lines = boosted.ml("predict", "--json", json.dumps(rows)).splitlines()
    printed = [json.loads(line)["probabilities"] for line in lines]
    for row, probabilities in zip(served, printed, strict=True):
        assert row["probabilities"] == pytest.approx(probabilities)
    # The champion, in a process of its own, is trained anew on the folds of the challenger.
    configure(boosted, library, rounds=60)
    output = boosted.ml("run", exits=None)
    comparison = boosted.copy.read("compare")["comparison"]
    assert comparison["kind"] == "compared", output
    assert comparison["champion"]["version"] == first
    boosted.ml("monitor", exits=None)
    assert json.loads((boosted.path / "artifacts/monitor.json").read_text())["step"] == "monitor"
    # What the library refuses is said as that of problem/model.py or its settings.
    bad = {"max_depth": 99} if library == "catboost" else {"learning_rate": -1}
    configure(boosted, library, **bad)
    refused = boosted.ml("train", exits=2)
    assert "nothing can be trained: " in refused or "cannot be fitted: " in refused


def test_a_library_that_is_missing_is_a_sentence_with_what_to_run(
    module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "flight_delays.problem.model", None)
    problem = module("problem")

    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="lightgbm.basic")

    monkeypatch.setattr(problem, "import_module", missing)
    with pytest.raises(module("exceptions").UsageError) as caught:
        problem.trusted()
    assert str(caught.value) == (
        "problem/model.py imports lightgbm.basic, which is not installed: "
        "run `rung add model_format lightgbm`"
    )


def test_a_library_that_fails_to_predict_is_told_with_module_and_line(module: Module) -> None:
    package = module("model_package")
    frame, y = rows_to_train_on("regression")
    fitted = module("model_format").adapt(LGBMRegressor(n_estimators=2)).fit(frame.drop("x"), y)
    fitted.columns_ = None  # as if the check of columns were not there
    data = verdicts.contract("regression", module)
    with pytest.raises(module("exceptions").UsageError) as caught:
        package.estimate(fitted, frame.select("x"), data)
    message = str(caught.value)
    assert message.startswith("problem/model.py: its estimator cannot predict: LightGBMError: ")
    assert "(lightgbm/" in message
    assert "\n" not in message


ABORT = """
import os, sys
from rung_runtime import crashes
with crashes.explained("train"):
    if sys.argv[1] == "abort":
        sys.path.insert(0, sys.argv[2])
        import crashing
        crashing.fit()
    elif sys.argv[1] == "raise":
        raise KeyError("told elsewhere")
"""


@pytest.mark.parametrize("end", ["abort", "raise", "well"])
def test_a_process_that_a_library_aborts_is_told_as_that(end: str, tmp_path: Path) -> None:
    library = tmp_path / "site-packages/crashing"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("import os\n\n\ndef fit():\n    os.abort()\n")
    run = subprocess.run(
        [sys.executable, "-c", ABORT, end, library.parent],
        env=os.environ | {"PYTHONPATH": str(RUNTIME)},
        capture_output=True,
        text=True,
        check=False,
    )
    if end == "abort":
        assert run.returncode == -signal.SIGABRT
        assert run.stderr.startswith(
            "ml: train: the library crashing aborted the process "
            "(Aborted, in crashing/__init__.py, line 5): try other params"
        )
        assert run.stderr.count("\n") == 1
    else:
        assert "aborted" not in run.stderr
        assert run.returncode == (1 if end == "raise" else 0)
