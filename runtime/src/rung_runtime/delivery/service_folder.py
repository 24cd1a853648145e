"""The folder `service/`: the packages that were fetched, and what this machine serves."""

import json
import os
import shutil
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..registry import Version
    from ..serving.loaded_model import LoadedModel

SERVICE = Path("service")
MODELS = SERVICE / "models"  # fetched packages, by version
KEPT_PACKAGES = 3
FIRST_REPLIES = 20  # of a process that has just begun
# For a package to open, or to answer a request: one that hangs must not stop a deployment for ever.
MAX_SECONDS = 120.0


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a small JSON file, or {} if there is none."""
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return content


@contextmanager
def open_version(version: "Version") -> Iterator["LoadedModel"]:
    """Open the very package of a version, which is fetched unless its copy is here already.

    See `open_apart`.
    """
    from .. import registry

    folder = registry.fetch_version(version, MODELS / version.version)
    os.utime(folder)  # those used last are kept
    with open_apart(folder, version.digest) as loaded:
        yield loaded


@contextmanager
def open_apart(
    folder: Path, package_digest: str, without: Iterable[str] = ()
) -> Iterator["LoadedModel"]:
    """Open a package in a process of its own, as the service has it.

    Whoever delivers holds tokens that can write; code of a package is not run beside them.

    Args:
        folder: The package.
        package_digest: The digest that it must have.
        without: Modules that it cannot import, as if they were not installed.

    Raises:
        UsageError: It is damaged, or another one, or its code cannot be imported.
    """
    from ..isolation.model import open_isolated
    from ..serving.loaded_model import LoadedModel
    from ..serving.metrics import Distributions
    from ..serving.rows import frame_from_rows

    with open_isolated(
        folder,
        package_digest,
        threads=1,
        watches_project=False,
        max_seconds=MAX_SECONDS,
        without=without,
    ) as model:
        profile = json.loads((folder / "profile.json").read_text("utf-8"))
        loaded = LoadedModel(model, profile, Distributions(profile, model.data))
        # What is done only once is not measured, nor how a busy machine wakes a new process.
        model.reply(frame_from_rows([loaded.example], model.request_contract), FIRST_REPLIES)
        yield loaded


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
