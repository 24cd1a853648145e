"""List the versions in the registry, for `ml models`."""

import re

import typer

from ..escaping import visible
from .champion import CHAMPION
from .interface import Version
from .references import open_registry
from .resolve import EMPTY, NEWEST

PACKAGE_NAME = re.compile(r"[\d-]{16}[\da-f]{8}", re.ASCII)  # the names that `ml package` gives


def print_versions() -> None:
    """Print a line for each version: whether it is the champion, metric, interval, lineage.

    In a remote registry, where each version costs a request, only the newest ones and the champion
    have metric and lineage; of the others the name is printed.
    """
    registry = open_registry()
    champion = registry.alias(CHAMPION)
    versions = {version.version: version for version in registry.versions(NEWEST)}
    if champion and champion not in versions and (version := registry.version(champion)):
        versions[champion] = version
    names = {name for name in registry.names() if PACKAGE_NAME.fullmatch(name)}
    if not names and not versions:
        typer.echo(EMPTY, err=True)  # not for the program that reads the list
    for name in sorted(names | set(versions)):
        mark = CHAMPION if name == champion else ""
        line = f"{name}  {mark:{len(CHAMPION)}}"
        typer.echo(f"{line}  {_summary(versions[name])}" if name in versions else line.rstrip())


def _summary(version: Version) -> str:
    """Return the metric and the lineage of a version in one line; `?` for what is not recorded."""
    names = ("metric", "value", "low", "high", "commit")
    facts = {name: visible(version.facts.get(name, "?")) for name in names}
    commit, _, dirty = facts["commit"].partition("-")
    facts["commit"] = f"{commit:.8}{dirty and '-dirty'}"
    data = visible(version.facts.get("data_digest", "sha256:?")[7:15])
    return "{metric} {value} ({low} to {high})  commit {commit}  data {data}".format(
        **facts, data=data
    )
