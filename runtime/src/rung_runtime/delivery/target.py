"""Targets: where a model can serve. Each is an adapter, but for those of this machine."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .. import UsageError, adapters, ci_platform, project

if TYPE_CHECKING:
    from ..ci_platform import Platform

OWN_MACHINE_HINT = (
    "Set the variables ML_HOME and ML_RUNNER to have it serve on a machine of your own."
)
LOCAL_NAMES = {"staging": "local/staging", "production": "local"}


class Target(Protocol):
    """Where a model serves. The model is named by its version and its package digest."""

    name: str
    promotes: bool  # what is deployed there becomes champion

    def check(self, image: str | None) -> None:
        """Check that it can be deployed to.

        Args:
            image: What the registry has noted as the image of the version, NAME@sha256:DIGEST.

        Raises:
            UsageError: It cannot, for the reason in the message.
        """

    def ensure_running(self) -> None:
        """Start again what should serve and does not."""

    def desired_version(self) -> str | None:
        """Return the version that should serve."""

    def is_serving(self, version: str, digest: str) -> bool:
        """Check whether deploying a version would change nothing."""

    def switch(self, version: str, digest: str) -> None:
        """Have a version served, and return once it is.

        Raises:
            RefusedError: It is not served, for the reason in the message.
        """

    def restore(self, version: str | None, digest: str | None) -> None:
        """Have the previous version served again, or none."""

    def serving_url(self) -> AbstractContextManager[str]:
        """Yield the address of the service."""


def open_target(name: str) -> Target:
    """Return a target of this project.

    Args:
        name: `local`, `local/staging` or `kubernetes/OVERLAY`; `staging` or `production`, those of
            the cluster if the project has one, else those of this machine.

    Raises:
        UsageError: The project does not have it.
    """
    if name in LOCAL_NAMES:
        cluster = _cluster()
        name = f"{cluster}/{name}" if cluster else LOCAL_NAMES[name]
    if name == "local":
        from ..adapters.target_local import Local

        return Local()
    if name == "local/staging":
        from ..adapters.target_local.ephemeral import Staging

        return Staging()
    kind, _, overlay = name.partition("/")
    cluster = _cluster()
    if cluster and kind == cluster:
        target: Target = adapters.load("target", kind).open_target(overlay or "production")
        return target
    raise UsageError(f"target {name}: this project does not have a target of that name")


def rehearsal_platform() -> "Platform | None":
    """Return the CI platform, if this is one of its runners, where nothing that serves remains."""
    cluster = _cluster()
    platform = ci_platform.current_platform()
    if platform is None or cluster:
        return None
    is_outside_of_the_job = platform.workspace.resolve() != Path.cwd().resolve()
    return None if is_outside_of_the_job else platform


def _cluster() -> str | None:
    """Return the name of the adapter for a target besides this machine.

    Raises:
        UsageError: There is no adapter of that name.
    """
    name = project.current().deployment
    if name == "local":
        return None
    adapters.load("target", name)
    return name
