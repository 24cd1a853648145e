"""Networks of Keras for tables, with scikit-learn's interface.

Nothing here imports Keras before it is needed: a service that answers by the compiled form of a
network does without it.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ... import UsageError
from ...model_format.networks.inner_split import AUTO
from ...model_format.networks.network import (
    NetworkClassifier,
    NetworkRegressor,
    TableNetwork,
    Training,
    rows_of_batch,
)
from ...model_format.networks.table import Inputs

if TYPE_CHECKING:
    import keras

    from ...compiled.graph import Graph

BACKEND = "torch"
LARGEST = 100.0  # standard deviations from the mean that a number is taken for, at most


class KerasNetwork(TableNetwork):
    """What both networks have in common.

    Attributes:
        weights_: The model as a `.keras` file.
    """

    CODE = "build"
    is_single_precision = True  # Keras casts what it computes with torch

    def __init__(
        self,
        *,
        build: "Callable[..., keras.Model] | None" = None,
        build_params: Mapping[str, Any] | None = None,
        hidden: Sequence[int] = (128, 64),
        dropout: float = 0.1,
        learning_rate: float = 0.002,
        weight_decay: float = 0.01,
        batch_size: int | str = AUTO,
        epochs: int = 100,
        patience: int = 10,
        validation: str = AUTO,
        validation_share: float = 0.15,
        random_state: int = 0,
    ) -> None:
        """Set the parameters; none is looked at before `fit`.

        Args:
            build: A function in a file of `problem/` that returns a model: it is called with
                `width` (how many numbers a row has), `sizes` (how many codes each column of
                categories has) and `outputs` (how many scores the model returns). The model takes
                a list: (n, width) numbers, and (n, 1) codes for each column of categories. One
                that is compiled keeps its optimizer and loss; the loss gets scores and the index
                of the class, or standardized values. None: a multilayer perceptron.
            build_params: What else it is called with.
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
            random_state: The seed of everything random.
        """
        self.build = build
        self.build_params = build_params
        self.hidden = hidden
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.epochs = epochs
        self.patience = patience
        self.validation = validation
        self.validation_share = validation_share
        self.random_state = random_state

    def make_model(self) -> "keras.Model":
        """Make the model of the fitted columns, with random weights."""
        if self.build is not None:
            return self.build(
                width=self.table_.width,
                sizes=self.table_.sizes,
                outputs=self.outputs_,
                **(self.build_params or {}),
            )
        from .perceptron import perceptron

        return perceptron(
            self.table_.width, self.table_.sizes, self.outputs_, self.hidden, self.dropout
        )

    def loaded_model(self) -> "keras.Model":
        """Return the model with the weights of this one, made when it is first needed.

        Raises:
            UsageError: Keras is not installed, or computes with something else than torch.
            ValueError: The file is not a model that may be loaded.
        """
        if "_loaded" not in vars(self):
            require_keras()
            from .file import load

            self._loaded = load(self.weights_, self._own_layers())
        return self._loaded

    def _own_layers(self) -> dict[str, Any]:
        """Return the layers that the module of `build` defines or imports, by name."""
        if self.build is None:
            return {}
        from keras.layers import Layer

        module = vars(sys.modules[self.build.__module__])
        return {
            value.__name__: value
            for value in module.values()
            if isinstance(value, type)
            and issubclass(value, Layer)
            and not value.__module__.startswith("keras.")
        }

    def _train(
        self,
        inputs: Inputs,
        target: NDArray[np.int64] | NDArray[np.float64],
        validation: NDArray[np.bool_],
    ) -> Training:
        require_keras()
        from .training import Settings, train

        self.__dict__.pop("_loaded", None)
        settings = Settings(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=rows_of_batch(self.batch_size, len(target)),
            epochs=self.epochs,
            patience=self.patience,
            seed=self.random_state,
        )
        trained = train(self.make_model, inputs, target, validation, settings, self._own_layers())
        self.weights_ = trained.content
        return Training(best_epoch=trained.best_epoch, curves=trained.curves)

    def _predicted(self, inputs: Inputs) -> NDArray[np.float64]:
        model = self.loaded_model()
        from .training import predict

        return predict(model, inputs)

    def _packed(self) -> bytes:
        return self.weights_

    def _unpack(self, content: bytes) -> None:
        self.weights_ = bytes(content)
        self.loaded_model()  # now, so that whoever loads it learns what is wrong with it

    def _scores_in_graph(self, graph: "Graph", numbers: str, codes: list[str]) -> str:
        from .graph import add_scores

        return add_scores(graph, self.loaded_model(), numbers, codes)


class KerasClassifier(NetworkClassifier, KerasNetwork):
    """A model of Keras that is trained by cross-entropy."""


class KerasRegressor(NetworkRegressor, KerasNetwork):
    """A model of Keras that is trained by the squared error."""


def require_keras() -> None:
    """Import Keras, which computes with torch.

    Raises:
        UsageError: It is not installed, or computes with something else.
    """
    try:
        import keras
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a model of Keras needs {error.name}, which is not installed: run "
            "`rung add model_format keras`, and leave KERAS_BACKEND empty or set it to torch"
        ) from None
    if keras.backend.backend() != BACKEND:
        raise UsageError(
            f"Keras computes with {keras.backend.backend()}, and models are saved and compiled with"
            f" {BACKEND} only: set KERAS_BACKEND={BACKEND}"
        )
