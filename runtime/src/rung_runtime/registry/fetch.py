"""Fetch a package that is about to be used: downloaded, verified, and signed where required."""

from pathlib import Path

from . import signature
from .download import download
from .interface import Version
from .references import open_registry


def fetch_version(version: Version, to: Path) -> Path:
    """Bring the package of a version into a folder, unless it already has it.

    Returns:
        The folder.

    Raises:
        UsageError: The version is gone from the registry, or is damaged there.
        RefusedError: The registry has another package now, and what was in the folder is kept; or
            it is not signed as `signed_by` of config/delivery.yaml requires.
    """
    download(version, to)
    signature.require(open_registry(), version.version, to)
    return to
