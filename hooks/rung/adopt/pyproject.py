"""The project's pyproject.toml, with what the repository's own says and what is adopted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import tomlkit
from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array

from .detect import nested
from .indexes import PackageIndex
from .resolve import Choice, Unresolved

GROUP = "adopted"
GROUP_COMMENT = "What the existing code needs. Remove what nothing imports any more."
EXCLUDED_COMMENT = "existing code: remove entries as you clean them up"
# Tables of tools that build a package, or whose requirements were adopted.
REPLACED_TOOLS = ("poetry", "setuptools", "setuptools_scm", "hatch", "flit", "pdm", "pdm-build")
# The keys of [tool.uv] that say where packages come from; the others are about the package itself.
UV_KEYS = (
    "index",
    "index-strategy",
    "constraint-dependencies",
    "override-dependencies",
    "environments",
)
PROJECT_KEYS = ("authors", "maintainers", "keywords", "classifiers", "urls", "license", "version")
POETRY_KEYS = ("license", "version", "keywords")
POETRY_URLS = ("homepage", "repository", "documentation")
DROPPED_KEYS = ("scripts", "gui-scripts", "entry-points")
LOWER_BOUNDS = (">=", ">", "~=", "==")
NEWER_PYTHON = Version("3.12")  # the template's own floor is below


def merge_pyproject(
    ours: str,
    theirs: str,
    python: str,
    excluded: Mapping[str, Sequence[str]],
    choice: Choice,
) -> tuple[str, list[str]]:
    """Merge two pyproject.toml files.

    Args:
        ours: The rendered project's.
        theirs: The repository's, or an empty text.
        python: The Python that the repository requires, such as `>=3.12`.
        excluded: What ruff, mypy and pytest skip, by tool.
        choice: The adopted requirements, and where they are from.

    Returns:
        The merged text, and the tables of theirs that are not in it.
    """
    merged = tomlkit.parse(ours)
    own = tomlkit.parse(theirs)
    project: Any = merged["project"]
    tool: Any = merged["tool"]
    for key, value in project_keys(own).items():
        project[key] = value
    if floor := newer_python(python):
        project["requires-python"] = f">={floor}"
    if choice.requirements or choice.unresolved:
        add_requirements(merged, choice.requirements, choice.unresolved)
    # Imports of mlflow are not the project's own because of a folder mlflow/ at the top.
    tool["ruff"]["src"] = ["src"]
    extend_list(tool, "ruff", "extend-exclude", excluded.get("ruff", []))
    extend_list(tool, "mypy", "exclude", excluded.get("mypy", []))
    extend_list(tool, "pytest", "addopts", excluded.get("pytest", []))
    dropped = [f"project.{key}" for key in DROPPED_KEYS if key in nested(own, "project")]
    if "build-system" in own:
        dropped.append("build-system")
    for name, table in nested(own, "tool").items():
        if name == "uv":
            for key in UV_KEYS:
                if key in table:
                    tool["uv"][key] = table[key]
            add_sources(tool["uv"], nested(table, "sources"))
        elif name in tool or name in REPLACED_TOOLS:
            dropped.append(f"tool.{name}")
        else:
            tool[name] = table
    add_indexes(tool["uv"], choice.indexes)
    text = tomlkit.dumps(merged)
    if theirs and not is_toml(text):  # tomlkit cannot write some orders of tables
        text, _ = merge_pyproject(ours, "", python, excluded, choice)
        return text, [*own]
    return text, dropped


def project_keys(pyproject: Any) -> dict[str, Any]:
    """Return the keys of [project] that are adopted, from PEP 621 or from Poetry."""
    project = dict(nested(pyproject, "project"))
    if poetry := dict(nested(pyproject, "tool", "poetry")):
        project |= convert_poetry(poetry)
    keys = {key: project[key] for key in PROJECT_KEYS if key in project}
    try:
        if "license" in keys:
            canonicalize_license_expression(str(keys["license"]))
    except InvalidLicenseExpression:
        del keys["license"]
    try:
        Version(str(keys.get("version", "0")))
    except InvalidVersion:
        del keys["version"]
    classifiers = [
        item for item in keys.pop("classifiers", []) if not str(item).startswith("License")
    ]
    if classifiers:
        keys["classifiers"] = classifiers
    return keys


def convert_poetry(poetry: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata in [tool.poetry] as PEP 621 writes it."""
    project: dict[str, Any] = {
        key: [person(entry) for entry in poetry[key]]
        for key in ("authors", "maintainers")
        if key in poetry
    }
    urls = {key: poetry[key] for key in POETRY_URLS if key in poetry} | nested(poetry, "urls")
    if urls:
        project["urls"] = urls
    return project | {key: poetry[key] for key in POETRY_KEYS if key in poetry}


def person(text: Any) -> Any:
    """Return `NAME <ADDRESS>` as PEP 621 writes it."""
    match = re.fullmatch(r"\s*(.*?)\s*<(.*)>\s*", str(text))
    table = tomlkit.inline_table()
    table.update({"name": match[1], "email": match[2]} if match else {"name": str(text)})
    return table


def newer_python(python: str) -> str | None:
    """Return the oldest Python that a requirement allows, if it is newer than the template's."""
    python = re.sub(r"^[~^](?!=)", ">=", python.strip())  # Poetry's operators
    python = re.sub(r"^=(?!=)\s*([\d.]*\d).*", r"==\1.*", python)  # conda's
    try:
        lowest = [item.version for item in SpecifierSet(python) if item.operator in LOWER_BOUNDS]
    except InvalidSpecifier:
        return None
    floors = [version.removesuffix(".*") for version in lowest]
    return next((floor for floor in floors if Version(floor) >= NEWER_PYTHON), None)


def add_requirements(
    pyproject: Any, requirements: Sequence[Requirement], unresolved: Sequence[Unresolved]
) -> None:
    """Add the group of adopted requirements; those that could not be locked are comments."""
    lines = tomlkit.array()
    for line in sorted(map(str, requirements), key=str.lower):
        lines.add_line(line)
    for item in sorted(unresolved, key=lambda item: str(item.requirement).lower()):
        reason = item.reason.partition(":")[0]
        lines.add_line(comment=f"{item.requirement}  # {reason}")
    lines.add_line(indent="")
    groups = pyproject["dependency-groups"]
    groups.add(tomlkit.comment(GROUP_COMMENT))
    groups.add(GROUP, lines)
    groups.add(tomlkit.nl())
    pyproject["tool"]["uv"]["default-groups"].append(GROUP)


def add_sources(uv: Any, sources: Mapping[str, Any]) -> None:
    """Add where single requirements are from, except for those that are not adopted."""
    for name, source in sources.items():
        if not (isinstance(source, dict) and {"path", "workspace"} & {*source}):
            uv.setdefault("sources", tomlkit.table())[name] = source


def add_indexes(uv: Any, indexes: Sequence[PackageIndex]) -> None:
    """Add where packages come from to uv's table."""
    if pages := [index.url for index in indexes if index.kind == "find-links"]:
        uv["find-links"] = pages
    for number, index in enumerate(index for index in indexes if index.kind != "find-links"):
        table = tomlkit.table()
        taken = {str(known.get("name", "")) for known in uv.get("index", ())}
        table["name"] = index.name if index.name not in taken else f"{index.name}-{number + 1}"
        table["url"] = index.url
        if index.kind != "extra":
            table[index.kind] = True
        uv.setdefault("index", tomlkit.aot()).append(table)


def extend_list(tools: Any, tool: str, key: str, values: Sequence[str]) -> None:
    """Add values to a list in a tool's table."""
    if not values:
        return
    table = tools[tool]
    if key in table:
        for value in values:
            table[key].append(value)
        return
    lines: Array = tomlkit.array()
    lines.add_line(comment=EXCLUDED_COMMENT)
    for value in values:
        lines.add_line(value)
    lines.add_line(indent="")
    table.add(key, lines)


def is_toml(text: str) -> bool:
    """Check whether a text is valid TOML."""
    try:
        tomlkit.parse(text)
    except (TOMLKitError, ValueError):
        return False
    return True
