"""What the networks of all libraries have in common, with scikit-learn's interface."""

import json
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from ...compiled.columns import Columns
from .inner_split import AUTO, validation_rows
from .table import Inputs, Table

if TYPE_CHECKING:
    from ...compiled.graph import Graph


class Learned(BaseModel):
    """What a network has learned, besides its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    names: list[str]
    categories: dict[str, list[str]]
    table: Table
    best_epoch: int
    curves: dict[str, list[float]]
    classes: list[int] | None = None  # of a classifier
    mean: float = 0.0  # of a regressor
    scale: float = 1.0


class Training(BaseModel):
    """How a training went.

    Attributes:
        best_epoch: The epoch that the weights are of, from 1 on.
        curves: The loss by epoch: `train_loss`, and `validation_loss` if rows are held out for it.
    """

    best_epoch: int
    curves: dict[str, list[float]]


class TableNetwork(BaseEstimator):  # type: ignore[misc]
    """A network on a table.

    A subclass has the parameters `batch_size`, `validation`, `validation_share`, `random_state` and
    one named by `CODE`, besides its own.

    Attributes:
        columns_: Of what it was fitted on.
        table_: What was learned of them.
        weights_: What the library computes with; a subclass says in which form.
        curves_: The loss by epoch: `train_loss`, and `validation_loss` if rows are held out for it.
        best_epoch_: The epoch that the weights are of, from 1 on.
    """

    CODE: str  # the parameter that is code of `problem/`, which a file holds by its name

    validation: str
    validation_share: float
    random_state: int

    @property
    def outputs_(self) -> int:
        """Return how many scores its module returns."""
        raise NotImplementedError

    def _train(
        self,
        inputs: Inputs,
        target: NDArray[np.int64] | NDArray[np.float64],
        validation: NDArray[np.bool_],
    ) -> Training:
        """Learn from rows, and set `weights_`.

        Args:
            inputs: Of n rows.
            target: (n,) the index of each row's class, or its standardized value.
            validation: (n,) the rows that are not learned from.
        """
        raise NotImplementedError

    def _predicted(self, inputs: Inputs) -> NDArray[np.float64]:
        """Return (n, outputs) scores of n rows."""
        raise NotImplementedError

    def _packed(self) -> bytes:
        """Return the weights in the library's format."""
        raise NotImplementedError

    def _unpack(self, content: bytes) -> None:
        """Set `weights_` from what anybody may have written."""
        raise NotImplementedError

    def add_to_graph(self, graph: "Graph", matrix: str) -> str:
        """Add itself to a graph of ONNX: see `graph.add_to`."""
        from .graph import add_to

        return add_to(graph, self, matrix)

    def _scores_in_graph(self, graph: "Graph", numbers: str, codes: list[str]) -> str:
        """Add what is between inputs and scores to a graph; see `graph.add_to`."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        """Return what a file holds: parameters, what was learned, and the library's file."""
        params = self.get_params(deep=False)
        code = params.pop(self.CODE)
        # As texts, which are equal for equal models: skops would write which values are one object.
        state = {self.CODE: code, "params": json.dumps(params, sort_keys=True, default=dict)}
        if "weights_" in vars(self):
            state["learned"] = self._learned().model_dump_json()
            state["weights"] = self._packed()
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become what a file holds, which may be of anybody.

        Raises:
            ValueError: It is not a network.
        """
        parts = {self.CODE, "params"}
        if set(state) not in (parts, parts | {"learned", "weights"}):
            raise ValueError("it is not the state of a network")
        params = json.loads(state["params"]) | {self.CODE: state[self.CODE]}
        if set(params) != set(self._get_param_names()):
            raise ValueError("the network has other parameters than this release knows")
        self.__dict__.update(params)
        if "weights" in state:
            self._set_learned(Learned.model_validate_json(state["learned"]))
            self._unpack(state["weights"])

    def _learned(self) -> Learned:
        return Learned(
            names=self.columns_.names,
            categories=self.columns_.categories,
            table=self.table_,
            best_epoch=self.best_epoch_,
            curves=self.curves_,
        )

    def _set_learned(self, learned: Learned) -> None:
        self.columns_ = Columns(learned.names, learned.categories)
        self.table_ = learned.table
        self.best_epoch_ = learned.best_epoch
        self.curves_ = learned.curves
        self._set_names()

    def _set_names(self) -> None:
        self.n_features_in_ = len(self.columns_.names)
        self.feature_names_in_ = np.array(self.columns_.names, dtype=object)

    def _fit(self, X: Any, target: NDArray[Any], strata: NDArray[np.int64]) -> None:
        """Learn from rows, and keep what came of it.

        Args:
            X: (n, …) as `fit` takes them.
            target: (n,) the index of each row's class, or its standardized value.
            strata: (n,) the class of each row; all 0 for a regression.
        """
        frame = _frame(X)
        self.columns_ = Columns.of_frame(frame)
        matrix = self.columns_.matrix(frame)
        self.table_ = Table.of_matrix(matrix, self.columns_)
        self._set_names()
        validation = validation_rows(
            frame, strata, self.validation_share, self.validation, self.random_state
        )
        training = self._train(self.table_.encode(matrix), target, validation)
        self.best_epoch_ = training.best_epoch
        self.curves_ = training.curves

    def _scores(self, X: Any) -> NDArray[np.float64]:
        """Return what the module makes of rows."""
        return self._predicted(self.table_.encode(self.columns_.matrix(_frame(X))))


class NetworkClassifier(ClassifierMixin, TableNetwork):  # type: ignore[misc]
    """A network that is trained by cross-entropy.

    Attributes:
        classes_: (classes,) what `y` may be, in the order of the probabilities.
    """

    @property
    def outputs_(self) -> int:
        """Return the number of classes."""
        return len(self.classes_)

    def _learned(self) -> Learned:
        return super()._learned().model_copy(update={"classes": self.classes_.tolist()})

    def _set_learned(self, learned: Learned) -> None:
        super()._set_learned(learned)
        self.classes_ = np.array(learned.classes, dtype=np.int64)

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from rows.

        Args:
            X: (n, …) what `features` returns: numbers and `Enum` categories; or an array.
            y: (n,) classes.

        Raises:
            ValueError: It cannot learn from these rows with these parameters.
            UsageError: Its library is not installed.
        """
        self.classes_, target = np.unique(np.asarray(y), return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("a classifier needs rows of two classes at least")
        self._fit(X, target.astype(np.int64), target.astype(np.int64))
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return (n, classes) probabilities."""
        scores = self._scores(X)
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
        return probabilities

    def predict(self, X: Any) -> NDArray[Any]:
        """Return (n,) classes."""
        classes: NDArray[Any] = self.classes_[self.predict_proba(X).argmax(axis=1)]
        return classes


class NetworkRegressor(RegressorMixin, TableNetwork):  # type: ignore[misc]
    """A network that is trained by the squared error.

    Attributes:
        mean_: Of the training rows' values, which are standardized.
        scale_: Their standard deviation.
    """

    @property
    def outputs_(self) -> int:
        """Return the number of values of a row."""
        return 1

    def _learned(self) -> Learned:
        moments = {"mean": self.mean_, "scale": self.scale_}
        return super()._learned().model_copy(update=moments)

    def _set_learned(self, learned: Learned) -> None:
        super()._set_learned(learned)
        self.mean_ = learned.mean
        self.scale_ = learned.scale

    def fit(self, X: Any, y: Any) -> Self:
        """Learn from rows: see `NetworkClassifier.fit`; y are (n,) numbers."""
        values = np.asarray(y, dtype=np.float64)
        self.mean_ = float(values.mean())
        self.scale_ = float(values.std()) or 1.0
        standardized = (values - self.mean_) / self.scale_
        self._fit(X, standardized, np.zeros(len(values), dtype=np.int64))
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return (n,) values."""
        values: NDArray[np.float64] = self._scores(X)[:, 0] * self.scale_ + self.mean_
        return values


def _frame(X: Any) -> pl.DataFrame:
    """Return rows as a frame; the columns of an array are named by their position."""
    if isinstance(X, pl.DataFrame):
        return X
    dense = X.toarray() if hasattr(X, "toarray") else X  # of SciPy, from a step before
    values = np.asarray(dense, dtype=np.float64)
    return pl.DataFrame(values, schema=[f"x{index}" for index in range(values.shape[1])])


def rows_of_batch(batch_size: int | str, rows: int) -> int:
    """Return how many rows are learned from at once.

    Raises:
        ValueError: It is neither `auto` nor a number from 1 on.
    """
    if batch_size == AUTO:
        return int(np.clip(rows // 100, 32, 1024))
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: {batch_size!r} is neither auto nor a number of rows")
    return batch_size
