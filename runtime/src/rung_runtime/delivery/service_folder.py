"""The folder `service/`: the packages that were fetched, and what this machine serves."""

import json
import os
import shutil
from collections.abc import Container
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..registry import Version
    from ..serving.loaded_model import LoadedModel

SERVICE = Path("service")
MODELS = SERVICE / "models"  # fetched packages, by version
KEPT_PACKAGES = 3


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a small JSON file, or {} if there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content


def load_version(version: "Version") -> "LoadedModel":
    """Load the very package of a version, which is fetched unless its copy is here already."""
    from .. import registry
    from ..serving.loaded_model import load

    folder = registry.fetch_version(version, MODELS / version.version)
    os.utime(folder)  # those used last are kept
    return load(folder, version.digest)


def remove_leftovers(in_use: Container[str]) -> None:
    """Remove what a killed process left half written, and packages that are not used any more.

    Args:
        in_use: Versions to keep, besides the newest ones.
    """
    for leftover in [*SERVICE.glob(".desired.*"), *MODELS.glob(".*")]:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
    by_last_use = sorted(MODELS.glob("*"), key=lambda folder: folder.stat().st_mtime)
    for folder in by_last_use[:-KEPT_PACKAGES]:
        if folder.name not in in_use:
            shutil.rmtree(folder)
