"""Estimators of libraries that take a matrix of numbers, some of which are codes of categories."""

import json
from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from ..compiled import Columns

CHECKED = 100  # rows of those to train on, whose predictions must be probabilities
Floats = NDArray[np.float64]


class LibraryEstimator(BaseEstimator):  # type: ignore[misc]
    """An estimator of another library, which learns from what `features` returns.

    A frame becomes a matrix: numbers as they are, categories as their place in their list, and NaN
    where there is a gap. A matrix, such as a step of a pipeline returns it, is taken as it is. What
    predicts is the library's own model, read from the file that is saved, so that a model which was
    saved and loaded predicts the same.

    Attributes:
        estimator: What `problem/model.py` returned, unfitted; its params can be set here as well.
        columns_: The columns of a frame; None if it was fitted on a matrix.
        file_: The model in the library's own format.
    """

    library: ClassVar[str]  # the module that has the estimators
    ESTIMATORS: ClassVar[tuple[str, ...]]  # their names

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def _train(
        self, X: Floats, y: NDArray[Any], categories: list[int], sample_weight: ArrayLike | None
    ) -> bytes:
        """Return the file of a model that is fitted to (n, columns) numbers.

        Args:
            X: The numbers; NaN is a gap.
            y: (n,) values, or 0 to the number of classes less one.
            categories: The positions of the columns that hold codes.
            sample_weight: (n,) weights of rows.
        """
        raise NotImplementedError

    def _read(self, file: bytes) -> Any:
        """Return the library's model."""
        raise NotImplementedError

    def _outputs(self, model: Any, X: Floats) -> Floats:
        """Return (n,) values, or probabilities of the second class, or of all, (n, classes)."""
        raise NotImplementedError

    def _importances(self, model: Any) -> Floats:
        """Return (columns,) what the library says of each, as its estimator is set."""
        raise NotImplementedError

    def require_known_params(self) -> None:
        """Check that the library has each param, if it ignores those that it has not.

        Raises:
            ValueError: It has not.
        """

    def _require_no_others(self, names: Collection[str]) -> None:
        """Refuse params that the library does not know, unless its estimator names them itself."""
        own = type(self.estimator)().get_params()
        others = sorted(name for name in names if name not in own)
        if others:
            raise ValueError(f"{type(self.estimator).__name__} has no param {', '.join(others)}")

    def fit(
        self, X: pl.DataFrame | ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit the library's estimator to (n, …) rows and (n,) values or classes."""
        self.columns_ = Columns.of_frame(X) if isinstance(X, pl.DataFrame) else None
        known = self.columns_.categories if self.columns_ else {}
        names = self.columns_.names if self.columns_ else []
        matrix = self._matrix(X)
        self.n_features_in_ = matrix.shape[1]
        categories = [position for position, name in enumerate(names) if name in known]
        self.file_ = self._train(matrix, self._encoded(y), categories, sample_weight)
        self._model = None
        return self

    def fit_elsewhere(
        self,
        first: pl.DataFrame,
        classes: NDArray[Any] | None,
        train: Callable[[list[int]], bytes],
    ) -> Self:
        """Take a model that is trained elsewhere, on rows that this process does not hold.

        Args:
            first: (n, …) the first of the rows.
            classes: (classes,) what `y` is among all rows, sorted; None: values.
            train: Returns the file of the model; it is given the positions of the columns that hold
                codes of categories.
        """
        self.columns_ = Columns.of_frame(first)
        self.n_features_in_ = first.width
        known = self.columns_.categories
        self.file_ = train([place for place, name in enumerate(first.columns) if name in known])
        self._model = None
        return self

    def _encoded(self, y: ArrayLike) -> NDArray[Any]:
        return np.asarray(y)

    def _matrix(self, X: pl.DataFrame | ArrayLike) -> Floats:
        if self.columns_ is not None and isinstance(X, pl.DataFrame):
            return self.columns_.matrix(X)
        dense = X.toarray() if hasattr(X, "toarray") else X  # of SciPy, from a step before
        return np.asarray(dense, dtype=np.float64)

    def _predicted(self, X: pl.DataFrame | ArrayLike) -> Floats:
        matrix = self._matrix(X)
        if not len(matrix):  # which not every library takes
            return np.zeros(0)
        return np.asarray(self._outputs(self.model_, matrix), dtype=np.float64)

    @property
    def model_(self) -> Any:
        """The library's model, such as a `Booster`."""
        if self._model is None:
            self._model = self._read(self.file_)
        return self._model

    @property
    def feature_importances_(self) -> Floats:
        """(columns,) how much each is used, adding up to 1: for `SelectFromModel` and the like."""
        importances = self._importances(self.model_)
        return importances / (importances.sum() or 1.0)

    def set_params(self, **params: Any) -> Self:
        """Set params: those of the library's estimator as well, by their own names."""
        is_own = {name: name.partition("__")[0] == "estimator" for name in params}
        super().set_params(
            **{name if is_own[name] else f"estimator__{name}": params[name] for name in params}
        )
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "file_")

    def __getstate__(self) -> dict[str, Any]:
        """Return what is saved: plain values, and the library's file.

        Raises:
            TypeError: A param is not a plain value.
        """
        state: dict[str, Any] = {
            "estimator": type(self.estimator).__name__,
            "params": _plain(self.estimator.get_params(), type(self.estimator).__name__),
        }
        if not self.__sklearn_is_fitted__():
            return state
        state["columns"] = self.columns_.to_json() if self.columns_ else None
        state["features"] = self.n_features_in_
        state["file"] = self.file_
        if hasattr(self, "classes_"):
            state["classes"] = self.classes_.tolist()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read what anybody may have written.

        Raises:
            ValueError: It names another class.
        """
        if state["estimator"] not in self.ESTIMATORS:
            raise ValueError(f"{state['estimator']} is not an estimator of {self.library}")
        kind = getattr(import_module(self.library), state["estimator"])
        self.estimator = kind(**state["params"])
        self._model = None
        if "file" not in state:
            return
        self.columns_ = Columns.from_json(state["columns"]) if state["columns"] else None
        self.n_features_in_ = int(state["features"])
        self.file_ = bytes(state["file"])
        self._model = self._read(self.file_)
        if "classes" in state:
            self.classes_ = np.array(state["classes"])

    def _unfitted(self, defaults: dict[str, Any], by_frame: str = "") -> Any:
        """Return a copy of the library's estimator.

        Args:
            defaults: Values of params that it leaves open.
            by_frame: The param that names categories, which a frame tells by itself.
        """
        params = defaults | {
            name: value for name, value in self.estimator.get_params().items() if value is not None
        }
        if self.columns_ is not None:
            params.pop(by_frame, None)
        return type(self.estimator)(**params)


CLASS_WEIGHTS = ("class_weight", "class_weights")  # params by class


class LibraryClassifier(ClassifierMixin, LibraryEstimator):  # type: ignore[misc]
    """A classifier of another library.

    Attributes:
        classes_: (classes,) what `y` may be, in the order of the probabilities.
    """

    def fit(
        self, X: pl.DataFrame | ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Fit the library's estimator to (n, …) rows and (n,) classes.

        Raises:
            ValueError: It does not learn probabilities, or there is only one class.
        """
        super().fit(X, y, sample_weight)
        self.predict_proba(X[:CHECKED])  # type: ignore[index]
        return self

    def fit_elsewhere(
        self,
        first: pl.DataFrame,
        classes: NDArray[Any] | None,
        train: Callable[[list[int]], bytes],
    ) -> Self:
        """Take a model that is trained elsewhere: see `LibraryEstimator`.

        Raises:
            ValueError: As `fit`.
        """
        assert classes is not None
        self._know(classes)
        super().fit_elsewhere(first, classes, train)
        self.predict_proba(first[:CHECKED])
        return self

    def _encoded(self, y: ArrayLike) -> NDArray[Any]:
        classes, codes = np.unique(np.asarray(y), return_inverse=True)
        self._know(classes)
        return codes

    def _know(self, classes: NDArray[Any]) -> None:
        self.classes_ = classes
        if len(classes) < 2:
            raise ValueError("all rows to train on have the same class")

    def _unfitted(self, defaults: dict[str, Any], by_frame: str = "") -> Any:
        """Return a copy of the library's estimator, whose classes are the codes that it is given.

        A class that training lacks has no code, and no weight.
        """
        unfitted = super()._unfitted(defaults, by_frame)
        for name in CLASS_WEIGHTS:
            if isinstance(weights := unfitted.get_params().get(name), dict):
                known = {
                    code: weights.get(kind) for code, kind in enumerate(self.classes_.tolist())
                }
                of_codes = {code: weight for code, weight in known.items() if weight is not None}
                unfitted.set_params(**{name: of_codes})
        return unfitted

    def predict_proba(self, X: pl.DataFrame | ArrayLike) -> Floats:
        """Return (n, classes) probabilities."""
        outputs = self._predicted(X)
        if not len(outputs):
            return np.zeros((0, len(self.classes_)))
        if outputs.ndim == 1:
            outputs = np.column_stack([1.0 - outputs, outputs])
        if outputs.shape[1] != len(self.classes_) or not ((outputs >= 0) & (outputs <= 1)).all():
            raise ValueError(f"{self.estimator} gives no probabilities: choose another objective")
        return outputs

    def predict(self, X: pl.DataFrame | ArrayLike) -> NDArray[Any]:
        """Return (n,) classes."""
        predicted: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return predicted


class LibraryRegressor(RegressorMixin, LibraryEstimator):  # type: ignore[misc]
    """A regressor of another library."""

    def predict(self, X: pl.DataFrame | ArrayLike) -> Floats:
        """Return (n,) values."""
        return self._predicted(X)


def is_of(estimator: Any, library: str, names: Collection[str]) -> bool:
    """Check whether an estimator is one of a library's, or of a class derived from it in it.

    The library is not imported for that.
    """
    kind = type(estimator)
    return kind.__module__.partition(".")[0] == library and kind.__name__ in names


def _plain(value: Any, name: str) -> Any:
    """Return a param as plain values, of which nothing can be run.

    Raises:
        TypeError: It is a function or another object.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return type(value)(_plain(item, name) for item in value)
    if isinstance(value, dict):
        return {_plain(key, name): _plain(item, f"{name}: {key}") for key, item in value.items()}
    raise TypeError(f"{name} is {json.dumps(type(value).__name__)}, not a plain value")
