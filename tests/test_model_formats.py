"""Every model format keeps the contract of its slot, and says in a sentence what it cannot do."""

from __future__ import annotations

import os
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT
from libraries import environment
from lightgbm import LGBMClassifier, LGBMRegressor
from rung_runtime.testing.model_formats import Make, ModelFormatContract, rows_to_train_on
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
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


class TestLightgbm(ModelFormatContract):
    """LightGBM."""

    name = "lightgbm"

    @pytest.fixture
    def make(self) -> Make:
        def make(task: str) -> Any:
            kind = LGBMRegressor if task == "regression" else LGBMClassifier
            return kind(n_estimators=20, random_state=0)

        return make


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


@pytest.mark.slow
@pytest.mark.nightly
def test_catboost_keeps_the_contract_of_model_formats(tmp_path: Path) -> None:
    """It is an eighth of a gigabyte, so it has an environment of its own."""
    folder = environment(f"{ROOT / 'runtime'}[train]", "catboost>=1.2.10", "pytest>=9.2")
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
    with pytest.raises(module("exceptions").UsageError, match="does not trust"):
        model_format.load(tmp_path / "model", trusted, formats=["lightgbm"])


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
