"""Tables of TOML: pyproject.toml as each tool writes it, uv.toml, and Pipfile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from ..detect import nested
from ..files import read_toml
from ..indexes import is_pypi
from .collected import CollectedRequirements
from .constraints import is_for_a_project, table_requirement
from .pip_files import INDEX_OPTIONS, add_pip_line, add_requirements_file


def add_pyproject(folder: Path, collected: CollectedRequirements) -> None:
    """Add what a pyproject.toml requires."""
    pyproject = read_toml(folder, "pyproject.toml")
    sources = nested(pyproject, "tool", "uv", "sources")
    local = {
        canonicalize_name(name): source
        for name, source in sources.items()
        if isinstance(source, dict) and {"path", "workspace"} & {*source}
    }
    for line in standard_requirements(pyproject):
        requirement = collected.parse(line, "pyproject.toml")
        if requirement is None:
            continue
        if source := local.get(canonicalize_name(requirement.name)):
            path = str(source.get("path", "the workspace"))
            collected.note_local(requirement.name, path, "pyproject.toml")
        else:
            collected.add(line, "pyproject.toml")
    add_poetry(nested(pyproject, "tool", "poetry"), collected)
    add_hatch(nested(pyproject, "tool", "hatch", "envs"), collected)
    add_pdm(folder, nested(pyproject, "tool", "pdm"), collected)
    add_uv_indexes(nested(pyproject, "tool", "uv"), "pyproject.toml", collected)
    settings = read_toml(folder, "uv.toml")
    add_uv_indexes(settings, "uv.toml", collected)
    for index in settings.get("index") or ():  # those of pyproject.toml are merged with it
        kind = next((key for key in ("default", "explicit") if index.get(key)), "extra")
        collected.add_index(kind, str(index.get("url", "")), "uv.toml")


def add_uv_indexes(table: dict[str, Any], file: str, collected: CollectedRequirements) -> None:
    """Add the indexes in older settings of uv, which are named as pip's options are."""
    for key in ("extra-index-url", "index-url", "find-links"):
        value = table.get(key) or []
        for url in [value] if isinstance(value, str) else value:
            collected.add_index(INDEX_OPTIONS[f"--{key}"], str(url), file)


def standard_requirements(pyproject: dict[str, Any]) -> Iterator[str]:
    """Yield the requirements of PEP 621, PEP 735 and uv."""
    project = nested(pyproject, "project")
    lists = [project.get("dependencies") or []]
    lists += nested(project, "optional-dependencies").values()
    lists.append(nested(pyproject, "tool", "uv", "dev-dependencies") or [])
    lists += nested(pyproject, "dependency-groups").values()
    for items in lists:
        yield from (item for item in items if isinstance(item, str))


def add_poetry(table: dict[str, Any], collected: CollectedRequirements) -> None:
    """Add what Poetry requires, in all its groups."""
    groups = [table, {"dependencies": nested(table, "dev-dependencies")}]
    groups += nested(table, "group").values()
    for group in groups:
        add_table(nested(group, "dependencies"), "pyproject.toml", collected)
    for source in table.get("source") or ():
        is_default = source.get("default") or source.get("priority") in ("primary", "default")
        kind = "default" if is_default else "extra"
        collected.add_index(kind, str(source.get("url", "")), "pyproject.toml")


def add_hatch(environments: dict[str, Any], collected: CollectedRequirements) -> None:
    """Add what the environments of Hatch require."""
    for environment in environments.values():
        for key in ("dependencies", "extra-dependencies"):
            for line in nested(environment, key) or ():
                collected.add(str(line), "pyproject.toml")


def add_pdm(folder: Path, table: dict[str, Any], collected: CollectedRequirements) -> None:
    """Add what PDM requires, and where it is from."""
    for lines in nested(table, "dev-dependencies").values():
        for line in lines:
            add_pip_line(folder, str(line), "pyproject.toml", collected, set())
    for source in table.get("source") or ():
        kind = "default" if source.get("name") == "pypi" else "extra"
        if source.get("type") == "find_links":
            kind = "find-links"
        collected.add_index(kind, str(source.get("url", "")), "pyproject.toml")


def add_setuptools(folder: Path, collected: CollectedRequirements, seen: set[str]) -> None:
    """Add the files from which setuptools takes requirements, as a pyproject.toml names them."""
    dynamic = nested(read_toml(folder, "pyproject.toml"), "tool", "setuptools", "dynamic")
    for entry in (
        nested(dynamic, "dependencies"),
        *nested(dynamic, "optional-dependencies").values(),
    ):
        files = nested(entry, "file") or []
        for file in [files] if isinstance(files, str) else files:
            add_requirements_file(folder, str(file), collected, seen)


def add_pipfile(table: dict[str, Any], collected: CollectedRequirements) -> None:
    """Add what a Pipfile requires."""
    for packages in ("packages", "dev-packages"):
        add_table(nested(table, packages), "Pipfile", collected)
    sources = [str(source.get("url", "")) for source in table.get("source") or ()]
    for url in sources:
        uses_pypi = any(is_pypi(source) for source in sources)
        collected.add_index("extra" if uses_pypi else "default", url, "Pipfile")


def add_table(table: dict[str, Any], file: str, collected: CollectedRequirements) -> None:
    """Add the requirements of a table, as Poetry and Pipenv write them."""
    for name, value in table.items():
        if name.lower() == "python":
            continue
        if isinstance(value, list):
            chosen = next((item for item in value if is_for_a_project(item)), value[0])
            place = "first" if chosen is value[0] else "one for a Python of today"
            collected.notes.append(
                f"{file}: {name} has several constraints, and the {place} was adopted"
            )
            value = chosen
        options = value if isinstance(value, dict) else {"version": value}
        if "path" in options or "file" in options:
            collected.notes.append(f"{file}: {name} is a local file, and was not adopted")
        else:
            collected.add(table_requirement(name, options), file)
