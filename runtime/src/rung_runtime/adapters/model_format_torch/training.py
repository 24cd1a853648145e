"""Train a network, and predict with it. What is not reproducible in torch is kept out of here."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ...model_format.networks.table import UNSEEN, Inputs
from ...progress import report

# The share of categories that training hides, so that the embedding of what is unseen learns, too.
HIDDEN_CATEGORIES = 0.01
BATCH_ROWS = 65_536  # that are predicted at once
# Multiplications for a batch, below which threads wait longer for each other than they compute.
SMALL_BATCH = 50_000_000
Weights = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Settings:
    """How a network is trained."""

    learning_rate: float
    weight_decay: float
    batch_size: int
    epochs: int
    patience: int
    device: str
    seed: int


@dataclass
class Trained:
    """What came of a training.

    Attributes:
        weights: Those of the best epoch.
        best_epoch: Its number, from 1 on.
        train_loss: The mean loss of each epoch's batches.
        validation_loss: That of the validation rows after each epoch, if there are any.
    """

    weights: Weights = field(default_factory=dict)
    best_epoch: int = 0
    train_loss: list[float] = field(default_factory=list)
    validation_loss: list[float] = field(default_factory=list)


def train(
    make: Callable[[], nn.Module],
    inputs: Inputs,
    target: NDArray[np.int64] | NDArray[np.float64],
    validation: NDArray[np.bool_],
    settings: Settings,
) -> Trained:
    """Train a network until the loss on the validation rows has not fallen for a while.

    Args:
        make: Makes it, with random weights.
        inputs: Of n rows.
        target: (n,) the index of each row's class, or its standardized value.
        validation: (n,) the rows that are not learned from.
        settings: How.

    Raises:
        ValueError: There is no such device, or the loss is not finite.
    """
    device = choose_device(settings.device)
    result = Trained()
    with reproducible(settings.seed, device):
        network = make().float().to(device)
        weights = sum(parameter.numel() for parameter in network.parameters())
        if device.type == "cpu" and weights * settings.batch_size < SMALL_BATCH:
            torch.set_num_threads(1)  # until the end of the block
        optimizer = torch.optim.AdamW(
            network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        learned = _Rows(inputs, target, np.flatnonzero(~validation), device)
        held = _Rows(inputs, target, np.flatnonzero(validation), device)
        best = float("inf")
        for epoch in range(1, settings.epochs + 1):
            result.train_loss.append(_train_epoch(network, optimizer, learned, settings))
            loss = result.train_loss[-1]
            detail = f"epoch {epoch} of {settings.epochs}, loss {loss:.4f}"
            if held.count:
                loss = _loss_of(network, held)
                result.validation_loss.append(loss)
                detail += f", of validation {loss:.4f}"
            report(detail)
            if not np.isfinite(loss):
                raise ValueError(
                    f"the loss of the network is {loss} after epoch {epoch}: try a smaller"
                    f" learning_rate than {settings.learning_rate:g}"
                )
            if loss < best or not held.count:
                best = loss
                result.best_epoch = epoch
                result.weights = _weights(network)
            elif epoch - result.best_epoch >= settings.patience:
                break
    return result


def predict(network: nn.Module, inputs: Inputs) -> NDArray[np.float64]:
    """Return (n, outputs) scores, computed on the CPU in double precision.

    So that a model answers the same wherever it was trained.
    """
    network = network.double().eval()
    parts = []
    with torch.inference_mode():
        for first in range(0, max(1, len(inputs.numbers)), BATCH_ROWS):
            numbers = torch.from_numpy(inputs.numbers[first : first + BATCH_ROWS])
            codes = torch.from_numpy(inputs.codes[first : first + BATCH_ROWS])
            parts.append(network(numbers, codes).numpy())
    return np.concatenate(parts)


def without_weights(make: Callable[[], nn.Module], *, is_trusted: bool) -> nn.Module | None:
    """Return a network that has shapes and no numbers yet, which takes no memory.

    Args:
        make: Makes it.
        is_trusted: Whether it is one of ours, which can be made so.

    Returns:
        None: its code cannot.
    """
    try:
        with torch.device("meta"):
            return make()
    except Exception:  # of problem/
        if is_trusted:
            raise
        return None


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Give a network its weights.

    Raises:
        ValueError: They are those of another network.
    """
    tensors = {name: torch.from_numpy(np.array(values)) for name, values in weights.items()}
    try:
        network.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise ValueError(" ".join(str(error).split())) from None


def choose_device(name: str) -> torch.device:
    """Return the device of a name: `auto`, `cpu` or `cuda`, also `cuda:1`.

    Raises:
        ValueError: There is none of that name here.
    """
    has_gpu = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if has_gpu else "cpu")
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise ValueError(f"device: {name!r} is not one of auto, cpu, cuda")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: torch finds no {name} on this machine: use auto or cpu")
    return torch.device(name)


@contextmanager
def reproducible(seed: int, device: torch.device) -> Iterator[None]:
    """Have torch compute the same each time, and leave its settings as they were."""
    # cuBLAS reads it when it is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    was_deterministic = torch.are_deterministic_algorithms_enabled()
    threads = torch.get_num_threads()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(was_deterministic)
            torch.set_num_threads(threads)


class _Rows:
    """Rows on a device."""

    def __init__(
        self,
        inputs: Inputs,
        target: NDArray[np.int64] | NDArray[np.float64],
        index: NDArray[np.int64],
        device: torch.device,
    ) -> None:
        self.count = len(index)
        self.numbers = torch.from_numpy(inputs.numbers[index]).float().to(device)
        self.codes = torch.from_numpy(inputs.codes[index]).to(device)
        chosen = torch.from_numpy(target[index])
        self.target = (chosen.float() if chosen.is_floating_point() else chosen).to(device)


def _train_epoch(
    network: nn.Module, optimizer: torch.optim.Optimizer, rows: _Rows, settings: Settings
) -> float:
    """Learn once from each row, in a random order. Returns the mean loss."""
    network.train()
    total = torch.zeros((), device=rows.target.device)
    order: Any = torch.randperm(rows.count)  # the same on every device
    count = 0
    for batch in order.to(rows.target.device).split(settings.batch_size):
        if len(batch) == 1 and rows.count > 1:
            continue  # batch normalization has no variance of one row
        codes = rows.codes[batch]
        hidden = torch.rand(codes.shape, device=codes.device) < HIDDEN_CATEGORIES
        scores = network(rows.numbers[batch], codes.masked_fill(hidden, UNSEEN))
        loss: Any = _loss(scores, rows.target[batch])  # backward() has no types
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(batch)
        count += len(batch)
    return float(total) / max(1, count)


def _loss_of(network: nn.Module, rows: _Rows) -> float:
    """Return the mean loss on rows that are not learned from."""
    network.eval()
    total = 0.0
    with torch.inference_mode():
        for first in range(0, rows.count, BATCH_ROWS):
            part = slice(first, first + BATCH_ROWS)
            scores = network(rows.numbers[part], rows.codes[part])
            total += float(_loss(scores, rows.target[part])) * len(scores)
    return total / rows.count


def _loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the cross-entropy of classes, or the squared error of values."""
    if target.is_floating_point():
        return nn.functional.mse_loss(scores[:, 0], target)
    return nn.functional.cross_entropy(scores, target)


def _weights(network: nn.Module) -> Weights:
    return {name: tensor.cpu().numpy().copy() for name, tensor in network.state_dict().items()}
