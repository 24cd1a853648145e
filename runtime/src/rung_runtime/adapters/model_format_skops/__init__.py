"""skops: every estimator that is of no other library, as `model_format.file` writes it."""

from typing import Any

TRUSTED: tuple[str, ...] = ()  # skops knows the types of scikit-learn itself
SUFFIX = ""


def owns(_: Any) -> bool:
    """Return False: what no other adapter owns is saved as it is."""
    return False


def adapt(estimator: Any) -> Any:
    """Return the estimator as it is."""
    return estimator
