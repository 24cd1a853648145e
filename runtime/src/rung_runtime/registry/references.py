"""The project's registry, and references to its versions: VERSION@sha256:DIGEST."""

import os
import re

from .. import RefusedError, UsageError, adapters, ci_platform, project
from ..config.delivery import Delivery, load_delivery
from .interface import Registry, Version

REFERENCE = re.compile(r"(?P<version>\w[\w.-]{0,127})@(?P<digest>sha256:[0-9a-f]{64})", re.ASCII)


def registry_location() -> str:
    """Return where the registry of `config/delivery.yaml` is.

    ML_REGISTRY overrides it. On a runner, where a folder would end with the job, the platform's own
    container registry takes the place of the folder that is the default.
    """
    location = os.environ.get("ML_REGISTRY") or load_delivery().registry
    is_default = location == Delivery().registry and not os.environ.get("ML_REGISTRY")
    adapter = project.current().registry
    if adapter == "oci" and is_default:
        platform = ci_platform.current_platform()
        if platform:
            location = f"oci://{platform.registry_prefix()}/models"
    return location


def open_registry() -> Registry:
    """Open the registry that `registry_location` names."""
    adapter = adapters.load("registry", project.current().registry)
    registry: Registry = adapter.open_registry(registry_location())
    return registry


def find_exact(name: str) -> Version:
    """Return a version by its whole name.

    Raises:
        UsageError: There is no such version.
    """
    if version := open_registry().version(name):
        return version
    raise UsageError(f"the registry has no version {name}: `ml models` lists them")


def find_reference(text: str) -> Version:
    """Return the version that VERSION@sha256:DIGEST refers to.

    Raises:
        UsageError: The text is not a reference, or there is no such version.
        RefusedError: The registry has another package under that name.
    """
    name, digest = parse_reference(text)
    version = find_exact(name)
    if version.digest != digest:
        raise RefusedError(
            f"{version} is in the registry as {version.digest}, and {digest} was requested: it is"
            " another package than the one that was resolved or verified"
        )
    return version


def parse_reference(text: str) -> tuple[str, str]:
    """Return the version and the digest of VERSION@sha256:DIGEST.

    Raises:
        UsageError: The text is not a reference.
    """
    parts = REFERENCE.fullmatch(text)
    if parts is None:
        raise UsageError(f"{text} is not VERSION@sha256:DIGEST: `ml resolve VERSION` prints one")
    return parts["version"], parts["digest"]
