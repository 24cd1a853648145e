"""Which adapter an estimator belongs to, be it a part of another estimator."""

from typing import Any

from .. import adapters
from .interface import ModelFormat


def available() -> dict[str, ModelFormat]:
    """Return the adapters that the project has, by name."""
    names = adapters.names("model_format")
    return {name: adapters.load("model_format", name) for name in names}


def adapt(estimator: Any) -> Any:
    """Return an estimator that can be trained on frames and saved.

    Args:
        estimator: What `problem/model.py` returned. A part that is of another library, such as the
            last step of a pipeline, is replaced in it.
    """
    libraries = list(available().values())
    if adapted := _adapted(estimator, libraries):
        return adapted
    if not hasattr(estimator, "get_params") or not hasattr(estimator, "set_params"):
        return estimator
    replaced: dict[str, Any] = {}
    # The outermost come first: what is inside of a part that is replaced goes with it.
    for name, part in sorted(estimator.get_params().items(), key=lambda item: item[0].count("__")):
        is_inside = any(name.startswith(f"{outer}__") for outer in replaced)
        if not is_inside and (adapted := _adapted(part, libraries)):
            replaced[name] = adapted
    return estimator.set_params(**replaced) if replaced else estimator


def _adapted(estimator: Any, libraries: list[ModelFormat]) -> Any:
    """Return what stands for an estimator; None if it is of no library, or a type."""
    if isinstance(estimator, type):
        return None
    for library in libraries:
        if library.owns(estimator):
            return library.adapt(estimator)
    return None
