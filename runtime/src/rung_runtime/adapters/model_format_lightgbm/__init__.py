"""LightGBM: its trees as text, read and used by LightGBM itself."""

import re
from functools import cache
from itertools import chain
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

LIBRARY = "lightgbm"
CLASSIFIERS = ("LGBMClassifier",)
REGRESSORS = ("LGBMRegressor",)
TRUSTED = (f"{__name__}.LightGBMClassifier", f"{__name__}.LightGBMRegressor")
SUFFIX = ".txt"
COUNTS = re.compile(
    r"^(num_leaves|num_cat|num_class|num_tree_per_iteration|max_feature_idx)=(\d+)", re.MULTILINE
)
# Unless `problem/model.py` says otherwise: no lines on stdout, and the same model each time.
DEFAULTS = {"verbose": -1, "deterministic": True}


class LightGBM(LibraryEstimator):
    """What classifier and regressor have in common."""

    library = LIBRARY

    def _train(
        self, X: Floats, y: NDArray[Any], categories: list[int], sample_weight: ArrayLike | None
    ) -> bytes:
        fitted = self.unfitted().fit(
            X, y, sample_weight=sample_weight, categorical_feature=categories
        )
        text: str = fitted.booster_.model_to_string()
        return text.encode()

    def unfitted(self) -> Any:
        """Return a copy of LightGBM's estimator, as it is trained.

        Raises:
            ValueError: See `require_known_params`.
        """
        self.require_known_params()
        return self._unfitted(DEFAULTS, "categorical_feature")

    def require_known_params(self) -> None:
        """Check that LightGBM has each param: it takes any name, and ignores those it has not.

        Raises:
            ValueError: It has not.
        """
        if known := _known_params():
            self._require_no_others(self.estimator.get_params().keys() - known)

    def train_on_dask(
        self, client: Any, X: Any, y: Any, sample_weight: Any, categories: list[int]
    ) -> bytes:
        """Return the file of a model that the workers of a cluster train: see `on_dask`."""
        from .on_dask import train

        return train(self, client, X, y, sample_weight, categories)

    def require_distributable(self) -> None:
        """Check whether workers can train as one machine would: see `on_dask`."""
        from .on_dask import require_distributable

        require_distributable(self)

    def class_weights(self, classes: NDArray[np.int64], counts: NDArray[np.int64]) -> Floats | None:
        """Return (classes,) the weight of a row of each class, of which there are so many."""
        from .on_dask import class_weights

        return class_weights(self, classes, counts)

    def is_lost(self, error: Exception) -> bool:
        """Check whether an error says that another worker has gone."""
        from .on_dask import LOST

        return bool(LOST.search(str(error)))

    def _read(self, file: bytes) -> Any:
        from lightgbm import Booster

        text = file.decode()
        for match in COUNTS.finditer(text):  # which LightGBM reserves memory for
            if int(match[2]) > len(file):
                raise ValueError(f"it announces {match[2]} as {match[1]}")
        return Booster(model_str=text)

    def _importances(self, model: Any) -> Floats:
        kind = self.estimator.get_params()["importance_type"]
        return np.asarray(model.feature_importance(importance_type=kind), dtype=float)

    def _outputs(self, model: Any, X: Floats) -> Floats:
        return np.asarray(model.predict(X))


class LightGBMClassifier(LibraryClassifier, LightGBM):
    """An `LGBMClassifier`."""

    ESTIMATORS = CLASSIFIERS


class LightGBMRegressor(LibraryRegressor, LightGBM):
    """An `LGBMRegressor`."""

    ESTIMATORS = REGRESSORS


@cache
def _known_params() -> frozenset[str]:
    """Return all names of LightGBM's params; none if it does not tell them any more."""
    from lightgbm import basic

    try:
        names = basic._ConfigAliases._get_all_param_aliases().values()
    except AttributeError:
        return frozenset()
    return frozenset(chain.from_iterable(names))


def owns(estimator: Any) -> bool:
    """Check whether an estimator is LightGBM's classifier or regressor."""
    return is_of(estimator, LIBRARY, CLASSIFIERS + REGRESSORS)


def adapt(estimator: Any) -> LightGBM:
    """Return what stands for an estimator of LightGBM: see `ModelFormat`."""
    is_classifier = is_of(estimator, LIBRARY, CLASSIFIERS)
    return LightGBMClassifier(estimator) if is_classifier else LightGBMRegressor(estimator)
