"""Networks of torch keep the contract of model formats; `tests/test_torch.py` runs it."""

from __future__ import annotations

from typing import Any

import pytest
from rung_runtime.adapters.model_format_torch import (
    NeuralNetworkClassifier,
    NeuralNetworkRegressor,
)
from rung_runtime.testing.model_formats import Make, ModelFormatContract


class TestTorch(ModelFormatContract):
    """Networks of torch."""

    name = "torch"

    @pytest.fixture
    def make(self) -> Make:
        def make(task: str) -> Any:
            kind = NeuralNetworkRegressor if task == "regression" else NeuralNetworkClassifier
            return kind(epochs=30, hidden=[16], batch_size=32, learning_rate=0.02)

        return make
