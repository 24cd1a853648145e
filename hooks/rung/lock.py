"""Carried requirements that go together with the project's, loosened no more than must be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from . import RefusedError
from .tools import program

# Gives a pyproject.toml with these requirements, and those as comments.
Write = Callable[[list[Requirement], list[Requirement]], str]


@dataclass
class Locked:
    """A pyproject.toml that can be locked, its lock, and what changed for it."""

    pyproject: str
    lock: bytes
    changed: list[str] = field(default_factory=list)
    left: list[Requirement] = field(default_factory=list)


def lock(folder: Path, wanted: Mapping[str, Requirement], write: Write) -> Locked:
    """Lock a project together with what was carried.

    First all as it was, from wheels. If that cannot be, one requirement after the other: as it was,
    with its pin as a floor, without a version, built from source; else it is left as a comment.

    Args:
        folder: Where to lock; a uv.lock that is there is gone by, as far as can be.
        wanted: Requirements by their names.
        write: Gives the text of the pyproject.toml.

    Raises:
        RefusedError: Not even the project's own can be locked.
    """

    def locks(kept: list[Requirement], *options: str) -> str | None:
        """Give why not."""
        (folder / "pyproject.toml").write_text(write(kept, []), "utf-8")
        uv = program("uv").with_cwd(str(folder))["lock", "--quiet", *options]
        code, _, said = uv.run(retcode=None)
        return None if code == 0 else str(said).strip() or f"exit {code}"

    kept, changed, left = list(wanted.values()), list[str](), list[Requirement]()
    if locks(kept, "--no-build") is not None:
        if why := locks([]):
            first = why.splitlines()[0].removeprefix("error: ").rstrip(".")
            raise RefusedError(f"uv lock failed, and nothing was changed: {first}")
        kept, sources = [], list[Requirement]()
        for one in wanted.values():
            for tried in looser(one):
                if locks([*kept, tried], "--no-build") is None:
                    kept.append(tried)
                    if str(tried) != str(one):
                        changed.append(f"{one} → {tried}: with the project's own it did not lock")
                    break
            else:
                sources.append(one)
        for one in sources:
            if locks([*kept, one]) is None:
                kept.append(one)
                changed.append(f"{one}: has to be built from source, there is no wheel")
            else:
                left.append(one)
        locks(kept)
    text = write(kept, left)
    (folder / "pyproject.toml").write_text(text, "utf-8")
    return Locked(text, (folder / "uv.lock").read_bytes(), changed, left)


def looser(one: Requirement) -> list[Requirement]:
    """Give a requirement, then with its pins as floors, then without a version."""
    floor, bare = copy(one), copy(one)
    exact = [s for s in one.specifier if s.operator in ("==", "===", "~=")]
    pins = [s.version.removesuffix(".*") for s in exact]
    lower = [str(s) for s in one.specifier if s.operator in (">=", ">")]
    floor.specifier = SpecifierSet(",".join([*lower, *(f">={pin}" for pin in pins)]))
    bare.specifier = SpecifierSet()
    found = {str(each): each for each in (one, floor, bare)}
    return list(found.values())
