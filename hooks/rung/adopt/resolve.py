"""Adopted requirements that are compatible with the project's, relaxed as little as possible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ..exceptions import RefusedError
from ..process import run

# Returns a pyproject.toml with the first requirements, and the second ones as comments.
WritePyproject = Callable[[list[Requirement], list[Requirement]], str]
PINS = ("==", "===", "~=")
FLOORS = (">=", ">")


@dataclass
class Resolution:
    """A pyproject.toml that can be locked, its lock, and what changed for it."""

    pyproject: str
    lock: bytes
    changes: list[str] = field(default_factory=list)
    excluded: list[Requirement] = field(default_factory=list)


def resolve(folder: Path, wanted: Mapping[str, Requirement], write: WritePyproject) -> Resolution:
    """Lock a project together with adopted requirements.

    First all as they are, from wheels. If that fails, one requirement after the other: as it is,
    with its pin as a floor, without a version, built from source; else it becomes a comment.

    Args:
        folder: Where to lock; the versions of a uv.lock there are preferred.
        wanted: Requirements, by name.
        write: Returns the text of the pyproject.toml.

    Raises:
        RefusedError: Not even the project's own requirements can be locked.
    """

    def lock_error(requirements: list[Requirement], *options: str) -> str | None:
        """Lock the project with these requirements; return uv's message if that fails."""
        (folder / "pyproject.toml").write_text(write(requirements, []), "utf-8")
        result = run(["uv", "lock", "--quiet", *options], folder)
        return None if result.succeeded else result.error_text.strip() or result.reason

    kept = list(wanted.values())
    changes = list[str]()
    excluded = list[Requirement]()
    if lock_error(kept, "--no-build") is not None:
        if message := lock_error([]):
            reason = message.splitlines()[0].removeprefix("error: ").rstrip(".")
            raise RefusedError(f"uv lock failed, and nothing was changed: {reason}")
        kept = []
        without_wheel = list[Requirement]()
        for requirement in wanted.values():
            for variant in relaxed_variants(requirement):
                if lock_error([*kept, variant], "--no-build") is None:
                    kept.append(variant)
                    if str(variant) != str(requirement):
                        changes.append(
                            f"{requirement} → {variant}: the original conflicts with the others"
                        )
                    break
            else:
                without_wheel.append(requirement)
        for requirement in without_wheel:
            if lock_error([*kept, requirement]) is None:
                kept.append(requirement)
                changes.append(f"{requirement}: has no wheel, so it is built from source")
            else:
                excluded.append(requirement)
        lock_error(kept)
    text = write(kept, excluded)
    (folder / "pyproject.toml").write_text(text, "utf-8")
    return Resolution(text, (folder / "uv.lock").read_bytes(), changes, excluded)


def relaxed_variants(requirement: Requirement) -> list[Requirement]:
    """Return a requirement, then with its pins as floors, then without a version."""
    pins = [
        item.version.removesuffix(".*") for item in requirement.specifier if item.operator in PINS
    ]
    floors = [str(item) for item in requirement.specifier if item.operator in FLOORS]
    with_floors = copy(requirement)
    with_floors.specifier = SpecifierSet(",".join([*floors, *(f">={pin}" for pin in pins)]))
    without_version = copy(requirement)
    without_version.specifier = SpecifierSet()
    variants = {str(item): item for item in (requirement, with_floors, without_version)}
    return list(variants.values())
