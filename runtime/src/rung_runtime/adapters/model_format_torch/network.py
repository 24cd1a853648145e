"""Neural networks for tables, with scikit-learn's interface.

Nothing here imports torch before it is needed: a service that answers by the compiled form of a
network does without it.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

from ... import UsageError
from ...compiled.columns import Columns
from .inner_split import AUTO, validation_rows
from .table import Table

if TYPE_CHECKING:
    from torch import nn

    from ...compiled.graph import Graph
    from .training import Trained


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


class NeuralNetwork(BaseEstimator):  # type: ignore[misc]
    """What both networks have in common.

    Attributes:
        columns_: Of what it was fitted on.
        table_: What was learned of them.
        weights_: By name, as `state_dict` of the module has them.
        curves_: The loss by epoch: `train_loss`, and `validation_loss` if rows are held out for it.
        best_epoch_: The epoch that the weights are of, from 1 on.
    """

    def __init__(
        self,
        *,
        module: "type[nn.Module] | None" = None,
        module_params: Mapping[str, Any] | None = None,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.1,
        learning_rate: float = 0.002,
        weight_decay: float = 0.01,
        batch_size: int | str = AUTO,
        epochs: int = 100,
        patience: int = 10,
        validation: str = AUTO,
        validation_share: float = 0.15,
        device: str = AUTO,
        random_state: int = 0,
    ) -> None:
        """Set the parameters; none is looked at before `fit`.

        Args:
            module: A module of your own, from a file of `problem/`: it is made with `width` (how
                many numbers it takes), `sizes` (how many codes each column of categories has) and
                `outputs` (how many scores it returns), and called with (n, width) numbers and
                (n, columns) codes. None: a multilayer perceptron.
            module_params: What else it is made with.
            hidden: The width of each hidden layer of the perceptron.
            dropout: The share of a hidden layer that is left out in training.
            learning_rate: Of AdamW.
            weight_decay: Of AdamW.
            batch_size: Rows that are learned from at once; `auto`: a hundredth of them, from 32 to
                1,024.
            epochs: How often each row is learned from, at most.
            patience: After how many epochs without a lower loss training stops.
            validation: Which rows the loss is measured on: see `inner_split.validation_rows`.
            validation_share: How many of the training rows; 0: none, so that all epochs run.
            device: `auto` (a GPU, if torch finds one), `cpu` or `cuda`. It is for training:
                predictions are made on the CPU, in double precision.
            random_state: The seed of everything random.
        """
        self.module = module
        self.module_params = module_params
        self.hidden = hidden
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.validation = validation
        self.validation_share = validation_share
        self.device = device
        self.random_state = random_state

    def make_module(self) -> "nn.Module":
        """Make the module of the fitted columns, with random weights.

        Raises:
            UsageError: torch is not installed.
        """
        _require_torch()
        if self.module is not None:
            return self.module(
                width=self.table_.width,
                sizes=self.table_.sizes,
                outputs=self.outputs_,
                **(self.module_params or {}),
            )
        from .perceptron import Perceptron

        return Perceptron(
            self.table_.width, self.table_.sizes, self.outputs_, self.hidden, self.dropout
        )

    @property
    def outputs_(self) -> int:
        """Return how many scores its module returns."""
        raise NotImplementedError

    def loaded_module(self) -> "nn.Module":
        """Return the module with the weights of this model, made when it is first needed.

        Raises:
            UsageError: torch is not installed.
            ValueError: The weights are those of another module.
        """
        if "_loaded" not in vars(self):
            module = self.make_module()
            from .training import load_weights

            load_weights(module, self.weights_)
            self._loaded = module
        return self._loaded

    def add_to_graph(self, graph: "Graph", matrix: str) -> str:
        """Add itself to a graph of ONNX: see `graph.add_to`."""
        from .graph import add_to

        return add_to(graph, self, matrix)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a file holds: parameters, what was learned, and weights as safetensors."""
        params = self.get_params(deep=False)
        module = params.pop("module")
        # As texts, which are equal for equal models: skops would write which values are one object.
        state = {"module": module, "params": json.dumps(params, sort_keys=True, default=dict)}
        if "weights_" in vars(self):
            from safetensors.numpy import save

            state["learned"] = self._learned().model_dump_json()
            state["weights"] = save(self.weights_)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become what a file holds, which may be of anybody.

        Raises:
            ValueError: It is not a network.
        """
        parts = {"module", "params"}
        if set(state) not in (parts, parts | {"learned", "weights"}):
            raise ValueError("it is not the state of a network")
        params = json.loads(state["params"]) | {"module": state["module"]}
        if set(params) != set(self._get_param_names()):
            raise ValueError("the network has other parameters than this release knows")
        self.__dict__.update(params)
        if "weights" in state:
            from safetensors.numpy import load

            self._set_learned(Learned.model_validate_json(state["learned"]))
            self.weights_ = load(state["weights"])

    def _learned(self) -> "Learned":
        return Learned(
            names=self.columns_.names,
            categories=self.columns_.categories,
            table=self.table_,
            best_epoch=self.best_epoch_,
            curves=self.curves_,
        )

    def _set_learned(self, learned: "Learned") -> None:
        self.columns_ = Columns(learned.names, learned.categories)
        self.table_ = learned.table
        self.best_epoch_ = learned.best_epoch
        self.curves_ = learned.curves
        self._set_names()

    def _set_names(self) -> None:
        self.n_features_in_ = len(self.columns_.names)
        self.feature_names_in_ = np.array(self.columns_.names, dtype=object)

    def _fit(self, X: Any, target: NDArray[Any], strata: NDArray[np.int64]) -> "Trained":
        """Learn from rows, and keep what came of it.

        Args:
            X: (n, …) as `fit` takes them.
            target: (n,) the index of each row's class, or its standardized value.
            strata: (n,) the class of each row; all 0 for a regression.
        """
        _require_torch()
        from .training import Settings, train

        frame = _frame(X)
        self.columns_ = Columns.of_frame(frame)
        matrix = self.columns_.matrix(frame)
        self.table_ = Table.of_matrix(matrix, self.columns_)
        self._set_names()
        self.__dict__.pop("_loaded", None)
        validation = validation_rows(
            frame, strata, self.validation_share, self.validation, self.random_state
        )
        settings = Settings(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=_batch_size(self.batch_size, len(frame)),
            epochs=self.epochs,
            patience=self.patience,
            device=self.device,
            seed=self.random_state,
        )
        trained = train(self.make_module, self.table_.encode(matrix), target, validation, settings)
        self.weights_ = trained.weights
        self.best_epoch_ = trained.best_epoch
        self.curves_ = {"train_loss": trained.train_loss}
        if trained.validation_loss:
            self.curves_["validation_loss"] = trained.validation_loss
        return trained

    def _scores(self, X: Any) -> NDArray[np.float64]:
        """Return what the module makes of rows."""
        module = self.loaded_module()
        from .training import predict

        return predict(module, self.table_.encode(self.columns_.matrix(_frame(X))))


class NeuralNetworkClassifier(ClassifierMixin, NeuralNetwork):  # type: ignore[misc]
    """A network that is trained by cross-entropy."""

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
            UsageError: torch is not installed.
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


class NeuralNetworkRegressor(RegressorMixin, NeuralNetwork):  # type: ignore[misc]
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
        """Learn from rows: see `NeuralNetworkClassifier.fit`; y are (n,) numbers."""
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


def _batch_size(batch_size: int | str, rows: int) -> int:
    """Return how many rows are learned from at once.

    Raises:
        ValueError: It is neither `auto` nor a number from 1 on.
    """
    if batch_size == AUTO:
        return int(np.clip(rows // 100, 32, 1024))
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size: {batch_size!r} is neither auto nor a number of rows")
    return batch_size


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError(
            "a neural network needs torch, which is not installed: run `uv add torch`"
        ) from None
