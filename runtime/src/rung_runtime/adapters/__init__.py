"""Adapters: each system that can take a slot has a folder here, with a manifest, `adapter.toml`.

`[tool.rung]` of pyproject.toml names those that a project uses. One of your own comes with an entry
point of the group `rung.adapters`, called like a folder here, such as `registry_artifactory`; it
goes before a folder of that name.
"""

import sys
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .. import UsageError

if TYPE_CHECKING:
    from ..tuning.tracking import TrialRecord

GROUP = "rung.adapters"
CHOSEN = "pyproject.toml: [tool.rung]"  # where a project says which adapters it has


class Tracker(Protocol):
    """What the module of a tracker has: each run that reaches its gate is recorded."""

    def prepare(self) -> None:
        """Prepare to record while the pipeline runs, such as by an import."""

    def record(self) -> str:
        """Record the last run, once.

        Returns:
            A sentence: where it was recorded, or why it was not and what to do. Nothing is raised,
            as no tracker may fail a training.
        """

    def record_trials(self, name: str, run: str, trials: "Sequence[TrialRecord]") -> "Recorded":
        """Record trials of `ml tune`; without this function, none are.

        Args:
            name: Of the search.
            run: The identifier of the search's own run, below which those of trials are; "": there
                is none yet.
            trials: Those that were not recorded before.
        """


class Recorded(NamedTuple):
    """What came of recording trials. Nothing is raised, as no tracker may fail a search."""

    message: str  # where they were recorded, or why they were not
    run: str  # the identifier of the search's own run; "" if nothing was recorded


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
        return import_module(f".{place}", __name__)
    except ModuleNotFoundError as error:
        if error.name == f"{__name__}.{place}":
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
