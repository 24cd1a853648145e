"""XGBoost: its model as UBJSON, read and used by XGBoost itself."""

import re
import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...model_format.library import (
    Floats,
    LibraryClassifier,
    LibraryEstimator,
    LibraryRegressor,
    is_of,
)
from .ubjson import require_whole

LIBRARY = "xgboost"
CLASSIFIERS = ("XGBClassifier", "XGBRFClassifier")
REGRESSORS = ("XGBRegressor", "XGBRFRegressor")
TRUSTED = (f"{__name__}.XGBoostClassifier", f"{__name__}.XGBoostRegressor")
SUFFIX = ".ubj"
UNUSED = re.compile(r"Parameters: \{(.+?)\} are not used")
LARGEST = float(np.finfo(np.float32).max)  # that XGBoost takes


class XGBoost(LibraryEstimator):
    """What classifier and regressor have in common."""

    library = LIBRARY

    def _train(
        self, X: Floats, y: NDArray[Any], categories: list[int], sample_weight: ArrayLike | None
    ) -> bytes:
        unfitted = self._unfitted({})
        if categories:
            types = ["c" if position in categories else "q" for position in range(X.shape[1])]
            unfitted.set_params(enable_categorical=True, feature_types=types)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fitted = unfitted.fit(_in_range(X), y, sample_weight=sample_weight)
        for warning in caught:
            # XGBoost takes any name, and says only now which it has not, or has no use for.
            if unused := UNUSED.search(str(warning.message)):
                self._require_no_others(re.findall(r'"(.+?)"', unused[1]))
            warnings.warn(warning.message, stacklevel=2)
        return bytes(fitted.get_booster().save_raw("ubj"))

    def _read(self, file: bytes) -> Any:
        from xgboost import Booster

        require_whole(file)  # else XGBoost may end the process, or fill the memory
        model = Booster()
        model.load_model(bytearray(file))
        return model

    def _importances(self, model: Any) -> Floats:
        params = self.estimator.get_params()
        is_linear = params["booster"] == "gblinear"
        kind = params["importance_type"] or ("weight" if is_linear else "gain")
        scores = model.get_score(importance_type=kind)
        names = [f"f{position}" for position in range(self.n_features_in_)]
        return np.array([np.mean(scores.get(name, 0.0)) for name in names])

    def _outputs(self, model: Any, X: Floats) -> Floats:
        params = self.estimator.get_params()
        if params["booster"] == "gblinear":  # which predicts from nothing else
            from xgboost import DMatrix

            return np.asarray(model.predict(DMatrix(_in_range(X), missing=params["missing"])))
        return np.asarray(model.inplace_predict(_in_range(X), missing=params["missing"]))


class XGBoostClassifier(LibraryClassifier, XGBoost):
    """An `XGBClassifier` or `XGBRFClassifier`."""

    ESTIMATORS = CLASSIFIERS


class XGBoostRegressor(LibraryRegressor, XGBoost):
    """An `XGBRegressor` or `XGBRFRegressor`."""

    ESTIMATORS = REGRESSORS


def _in_range(X: Floats) -> Floats:
    """Return numbers with those that single precision lacks at its ends; NaN stays NaN."""
    return np.clip(X, -LARGEST, LARGEST)


def owns(estimator: Any) -> bool:
    """Check whether an estimator is one of XGBoost's classifiers or regressors."""
    return is_of(estimator, LIBRARY, CLASSIFIERS + REGRESSORS)


def adapt(estimator: Any) -> XGBoost:
    """Return what stands for an estimator of XGBoost: see `ModelFormat`."""
    is_classifier = is_of(estimator, LIBRARY, CLASSIFIERS)
    return XGBoostClassifier(estimator) if is_classifier else XGBoostRegressor(estimator)
