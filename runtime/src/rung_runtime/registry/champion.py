"""The champion: the version that is to serve, its record in the project, and its predecessors."""

import json
import os
from itertools import pairwise

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from .. import RefusedError, UsageError
from ..artifacts import ARTIFACTS
from ..atomic_file import atomic_write
from .interface import Registry, Version
from .references import REFERENCE, find_reference, open_registry, parse_reference

CHAMPION = "champion"  # the alias
HISTORY = "history"  # the note of promotions
POINTER = ARTIFACTS / "champion.json"  # the champion when the pipeline last looked


class Promotion(BaseModel):
    """An entry of the registry's history: a version became the champion."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, serialize_by_alias=True)

    version: str
    time: str = Field("?", alias="at")  # ISO 8601
    by: str = "?"  # USER@HOST
    commit: str = "none"
    package_digest: str = ""  # entries of 0.1 have none


_PROMOTIONS = TypeAdapter(list[Promotion])


def current_champion() -> Version | None:
    """Return the version that is to serve; None before the first promotion.

    Raises:
        UsageError: The alias points to a version that is gone, which is not the same as none.
    """
    registry = open_registry()
    name = registry.alias(CHAMPION)
    if name is None:
        return None
    if version := registry.version(name):
        return version
    raise UsageError(f"the champion {name} is gone from the registry: bring it back from a backup")


def require_expected(version: Version) -> Version:
    """Return a champion whose code is about to be imported, if it is the one that was verified.

    Args:
        version: The champion as the registry has it now.

    Raises:
        UsageError: ML_CHAMPION is not a reference.
        RefusedError: ML_CHAMPION refers to another version.
    """
    expected = os.environ.get("ML_CHAMPION", "")
    if expected and not REFERENCE.fullmatch(expected):
        raise UsageError(f"ML_CHAMPION: {expected} is not VERSION@sha256:DIGEST: see `ml resolve`")
    if expected not in ("", version.reference):
        raise RefusedError(
            f"the champion is {version.reference}, and ML_CHAMPION names {expected}, which was"
            " verified: if another one became the champion meanwhile, start the pipeline again"
        )
    return version


def reference(version: Version | None) -> dict[str, str] | None:
    """Return a version as documents refer to it; None for None."""
    if version is None:
        return None
    return {
        "version": version.version,
        "package_digest": version.digest,
        "model_digest": version.model_digest,
    }


def refresh_champion_pointer() -> Version | None:
    """Return the champion, and record it in POINTER, a file that changes only with it."""
    champion = current_champion()
    text = json.dumps(reference(champion), indent=2)
    if not POINTER.exists() or POINTER.read_text("utf-8") != text:
        with atomic_write(POINTER) as new_file:
            new_file.write_text(text, "utf-8")
    return champion


def history(registry: Registry) -> list[Promotion]:
    """Return the promotions, oldest first; the last entry is that of the present champion.

    An entry is written before the alias moves: entries after the champion's are of promotions that
    never completed, or that were rolled back.

    Raises:
        UsageError: The note is malformed.
    """
    entries = parse_history(registry.get(HISTORY) or "[]")
    champion = registry.alias(CHAMPION)
    while entries and entries[-1].version != champion:
        entries.pop()
    return entries


def parse_history(text: str) -> list[Promotion]:
    """Parse the note of promotions.

    Raises:
        UsageError: It is malformed.
    """
    try:
        return _PROMOTIONS.validate_json(text)
    except ValidationError:
        raise UsageError(
            f"the registry is damaged: its note {HISTORY!r} is not a list of champions"
        ) from None


def dump_history(entries: list[Promotion]) -> str:
    """Return promotions as the text of the note."""
    return json.dumps([entry.model_dump(exclude_unset=True) for entry in entries])


def earlier_champion(to: str | None = None) -> Version:
    """Return the previous champion, or an earlier one: a version that surely was the champion.

    The history is a claim: whoever can write to the registry can write it. An entry counts if the
    registry has that version with the digest that its promotion recorded, and if each champion
    from the present one back to it was compared with its predecessor.

    Args:
        to: A part of its name, or its reference; None: the previous one.

    Raises:
        RefusedError: There is no such earlier champion, or the history does not hold.
    """
    registry = open_registry()
    entries = history(registry)
    if to and "@" in to:
        parse_reference(to)
    name, _, digest = (to or "").partition("@")
    *earlier, last = [entry.version for entry in entries] or [""]
    matches = [
        index
        for index, version in enumerate(earlier)
        if version == name or (not digest and name in version)
    ]
    if not last:
        raise RefusedError("there is no champion yet: `ml deploy` makes one")
    if not matches:
        wanted = f"no champion {name}" if name else "no champion"
        raise RefusedError(f"the registry records {wanted} before {last}")
    if to and digest:  # the caller has verified it
        return find_reference(to)
    since = entries[matches[-1] :]
    versions = {entry.version: _promoted_version(registry, entry) for entry in since}
    for older, newer in pairwise(entry.version for entry in since):
        if versions[newer].facts.get("compared_with") != versions[older].digest:
            raise RefusedError(
                f"the registry's history says that {newer} came after {older}, and {newer} was"
                f" compared with another champion: `ml resolve {older}`, and if that is the right"
                " one, `ml rollback --to` what it prints"
            )
    return versions[since[0].version]


def _promoted_version(registry: Registry, entry: Promotion) -> Version:
    """Return the version of an entry, as it was promoted.

    Raises:
        RefusedError: It is gone, or has another digest now.
    """
    version = registry.version(entry.version)
    if version is None:
        raise RefusedError(f"{entry.version}, which was champion, is gone from the registry")
    has_digest = "package_digest" in entry.model_fields_set
    if has_digest and entry.package_digest != version.digest:
        raise RefusedError(
            f"{version} was promoted as {entry.package_digest}, and is {version.digest} in the"
            " registry now: somebody has changed the one or the other"
        )
    return version
