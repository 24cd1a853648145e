"""The interface of a CI platform, and the one that this process runs on."""

from pathlib import Path
from typing import Protocol

from .. import UsageError, adapters, project


class Platform(Protocol):
    """What an adapter knows and does, from the environment of a job and with its token."""

    name: str
    workspace: Path  # the checkout of this job

    def registry_prefix(self) -> str:
        """Return HOST/NAME: where its container registry keeps what belongs to this repository.

        Raises:
            UsageError: It has no container registry.
        """

    def credentials(self) -> tuple[str, str] | None:
        """Return user and password for that registry, if this job has them."""

    def jobs(self) -> dict[str, str]:
        """Return the results of the other jobs of this pipeline; {} if they cannot be known."""

    def comment(self, text: str, tail: str = "") -> str | None:
        """Write the one comment of the pull request, or replace it.

        Args:
            text: Cut at its end to what the platform accepts.
            tail: What follows it, cut or not.

        Returns:
            Why there is no comment; None if there is one.
        """

    def train(self) -> None:
        """Start the train pipeline."""

    def notice(self, text: str) -> None:
        """Show a message where it is seen without reading the log."""


def current_platform() -> Platform | None:
    """Return the platform that this process runs on, if the project has an adapter for it."""
    for name in project.current().ci:
        platform: Platform | None = adapters.load("ci", name).detect()
        if platform:
            return platform
    return None


def require_platform() -> Platform:
    """Return the platform that this process runs on.

    Raises:
        UsageError: This is not a job of a platform that the project has an adapter for.
    """
    if platform := current_platform():
        return platform
    raise UsageError("not running inside a supported CI job (GitHub Actions or GitLab CI)")


def registry_credentials(host: str) -> tuple[str, str] | None:
    """Return user and password of this job for a container registry, if it is the platform's."""
    platform = current_platform()
    if platform is None:
        return None
    try:
        own_host = platform.registry_prefix().partition("/")[0]
    except UsageError:
        return None
    return platform.credentials() if own_host == host.lower() else None
