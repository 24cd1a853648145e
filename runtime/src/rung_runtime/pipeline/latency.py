"""How long a prediction takes, beside a computation that never changes."""

import time
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ..config import Data
from ..model_package import predict
from ..problem import features

# Predictions are timed at least so often, then until one of the two limits is reached.
MIN_REPEATS = 30
MAX_REPEATS = 300
MAX_SECONDS = 0.5


class Latency(NamedTuple):
    """The fastest prediction of one row, and the fastest yardstick, in milliseconds."""

    latency_ms: float
    yardstick_ms: float


def measure_latency(fitted: Any, rows: pl.DataFrame, data: Data) -> Latency:
    """Time predictions of a single row, features included, in turn with the yardstick.

    Other programs on the machine can only add to a time, so the fastest of many is the model's own.
    The yardstick tells a slow machine from a slow model.

    Args:
        fitted: The estimator.
        rows: (n, …) typed rows, of which one at a time is predicted.
        data: The contract.
    """
    predictions: list[float] = []
    yardsticks: list[float] = []
    began = time.perf_counter()
    while len(predictions) < MIN_REPEATS or (
        len(predictions) < MAX_REPEATS and time.perf_counter() - began < MAX_SECONDS
    ):
        start = time.perf_counter()
        predict(fitted, rows[len(predictions) % rows.height], data, features)
        middle = time.perf_counter()
        yardstick()
        predictions.append(middle - start)
        yardsticks.append(time.perf_counter() - middle)
    return Latency(min(predictions) * 1000, min(yardsticks) * 1000)


def yardstick() -> float:
    """Compute what takes `gate.YARDSTICK_MS` on an ordinary machine: half Python, half NumPy."""
    total = 0.0
    for number in range(5_000):
        total += number % 7
    values = np.cos(np.arange(20_000.0))
    values.sort()
    return total + float(values[0])
