"""Neural networks for tables, with scikit-learn's interface.

Nothing here imports torch before it is needed: a service that answers by the compiled form of a
network does without it.
"""

from collections.abc import Mapping, Sequence
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
    from torch import nn

    from ...compiled.graph import Graph


class NeuralNetwork(TableNetwork):
    """What both networks have in common.

    Attributes:
        weights_: By name, as `state_dict` of the module has them.
    """

    CODE = "module"

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

    def loaded_module(self) -> "nn.Module":
        """Return the module with the weights of this model, made when it is first needed.

        Raises:
            UsageError: torch is not installed.
            ValueError: The weights are those of another module.
        """
        if "_loaded" not in vars(self):
            _require_torch()
            from .training import load_weights, without_weights

            # Its sizes are those that the file says, so first without memory for them.
            module: Any = without_weights(self.make_module, is_trusted=self.module is None)
            if module is not None:
                load_weights(module, self.weights_)
            if self.module is not None:  # it may have more than weights
                module = self.make_module()
                load_weights(module, self.weights_)
            self._loaded = module
        loaded: nn.Module = self._loaded
        return loaded

    def _train(
        self,
        inputs: Inputs,
        target: NDArray[np.int64] | NDArray[np.float64],
        validation: NDArray[np.bool_],
    ) -> Training:
        _require_torch()
        from .training import Settings, train

        self.__dict__.pop("_loaded", None)
        settings = Settings(
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            batch_size=rows_of_batch(self.batch_size, len(target)),
            epochs=self.epochs,
            patience=self.patience,
            device=self.device,
            seed=self.random_state,
        )
        trained = train(self.make_module, inputs, target, validation, settings)
        self.weights_ = trained.weights
        curves = {"train_loss": trained.train_loss}
        if trained.validation_loss:
            curves["validation_loss"] = trained.validation_loss
        return Training(best_epoch=trained.best_epoch, curves=curves)

    def _predicted(self, inputs: Inputs) -> NDArray[np.float64]:
        module = self.loaded_module()
        from .training import predict

        return predict(module, inputs)

    def _packed(self) -> bytes:
        from safetensors.numpy import save

        return bytes(save(self.weights_))

    def _unpack(self, content: bytes) -> None:
        from safetensors.numpy import load

        self.weights_ = load(content)

    def _scores_in_graph(self, graph: "Graph", numbers: str, codes: list[str]) -> str:
        from .graph import add_scores

        return add_scores(graph, self, numbers, codes)


class NeuralNetworkClassifier(NetworkClassifier, NeuralNetwork):
    """A network that is trained by cross-entropy."""


class NeuralNetworkRegressor(NetworkRegressor, NeuralNetwork):
    """A network that is trained by the squared error."""


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise UsageError(
            "a neural network needs torch, which is not installed: run `uv add torch`"
        ) from None
