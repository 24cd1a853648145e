"""What a step uses besides its inputs and outputs has to outlive its container.

To a step that does not see the registry there is no champion, and any model is good enough.
"""

import os
from pathlib import Path

from .. import UsageError, project, registry
from ..config.delivery import load_delivery


def require_lasting(name: str, last_step: str) -> None:
    """Check that what a step reads and writes besides files of the graph is outside of this folder.

    Args:
        name: The step.
        last_step: What a training ends with that the step `retrain` starts.

    Raises:
        UsageError: The registry, the service or the prediction log is not.
    """
    here = project.current()
    if here.registry == "mlflow":
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri or _is_inside(uri.removeprefix("sqlite:///")):
            raise UsageError(
                f"ml step {name}: the registry is mlflow.db in this folder, which other steps do"
                " not have: set MLFLOW_TRACKING_URI"
            )
    elif _is_inside(location := registry.registry_location()):
        raise UsageError(
            f"ml step {name}: the registry is the folder {location} here, which other steps do not"
            " have: set ML_REGISTRY, such as oci://HOST/NAME, or registry in config/delivery.yaml"
        )
    is_deploying = name == "deploy" or (name == "retrain" and last_step == "deploy")
    if is_deploying and here.deployment == "local":
        raise UsageError(
            f"ml step {name}: the service would end with this container: add Kubernetes by `rung"
            " add target kubernetes`, or end the graph before, by `last: register` in"
            " config/export.yaml"
        )
    if name == "retrain" and is_deploying:
        raise UsageError(
            "ml step retrain: a cluster needs an image of the version that it trains, which no step"
            " builds: end it before, by --last register"
        )
    if name == "monitor" and _is_inside(log := load_delivery().service.log):
        raise UsageError(
            f"ml step {name}: the prediction log is the folder {log} here, which no service writes"
            " to: set service.log in config/delivery.yaml to the URL of an object store"
        )


def _is_inside(location: str) -> bool:
    """Check whether a location is a folder or a file of the project."""
    if "://" in location:
        return False
    return Path(location).resolve().is_relative_to(Path.cwd().resolve())
