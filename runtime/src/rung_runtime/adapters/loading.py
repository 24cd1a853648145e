"""Find and import adapters: folders here, and entry points of other packages."""

import sys
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from .. import UsageError

GROUP = "rung.adapters"
CHOSEN = "pyproject.toml: [tool.rung]"  # where a project says which adapters it has


def load(slot: str, name: str, named_by: str = CHOSEN) -> ModuleType:
    """Import an adapter.

    Args:
        slot: `registry`, `target`, `ci`, `tracker`, `pipeline`, `model_format`, `explainer` or
            `engine`.
        name: What configuration calls it.
        named_by: The option, or file and key, that named it.

    Raises:
        UsageError: There is none of that name, or a library that it needs is not installed.
    """
    place = f"{slot}_{name}"
    for point in _installed(tuple(sys.path)).select(name=place):
        own: Any = point.load()
        return own  # type: ignore[no-any-return]
    try:
        return import_module(f".{place}", __package__)
    except ModuleNotFoundError as error:
        if error.name == f"{__package__}.{place}":
            listed = ", ".join(names(slot)) or "none"
            raise UsageError(
                f"{named_by} names the {slot} {name!r}, and there is no adapter of that name: "
                f"use one of {listed}, or `rung add {slot} {name}`"
            ) from None
        raise missing_library(slot, name, error) from None


@cache
def _installed(path: tuple[str, ...]) -> EntryPoints:
    """Return the adapters among all packages on `sys.path`, each of which has a file to read."""
    return entry_points(group=GROUP)


def missing_library(slot: str, name: str, error: ModuleNotFoundError) -> UsageError:
    """Return what to tell a person whose environment lacks a library that an adapter needs."""
    return UsageError(
        f"the {slot} {name} needs {error.name}, which is not installed: run `uv sync`"
    )


def names(slot: str) -> list[str]:
    """List the adapters that there are for a slot."""
    folders = [path.parent.name for path in Path(__file__).parent.glob("*/adapter.toml")]
    known = {*folders, *_installed(tuple(sys.path)).names}
    return sorted(name.removeprefix(f"{slot}_") for name in known if name.startswith(f"{slot}_"))
