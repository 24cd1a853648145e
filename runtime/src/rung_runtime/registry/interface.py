"""The registry's interface: what an adapter does, and what it knows about a version."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from .. import RefusedError, UsageError

if TYPE_CHECKING:
    from ..model_package import Manifest

VERSION_NAME = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
# Raises UsageError once the time in which the holder of a lock may write is over.
EnsureLease = Callable[[], None]


class Conflict(RefusedError):
    """Another command changed the champion first."""


@dataclass(frozen=True)
class Version:
    """A package as the registry describes it.

    Raises:
        UsageError: The name or a digest is malformed.
    """

    version: str
    digest: str  # of the package
    model_digest: str
    created: str
    facts: dict[str, str]

    def __post_init__(self) -> None:
        # It becomes the name of a folder, and whoever can write to the registry has chosen it.
        if not VERSION_NAME.fullmatch(self.version):
            raise UsageError(
                f"the registry is damaged: {self.version!r} is not the name of a version"
            )
        # Jobs pass these on to each other, as lines of a file and as words of a shell.
        for digest in (self.digest, self.model_digest):
            if not DIGEST.fullmatch(digest):
                raise UsageError(
                    f"the registry is damaged: {self.version} has {digest[:100]!r} for a digest"
                )

    def __str__(self) -> str:
        return self.version

    @property
    def reference(self) -> str:
        """VERSION@DIGEST: what a job passes on to the next, so that both mean the same package."""
        return f"{self.version}@{self.digest}"

    @property
    def data_digest(self) -> str:
        """The digest of the data that the version was trained on.

        Raises:
            UsageError: The registry does not record it.
        """
        if data_digest := self.facts.get("data_digest"):
            return data_digest
        raise UsageError(
            f"the registry is damaged: {self.version} does not record what data it was trained on"
        )

    @property
    def made(self) -> datetime:
        """When the version was made, in UTC.

        Raises:
            UsageError: The registry does not record it.
        """
        try:
            return datetime.fromisoformat(self.created).astimezone(UTC)
        except (ValueError, OverflowError):
            raise UsageError(
                f"the registry is damaged: {self.version} was made at {self.created[:100]!r}"
            ) from None


class Registry(Protocol):
    """What an adapter does. Every method raises UsageError if the registry fails or is damaged."""

    def push(self, folder: Path, manifest: "Manifest", facts: dict[str, str]) -> None:
        """Store a package. A version that the registry already has does not change."""

    def names(self) -> list[str]:
        """Return the names of all versions, oldest first; others may be among them."""

    def version(self, name: str) -> Version | None:
        """Return the version with a name; None if there is none, or the name is not a version's."""

    def versions(self, newest: int | None = None) -> list[Version]:
        """Return the versions, oldest first.

        Args:
            newest: How many, if each costs a request; None: all of them.
        """

    def fetch(self, version: str, to: Path) -> Path:
        """Download a package into the folder `to`, verified; leave nothing there if it fails."""

    def get(self, note: str) -> str | None:
        """Return a note: a small text that all who use the registry share."""

    def set(self, note: str, text: str) -> None:
        """Replace a note atomically."""

    def alias(self, name: str) -> str | None:
        """Return the version that an alias points to."""

    def point(self, name: str, version: str) -> None:
        """Move an alias atomically."""

    def lock(self) -> AbstractContextManager[EnsureLease]:
        """Keep other writers out. Call the yielded function before each write."""
