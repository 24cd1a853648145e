"""The project's pyproject.toml, with what a repository's own says and what is carried."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import tomlkit
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array

from .guess import dig

GROUP = "adopted"
# Tables of tools that build a package, or whose requirements were carried.
CONVERTED = ("poetry", "setuptools", "setuptools_scm", "hatch", "flit", "pdm", "pdm-build")
# Of [tool.uv], what says where packages are from; the rest is about the package itself.
SOURCES = ("sources", "index", "constraint-dependencies", "override-dependencies", "environments")
KEPT = ("authors", "maintainers", "keywords", "classifiers", "urls", "license", "version")


def merged(
    ours: str,
    theirs: str,
    python: str,
    left_out: dict[str, list[str]],
    kept: Sequence[Requirement],
    left: Sequence[Requirement],
) -> tuple[str, list[str]]:
    """Give the template's pyproject.toml with what is theirs.

    Args:
        ours: The template's, rendered.
        theirs: Theirs, or an empty text.
        python: What theirs asks of Python, such as `>=3.12`.
        left_out: What ruff, mypy and pytest leave alone.
        kept: Requirements of theirs.
        left: Those that could not be locked.

    Returns:
        The text, and the tables of theirs that are not in it.
    """
    made, own = tomlkit.parse(ours), tomlkit.parse(theirs)
    project, tool = made["project"], made["tool"]
    for key, value in about(own).items():
        project[key] = value
    if floor := higher(python):
        project["requires-python"] = f">={floor}"
    if kept or left:
        adopt(made, kept, left)
    extend(tool, ("ruff", "extend-exclude"), left_out.get("ruff", []))
    extend(tool, ("mypy", "exclude"), left_out.get("mypy", []))
    extend(tool, ("pytest", "addopts"), left_out.get("pytest", []))
    dropped = [
        key for key in ("scripts", "gui-scripts", "entry-points") if key in dig(own, "project")
    ]
    dropped = [f"project.{key}" for key in dropped] + ["build-system"] * ("build-system" in own)
    for name, table in dig(own, "tool").items():
        if name == "uv":
            for key in [key for key in table if key in SOURCES]:
                tool["uv"][key] = table[key]
        elif name in tool or name in CONVERTED:
            dropped.append(f"tool.{name}")
        else:
            tool[name] = table
    text = tomlkit.dumps(made)
    if theirs and not readable(text):  # an order of tables that tomlkit cannot write
        return merged(ours, "", python, left_out, kept, left)[0], [*own]
    return text, dropped


def about(own: Any) -> dict[str, Any]:
    """Give the keys of [project] that are carried, from PEP 621 or from Poetry."""
    project = dict(dig(own, "project"))
    if poetry := dict(dig(own, "tool", "poetry")):
        people = {key: poetry[key] for key in ("authors", "maintainers") if key in poetry}
        project |= {key: [person(one) for one in said] for key, said in people.items()}
        names = ("homepage", "repository", "documentation")
        urls = {name: poetry[name] for name in names if name in poetry} | dig(poetry, "urls")
        project |= {"urls": urls} if urls else {}
        project |= {k: poetry[k] for k in ("license", "version", "keywords") if k in poetry}
    found = {key: project[key] for key in KEPT if key in project}
    try:
        if "license" in found:
            canonicalize_license_expression(str(found["license"]))
    except InvalidLicenseExpression:
        del found["license"]
    try:
        Version(str(found.get("version", "0")))
    except InvalidVersion:
        del found["version"]
    classifiers = [c for c in found.pop("classifiers", []) if not str(c).startswith("License")]
    return found | ({"classifiers": classifiers} if classifiers else {})


def person(said: Any) -> Any:
    """Give name and address as PEP 621 has them."""
    found = re.fullmatch(r"\s*(.*?)\s*<(.*)>\s*", str(said))
    made = tomlkit.inline_table()
    made.update({"name": found[1], "email": found[2]} if found else {"name": str(said)})
    return made


def higher(python: str) -> str | None:
    """Give the oldest Python that is asked for, if it is newer than what the template asks for."""
    python = re.sub(r"^[~^](?!=)", ">=", python)  # Poetry's
    try:
        lowest = [s.version for s in SpecifierSet(python) if s.operator in (">=", "~=", "==")]
    except InvalidSpecifier:
        return None
    floors = [re.sub(r"\.\*$", "", version) for version in lowest]
    return next((floor for floor in floors if Version(floor) >= Version("3.12")), None)


def adopt(made: Any, kept: Sequence[Requirement], left: Sequence[Requirement]) -> None:
    """Add the group of carried requirements."""
    listed = tomlkit.array()
    for one in sorted(map(str, kept), key=str.lower):
        listed.add_line(one)
    for one in sorted(map(str, left), key=str.lower):
        listed.add_line(comment=f"{one}  # no version of it goes together with the others")
    listed.add_line(indent="")
    groups = made["dependency-groups"]
    groups.add(
        tomlkit.comment("What the code from before needs. Take out what nothing imports any more.")
    )
    groups.add(GROUP, listed)
    groups.add(tomlkit.nl())
    made["tool"]["uv"]["default-groups"].append(GROUP)


def extend(tool: Any, keys: tuple[str, str], values: Sequence[str]) -> None:
    """Add values to a tool's list."""
    if not values:
        return
    table, key = tool[keys[0]], keys[1]
    if key in table:
        for value in values:
            table[key].append(value)
        return
    listed: Array = tomlkit.array()
    listed.add_line(comment="from before: take out what you have tidied")
    for value in values:
        listed.add_line(value)
    listed.add_line(indent="")
    table.add(key, listed)


def readable(text: str) -> bool:
    """Tell whether a text is TOML."""
    try:
        tomlkit.parse(text)
    except (TOMLKitError, ValueError):
        return False
    return True
