"""Train a model of Keras, and predict with it. What is not reproducible is kept out of here."""

import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import torch
from numpy.typing import NDArray

from ...model_format.networks.table import UNSEEN, Inputs
from ...progress import report
from .file import save
from .network import LARGEST

# The share of categories that training hides, so that the embedding of what is unseen learns, too.
HIDDEN_CATEGORIES = 0.01
BATCH_ROWS = 65_536  # that are predicted at once
# Multiplications for a batch, below which threads wait longer for each other than they compute.
SMALL_BATCH = 50_000_000


@dataclass(frozen=True)
class Settings:
    """How a model is trained."""

    learning_rate: float
    weight_decay: float
    batch_size: int
    epochs: int
    patience: int
    seed: int


@dataclass
class Trained:
    """What came of a training.

    Attributes:
        content: The model of the best epoch, as a `.keras` file.
        best_epoch: Its number, from 1 on.
        curves: The loss by epoch: `train_loss`, and `validation_loss` if rows are held out.
    """

    content: bytes = b""
    best_epoch: int = 0
    curves: dict[str, list[float]] = field(default_factory=dict)


def train(
    make: Callable[[], keras.Model],
    inputs: Inputs,
    target: NDArray[np.int64] | NDArray[np.float64],
    validation: NDArray[np.bool_],
    settings: Settings,
    own: Mapping[str, Any],
) -> Trained:
    """Train a model until the loss on the validation rows has not fallen for a while.

    Args:
        make: Makes it, with random weights.
        inputs: Of n rows.
        target: (n,) the index of each row's class, or its standardized value.
        validation: (n,) the rows that are not learned from.
        settings: How.
        own: The layers of `problem/` that it may have, by name.

    Raises:
        ValueError: The loss is not finite, or `make` returns no model.
    """
    with reproducible(settings.seed):
        model = make()
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"build returns {type(model).__name__}, where a keras.Model is expected"
            )
        if not model.compiled:
            is_classifier = target.dtype.kind == "i"
            loss: Any = keras.losses.MeanSquaredError()
            if is_classifier:
                loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(
                optimizer=keras.optimizers.AdamW(
                    settings.learning_rate, weight_decay=settings.weight_decay
                ),
                loss=loss,
            )
        if model.count_params() * settings.batch_size < SMALL_BATCH:
            torch.set_num_threads(1)  # until the end of the block
        learned = ~validation
        hidden = np.random.random(inputs.codes.shape) < HIDDEN_CATEGORIES
        codes = np.where(hidden, UNSEEN, inputs.codes)
        held = None
        if validation.any():
            held = (_arrays(inputs, validation), target[validation])
        best = _BestEpoch(settings, has_validation=held is not None)
        model.fit(
            _arrays(Inputs(inputs.numbers, codes), learned),
            target[learned],
            batch_size=settings.batch_size,
            epochs=settings.epochs,
            validation_data=held,
            callbacks=[best],
            shuffle=True,
            verbose=0,
        )
        model.set_weights(best.weights)
        return Trained(save(model, own), best.epoch, best.curves)


class _BestEpoch(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the weights of the best epoch, shows how far training is, and stops it early."""

    def __init__(self, settings: Settings, *, has_validation: bool) -> None:
        super().__init__()
        self.settings = settings
        self.has_validation = has_validation
        self.epoch = 0
        self.loss = float("inf")
        self.weights: list[Any] = []
        self.curves: dict[str, list[float]] = {"train_loss": []}
        if has_validation:
            self.curves["validation_loss"] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        number = epoch + 1
        loss = float((logs or {})["loss"])
        self.curves["train_loss"].append(loss)
        detail = f"epoch {number} of {self.settings.epochs}, loss {loss:.4f}"
        if self.has_validation:
            loss = float((logs or {})["val_loss"])
            self.curves["validation_loss"].append(loss)
            detail += f", of validation {loss:.4f}"
        report(detail)
        if not np.isfinite(loss):
            raise ValueError(
                f"the loss of the network is {loss} after epoch {number}: try a smaller"
                f" learning_rate than {self.settings.learning_rate:g}"
            )
        if loss < self.loss or not self.has_validation:
            self.loss = loss
            self.epoch = number
            self.weights = [np.array(values) for values in self.model.get_weights()]
        elif number - self.epoch >= self.settings.patience:
            self.model.stop_training = True


def _arrays(inputs: Inputs, chosen: NDArray[np.bool_] | slice) -> list[NDArray[Any]]:
    """Return what a model takes: numbers, and codes of each column of categories."""
    columns = [inputs.codes[chosen, index : index + 1] for index in range(inputs.codes.shape[1])]
    numbers = np.clip(inputs.numbers[chosen], -LARGEST, LARGEST).astype(np.float32)
    return [numbers, *columns]


def predict(model: keras.Model, inputs: Inputs) -> NDArray[np.float64]:
    """Return (n, outputs) scores, computed on the CPU, so that they are the same everywhere.

    Args:
        model: As `file.load` returns it.
        inputs: Of n rows.
    """
    parts = []
    with torch.inference_mode(), keras.device("cpu"):
        for first in range(0, max(1, len(inputs.numbers)), BATCH_ROWS):
            part = slice(first, first + BATCH_ROWS)
            tensors = [torch.from_numpy(values.copy()) for values in _arrays(inputs, part)]
            parts.append(model(tensors, training=False).numpy().astype(np.float64))
    return np.concatenate(parts)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Have Keras and torch compute the same each time, and leave what is random as it was."""
    # cuBLAS reads it when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    threads = torch.get_num_threads()
    before = random.getstate()
    numpy_before = np.random.get_state()
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic)
            torch.set_num_threads(threads)
            random.setstate(before)
            np.random.set_state(numpy_before)
