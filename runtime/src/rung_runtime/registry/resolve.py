"""Resolve what a person or a job calls a version."""

from .. import UsageError
from .champion import CHAMPION, current_champion, earlier_champion
from .interface import Registry, Version
from .references import find_reference, open_registry

PREVIOUS = "previous"  # as the name of a version: the previous champion
NEWEST = 20  # versions that a command reads, where each costs a request
EMPTY = "the registry has no version yet: `ml register` puts one there"


def find(name: str | None = None) -> Version:
    """Return a version by what a person or a job calls it; the newest if nothing is named.

    Args:
        name: A part of its name that only it has, `champion`, `previous` (the previous champion),
            or a reference, VERSION@sha256:DIGEST.

    Raises:
        UsageError: No version, or more than one, has that name; or it is a malformed reference.
        RefusedError: The registry has another package than the one that a reference names.
    """
    if name and "@" in name:
        return find_reference(name)
    if name == PREVIOUS:
        return earlier_champion()
    if name == CHAMPION and (champion := current_champion()):
        return champion
    registry = open_registry()
    names = registry.names()
    if not names:
        raise UsageError(EMPTY)
    if name is None:
        return _newest(registry, names)
    matches = [name] if name in names else [other for other in names if name in other]
    if len(matches) <= NEWEST:
        versions = [version for match in matches if (version := registry.version(match))]
        if len(versions) == 1:
            return versions[0]
        matches = [version.version for version in versions]
    raise UsageError(f"{name} is a part of {len(matches)} versions: `ml models` lists them")


def _newest(registry: Registry, names: list[str]) -> Version:
    """Return the newest version among the newest names, of which some are not versions."""
    for name in names[: -NEWEST - 1 : -1]:
        if version := registry.version(name):
            return version
    raise UsageError(EMPTY)
