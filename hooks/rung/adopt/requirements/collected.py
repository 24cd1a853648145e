"""What is found: requirements by name, indexes, constraints, and notes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from .. import conda
from ..indexes import PackageIndex, parse_index

LOCAL_URL = r"(git\+)?file:|\.{0,2}/"


@dataclass
class CollectedRequirements:
    """Requirements by name, the file that each is from, and notes on what is not adopted."""

    by_name: dict[str, Requirement] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    indexes: list[PackageIndex] = field(default_factory=list)
    constraints: dict[str, Requirement] = field(default_factory=dict)
    from_conda: set[str] = field(default_factory=set)
    has_cuda: bool = False  # a conda environment asks for it
    notes: list[str] = field(default_factory=list)

    def add(self, line: str, file: str) -> str | None:
        """Add a requirement; of two with the same name, the one with a version, or the first.

        Returns:
            Its normalized name, or None if it was not adopted.
        """
        requirement = self.parse(line, file)
        if requirement is None:
            return None
        if requirement.url and requirement.url.startswith("file:"):  # as conda's pip freeze writes
            self.notes.append(
                f"{file}: {requirement.name} came from a file ({requirement.url}): "
                "any version is accepted"
            )
            requirement.url = None
        elif requirement.url and re.match(LOCAL_URL, requirement.url):
            self.note_local(requirement.name, requirement.url, file)
            return None
        canonical = canonicalize_name(requirement.name)
        requirement.name = conda.PYPI_NAMES.get(canonical, requirement.name)
        name = canonicalize_name(requirement.name)
        known = self.by_name.get(name)
        is_bare = known is not None and not known.specifier and not known.url
        if known is None or (is_bare and requirement.specifier):
            self.by_name[name] = requirement
            self.files[name] = file
        return name

    def parse(self, line: str, file: str) -> Requirement | None:
        """Return a requirement; if it is not a valid one, note that."""
        try:
            return Requirement(line)
        except InvalidRequirement:
            self.notes.append(f"{file}: {line!r} is not a valid requirement, and was not adopted")
            return None

    def add_index(self, kind: str, url: str, file: str) -> None:
        """Add an index that packages are from, or note why it cannot be used."""
        index = parse_index(kind, url, file)
        if isinstance(index, str):
            self.notes.append(index)
        elif index and index.url not in [known.url for known in self.indexes]:
            self.indexes.append(index)

    def note_local(self, name: str, path: str, file: str) -> None:
        """Note that a requirement is a folder or a file, which is not adopted."""
        self.notes.append(
            f"{file}: {name} is from {path}, and was not adopted: uv add --group adopted PATH"
        )

    def note_links(self, links: Iterable[str], file: str) -> None:
        """Note the links to packages that nothing but an old setuptools reads."""
        addresses = [re.sub(r"(?<=://)[^/@]*@", "", link) for link in links]
        if addresses:
            self.notes.append(
                f"{file}: dependency_links ({', '.join(addresses)}) are not read by pip or uv: "
                "uv add --group adopted 'PACKAGE @ LINK'"
            )

    def apply_constraints(self) -> None:
        """Narrow the requirements that a constraints file is about, and note the other ones."""
        others = list[str]()
        for name, constraint in self.constraints.items():
            if name in self.by_name:
                self.by_name[name].specifier &= constraint.specifier
            else:
                others.append(str(constraint))
        if others:
            self.notes.append(
                f"constraints on what is not required itself ({', '.join(sorted(others))}): "
                "not adopted, as uv.lock pins every version"
            )
