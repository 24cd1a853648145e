"""Versions and conditions of Poetry and Pipenv as PEP 440 and PEP 508 write them."""

from __future__ import annotations

import re
from typing import Any

from packaging.markers import InvalidMarker, Marker

# One of those that a project runs on.
PROJECT_PYTHON = {"python_version": "3.13", "python_full_version": "3.13.0"}


def table_requirement(name: str, options: dict[str, Any]) -> str:
    """Return a requirement of Poetry or Pipenv as PEP 508 writes it."""
    extras = f"[{','.join(options['extras'])}]" if options.get("extras") else ""
    conditions = [f"({options['markers']})"] if options.get("markers") else []
    conditions += python_conditions(str(options.get("python", "*")))
    if options.get("platform"):
        conditions.append(f"sys_platform == '{options['platform']}'")
    marker = f"; {' and '.join(conditions)}" if conditions else ""
    url = options.get("git")
    if not url and options.get("url"):
        return f"{name}{extras} @ {options['url']}{marker and f' {marker}'}"
    if not url:
        return f"{name}{extras}{standard_constraint(str(options.get('version', '*')))}{marker}"
    refs = (options.get(key) for key in ("rev", "tag", "branch", "ref"))
    ref = next((f"@{ref}" for ref in refs if ref), "")
    return f"{name}{extras} @ git+{url}{ref}{marker and f' {marker}'}"


def python_conditions(constraint: str) -> list[str]:
    """Return for which Python a requirement of Poetry is, as PEP 508 writes it; none for all."""
    alternatives = []
    for alternative in re.split(r"\s*\|\|?\s*", constraint):
        conditions = []
        for part in filter(None, standard_constraint(alternative).split(",")):
            match = re.fullmatch(r"([<>=!~]+)(.*)", part)
            operator, version = match.groups() if match else ("==", part)
            is_short = version.count(".") < 2 or version.endswith(".*")
            variable = "python_version" if is_short else "python_full_version"
            conditions.append(f"{variable} {operator} '{version}'")
        alternatives.append(" and ".join(conditions))
    return [f"({' or '.join(alternatives)})"] if all(alternatives) else []


def is_for_a_project(options: Any) -> bool:
    """Check whether a requirement of Poetry is for a Python that a project may have."""
    constraint = options.get("python", "*") if isinstance(options, dict) else "*"
    try:
        markers = [Marker(condition) for condition in python_conditions(str(constraint))]
    except InvalidMarker:
        return False
    return all(marker.evaluate(PROJECT_PYTHON) for marker in markers)


def standard_constraint(constraint: str) -> str:
    """Return a version constraint of Poetry (^1.2, ~1.2, 1.2.*, 1.2) as PEP 440 writes it."""
    parts = []
    for part in re.split(r"\s*,\s*|\s+(?=[<>=!~^])", constraint.strip()):
        match = re.fullmatch(r"([\^~<>=!]*)\s*(.*)", part, re.DOTALL)
        if match is None or match[2] in ("*", ""):
            continue
        operator, version = match.groups()
        if operator in ("^", "~") and re.match(r"\d", version):
            parts.append(f">={version},<{upper_bound(operator, version)}")
        elif operator in ("", "="):
            parts.append(f"=={version}")
        else:
            parts.append(f"{operator}{version}")
    return ",".join(parts)


def upper_bound(operator: str, version: str) -> str:
    """Return the first version that ^VERSION or ~VERSION excludes.

    A caret fixes the parts up to the first that is not 0, a tilde the first two.
    """
    release = [int(number) for number in re.findall(r"\d+", version.split("-")[0])]
    if operator == "~":
        fixed = min(len(release), 2)
    else:
        fixed = next((n for n, number in enumerate(release, 1) if number), len(release))
    return ".".join(map(str, [*release[: fixed - 1], release[fixed - 1] + 1]))
