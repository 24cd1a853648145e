"""Neural networks of torch, for tables: weights as safetensors, all else as plain values.

    from rung_runtime.adapters.model_format_torch import NeuralNetworkClassifier

A module of your own is a class in `problem/`, which `TRUSTED` there names; no other code is run.
"""

from typing import Any

from .network import NeuralNetworkClassifier, NeuralNetworkRegressor

__all__ = ["NeuralNetworkClassifier", "NeuralNetworkRegressor"]

TRUSTED = (
    f"{__name__}.network.NeuralNetworkClassifier",
    f"{__name__}.network.NeuralNetworkRegressor",
)
SUFFIX = ".safetensors"


def owns(_: Any) -> bool:
    """Return False: its estimators are saved as they are."""
    return False


def adapt(estimator: Any) -> Any:
    """Return the estimator as it is."""
    return estimator
