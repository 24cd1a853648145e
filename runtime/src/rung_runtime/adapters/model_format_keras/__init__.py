"""Networks of Keras, for tables: its own `.keras` file, read in safe mode, computed by torch.

    from rung_runtime.adapters.model_format_keras import KerasClassifier

What makes a model is a function in `problem/`, which `TRUSTED` there names; no other code is run.
"""

import os
from importlib.util import find_spec
from typing import Any

from .network import KerasClassifier, KerasRegressor

__all__ = ["KerasClassifier", "KerasRegressor"]

# Before `problem/` imports Keras, whose default is TensorFlow: if that is there, it may be meant.
if find_spec("tensorflow") is None and find_spec("jax") is None:
    os.environ.setdefault("KERAS_BACKEND", "torch")
# Keras would read a person's own settings in ~/.keras, and write its defaults there: no model is to
# depend on them. Below a file there is no folder, and Keras goes on without.
os.environ.setdefault("KERAS_HOME", f"{os.devnull}/keras")

TRUSTED = (f"{__name__}.network.KerasClassifier", f"{__name__}.network.KerasRegressor")
SUFFIX = ".keras"


def owns(_: Any) -> bool:
    """Return False: its estimators are saved as they are."""
    return False


def adapt(estimator: Any) -> Any:
    """Return the estimator as it is."""
    return estimator
