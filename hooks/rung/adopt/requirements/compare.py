"""Requirements that are declared, beside those that a project needs."""

from __future__ import annotations

import tomlkit
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .tables import standard_requirements


def declared_requirements(pyproject: str) -> dict[str, Requirement]:
    """Return the requirements of a pyproject.toml, by name."""
    content = tomlkit.parse(pyproject).unwrap()
    requirements = map(Requirement, standard_requirements(content))
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def are_compatible(theirs: Requirement, ours: Requirement) -> bool:
    """Check whether some version satisfies both requirements; ours has only a floor."""
    floors = [Version(item.version) for item in ours.specifier if item.operator == ">="]
    pins = [
        Version(item.version.removesuffix(".*"))
        for item in theirs.specifier
        if item.operator in ("==", "~=")
    ]
    candidates = [*floors, Version("99999"), *pins]
    return any(
        theirs.specifier.contains(version, prereleases=True)
        and ours.specifier.contains(version, prereleases=True)
        for version in candidates
    )
