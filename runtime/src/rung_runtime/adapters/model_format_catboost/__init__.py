"""CatBoost: its own binary model, read and used by CatBoost itself."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from ...model_format.library import (
    Floats,
    LibraryClassifier,
    LibraryEstimator,
    LibraryRegressor,
    is_of,
)

LIBRARY = "catboost"
CLASSIFIERS = ("CatBoostClassifier",)
REGRESSORS = ("CatBoostRegressor",)
TRUSTED = (f"{__name__}.CatBoostClassifier", f"{__name__}.CatBoostRegressor")
SUFFIX = ".cbm"
GAP = -1  # the category of what is missing
# Unless `problem/model.py` says otherwise: no lines on stdout, and no folder `catboost_info`.
DEFAULTS: dict[str, Any] = {"allow_writing_files": False, "logging_level": "Silent"}
VERBOSITY = {"verbose", "silent", "verbose_eval", "logging_level"}  # only one of them may be set
LOG_LOSSES = ("Poisson", "Tweedie")  # of values whose logarithm is predicted
CHANGING = ("model_guid", "train_finish_time")  # metadata that differ from run to run


class CatBoost(LibraryEstimator):
    """What classifier and regressor have in common."""

    library = LIBRARY

    def _train(
        self, X: Floats, y: NDArray[Any], categories: list[int], sample_weight: ArrayLike | None
    ) -> bytes:
        defaults = dict(DEFAULTS)
        if VERBOSITY & self.estimator.get_params().keys():
            del defaults["logging_level"]
        fitted = self._unfitted(defaults, "cat_features").fit(
            _table(X, categories), y, cat_features=categories or None, sample_weight=sample_weight
        )
        metadata = fitted.get_metadata()
        for name in CHANGING:
            metadata[name] = ""
        with TemporaryDirectory() as folder:
            path = Path(folder, "model.cbm")
            fitted.save_model(str(path), format="cbm")
            return path.read_bytes()

    def _read(self, file: bytes) -> Any:
        from catboost import CatBoost as Model

        model = Model()
        model.load_model(blob=file)
        return model

    def _importances(self, model: Any) -> Floats:
        return np.asarray(model.get_feature_importance(), dtype=float)

    def _outputs(self, model: Any, X: Floats) -> Floats:
        table = _table(X, list(model.get_cat_feature_indices()))
        return np.asarray(model.predict(table, prediction_type=self._prediction_type()))

    def _prediction_type(self) -> str:
        if isinstance(self, LibraryClassifier):
            return "Probability"
        params = self.estimator.get_params()
        loss = str(params.get("loss_function", params.get("objective")))
        return "Exponent" if loss.startswith(LOG_LOSSES) else "RawFormulaVal"


class CatBoostClassifier(LibraryClassifier, CatBoost):
    """A `CatBoostClassifier`."""

    ESTIMATORS = CLASSIFIERS


class CatBoostRegressor(LibraryRegressor, CatBoost):
    """A `CatBoostRegressor`."""

    ESTIMATORS = REGRESSORS


def _table(X: Floats, categories: list[int]) -> pl.DataFrame | Floats:
    """Return a matrix in a form in which CatBoost takes categories, which must be whole numbers."""
    if not categories:
        return X
    frame = pl.from_numpy(X, schema=[str(position) for position in range(X.shape[1])])
    codes = [pl.col(str(position)).fill_nan(GAP).cast(pl.Int32) for position in categories]
    return frame.with_columns(codes)


def owns(estimator: Any) -> bool:
    """Check whether an estimator is CatBoost's classifier or regressor."""
    return is_of(estimator, LIBRARY, CLASSIFIERS + REGRESSORS)


def adapt(estimator: Any) -> CatBoost:
    """Return what stands for an estimator of CatBoost: see `ModelFormat`."""
    is_classifier = is_of(estimator, LIBRARY, CLASSIFIERS)
    return CatBoostClassifier(estimator) if is_classifier else CatBoostRegressor(estimator)
