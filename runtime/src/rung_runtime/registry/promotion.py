"""Promote a version to champion, and roll back to an earlier champion."""

import getpass
import platform

from .. import RefusedError
from ..artifacts import now
from ..config.delivery import load_delivery
from . import checkout
from .champion import (
    CHAMPION,
    HISTORY,
    Promotion,
    current_champion,
    dump_history,
    earlier_champion,
    history,
)
from .interface import Conflict, Version
from .references import open_registry
from .resolve import find

MAX_HISTORY = 200  # promotions that the registry records


def promote(name: str | None = None) -> Version:
    """Make a version the champion, the newest if none is named.

    Raises:
        UsageError: There is no such version.
        RefusedError: It was compared with another champion than the present one, or its commit is
            older than the champion's.
        Conflict: Another version was promoted meanwhile.
    """
    registry = open_registry()
    new = find(name)
    champion = current_champion()
    with registry.lock() as ensure_lease:
        current = registry.alias(CHAMPION)
        entries = history(registry)
        if current == new.version:
            return new
        if current != (champion and champion.version):
            by = f" by {entries[-1].by} at {entries[-1].time}" if entries else ""
            raise Conflict(
                f"{current} became the champion meanwhile{by}: run `ml run` to challenge it"
            )
        if new.facts.get("compared_with") != (champion.digest if champion else "first"):
            if new.version in [entry.version for entry in entries]:
                raise RefusedError(
                    f"{new} was champion before: `ml rollback --to {new}` returns to it"
                )
            raise RefusedError(
                f"{new} was compared with another champion than {current}: run `ml run` again"
            )
        if champion:
            _require_newer(new, champion)
        entry = Promotion(
            version=new.version,
            at=now(),
            by=f"{getpass.getuser()}@{platform.node()}",
            commit=new.facts.get("commit", "none"),
            package_digest=new.digest,
        )
        ensure_lease()
        registry.set(HISTORY, dump_history([*entries[1 - MAX_HISTORY :], entry]))
        ensure_lease()
        registry.point(CHAMPION, new.version)
    return new


def _require_newer(new: Version, champion: Version) -> None:
    """Check that no older commit replaces a newer one, as when a job is run again.

    Raises:
        RefusedError: It would, and `accept_incomparable` of config/delivery.yaml does not name
            the champion.
    """
    commit = new.facts.get("commit", "none")
    committed = new.facts.get("committed", "unknown")
    champion_commit = champion.facts.get("commit", "none")
    champion_committed = champion.facts.get("committed", "unknown")
    if not checkout.is_older(commit, committed, champion_commit, champion_committed):
        return
    if load_delivery().accept_incomparable == champion.version:
        return
    raise RefusedError(
        f"{new} is of commit {commit:.8} ({committed}), which is older than {champion_commit:.8}"
        f" ({champion_committed}) of the champion {champion}: `ml rollback` returns to an earlier"
        f" champion; if {new} is to take its place all the same, name {champion} in"
        " accept_incomparable of config/delivery.yaml"
    )


def rollback(to: str | None = None) -> tuple[str, str]:
    """Return to the previous champion, or to an earlier one.

    Returns:
        The version that was the champion, and the one that now is.

    Raises:
        RefusedError: There is no such earlier champion.
    """
    registry = open_registry()
    with registry.lock() as ensure_lease:
        last = registry.alias(CHAMPION) or ""
        target = earlier_champion(to)
        ensure_lease()
        registry.point(CHAMPION, target.version)
    return last, target.version
