"""The requirements of a repository, from whichever file has them, as PEP 508 writes them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .detect import CONDA_FILES, nested, read_toml, read_yaml
from .notebooks import called_name, read_text

# Names that differ on the Python Package Index.
PYPI_NAMES = {
    "sklearn": "scikit-learn",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "py-xgboost": "xgboost",
    "matplotlib-base": "matplotlib",
    "tensorflow-gpu": "tensorflow",
    "opencv": "opencv-python",
    "msgpack-python": "msgpack",
}
# What conda installs that is not a Python package.
NOT_PYTHON = (
    r"python|pip|setuptools|wheel|cuda.*|mkl|(open|lib)?blas.*|nodejs|gcc.*|gxx.*|make|r-.*|_.*"
)
EGG = r"(?:-e\s+|--editable[= ])?((?:git|hg|svn)\+\S+?)#.*egg=([\w.-]+)"
SETUP_KEYWORDS = ("install_requires", "extras_require", "tests_require")


@dataclass
class CollectedRequirements:
    """Requirements by name, the file that each is from, and notes on what is not adopted."""

    by_name: dict[str, Requirement] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, line: str, file: str) -> None:
        """Add a requirement; of two with the same name, the one with a version, or the first."""
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            self.notes.append(f"{file}: {line!r} is not a valid requirement, and was not adopted")
            return
        if requirement.url and requirement.url.startswith("file:"):  # as conda's pip freeze writes
            self.notes.append(
                f"{file}: {requirement.name} came from a file ({requirement.url}): "
                "any version is accepted"
            )
            requirement.url = None
        canonical = canonicalize_name(requirement.name)
        requirement.name = PYPI_NAMES.get(canonical, requirement.name)
        name = canonicalize_name(requirement.name)
        known = self.by_name.get(name)
        is_bare = known is not None and not known.specifier and not known.url
        if known is None or (is_bare and requirement.specifier):
            self.by_name[name] = requirement
            self.files[name] = file


def collect(folder: Path, files: list[str]) -> CollectedRequirements:
    """Return the requirements of a repository.

    Args:
        folder: The repository.
        files: Its files, relative to it.
    """
    collected = CollectedRequirements()
    pyproject = read_toml(folder / "pyproject.toml")
    for line in standard_requirements(pyproject):
        collected.add(line, "pyproject.toml")
    add_poetry(nested(pyproject, "tool", "poetry"), collected)
    seen: set[Path] = set()
    for file in sorted(files):
        if not re.fullmatch(r"(requirements/)?[\w.-]*\.(txt|in)", file):
            continue
        # What pip-compile made of a shorter list is left to uv.lock.
        is_compiled = file.removesuffix("txt") + "in" in files
        if "requirements" in file and not is_compiled:
            add_requirements_file(folder, file, collected, seen)
    pipfile = read_toml(folder / "Pipfile")
    for table in ("packages", "dev-packages"):
        add_table(nested(pipfile, table), "Pipfile", collected)
    for file in (*CONDA_FILES, "conda.yml", "conda.yaml"):
        add_conda_environment(read_yaml(folder / file), file, collected)
    for line in (*setup_py_requirements(folder), *setup_cfg_requirements(folder)):
        collected.add(line, "setup.py or setup.cfg")
    return collected


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


def add_table(table: dict[str, Any], file: str, collected: CollectedRequirements) -> None:
    """Add the requirements of a table, as Poetry and Pipenv write them."""
    for name, value in table.items():
        if name.lower() == "python":
            continue
        if isinstance(value, list):
            collected.notes.append(
                f"{file}: {name} has several constraints, and the first was adopted"
            )
            value = value[0]
        options = value if isinstance(value, dict) else {"version": value}
        if "path" in options or "file" in options:
            collected.notes.append(f"{file}: {name} is a local file, and was not adopted")
        else:
            collected.add(table_requirement(name, options), file)


def table_requirement(name: str, options: dict[str, Any]) -> str:
    """Return a requirement of Poetry or Pipenv as PEP 508 writes it."""
    extras = f"[{','.join(options['extras'])}]" if options.get("extras") else ""
    marker = f"; {options['markers']}" if options.get("markers") else ""
    url = options.get("git")
    if not url:
        return f"{name}{extras}{standard_constraint(str(options.get('version', '*')))}{marker}"
    refs = (options.get(key) for key in ("rev", "tag", "branch", "ref"))
    ref = next((f"@{ref}" for ref in refs if ref), "")
    return f"{name}{extras} @ git+{url}{ref}{marker and f' {marker}'}"


def standard_constraint(constraint: str) -> str:
    """Return a version constraint of Poetry (^1.2, ~1.2, 1.2.*, 1.2) as PEP 440 writes it."""
    parts = []
    for part in re.split(r"\s*,\s*|\s+(?=[<>=!~^])", constraint.strip()):
        match = re.fullmatch(r"([\^~<>=!]*)\s*(.*)", part, re.DOTALL)
        if match is None or match[2] in ("*", ""):
            continue
        operator, version = match.groups()
        if operator in ("^", "~"):
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


def add_requirements_file(
    folder: Path, file: str, collected: CollectedRequirements, seen: set[Path]
) -> None:
    """Add the lines of a pip requirements file, and of those that it includes.

    Args:
        folder: The repository.
        file: The path of the file in it.
        collected: What to add to.
        seen: Files that were read already.
    """
    path = (folder / file).resolve()
    if path in seen:
        return
    seen.add(path)
    for raw_line in re.sub(r"\\\r?\n", " ", read_text(path)).splitlines():
        line = re.sub(r"(^|\s)#.*", "", raw_line).strip()
        line = re.sub(r"\s--(hash|config-settings|global-option)[= ]\S+", "", line).strip()
        if include := re.match(r"(?:-r|--requirement)[= ]\s*(.+)", line):
            included = Path(file).parent / include[1].strip()
            add_requirements_file(folder, included.as_posix(), collected, seen)
        elif egg := re.match(EGG, line):
            collected.add(f"{egg[2]} @ {egg[1]}", file)
        elif re.match(r"(-e|--editable)|\.{0,2}/|\.$", line):
            is_this_repository = re.fullmatch(r"(-e|--editable)?[= ]*\.(\[.*\])?", line)
            if not is_this_repository:
                collected.notes.append(
                    f"{file}: {line!r} is a folder or an address: add it by hand"
                )
        elif line.startswith("-"):
            collected.notes.append(
                f"{file}: {line!r} is an option of pip: [tool.uv] may need its counterpart"
            )
        elif line:
            collected.add(line, file)


def add_conda_environment(
    table: dict[str, Any], file: str, collected: CollectedRequirements
) -> None:
    """Add the requirements of a conda environment."""
    for item in table.get("dependencies") or ():
        if isinstance(item, dict):
            lines = [str(line) for line in item.get("pip") or ()]
            for line in lines:
                if not line.startswith("-"):
                    collected.add(line, file)
            continue
        match = re.fullmatch(r"(?:[\w./-]+::)?([\w.-]+)(?:\[.*\])?\s*(.*)", str(item).strip())
        if match and not re.fullmatch(NOT_PYTHON, match[1]):
            version = re.sub(r"\s+", "", match[2])
            collected.add(f"{match[1]}{conda_constraint(version)}", file)


def conda_constraint(version: str) -> str:
    """Return a version of conda (=1.2, ==1.2=build, 1.2.*) as PEP 440 writes it."""
    if exact := re.fullmatch(r"==([^=<>,|]+)(=.*)?", version):
        return f"=={exact[1]}"
    if pinned := re.fullmatch(r"=?([^=<>!~,|]+?)(\.?\*)?(=.*)?", version):
        return f"=={pinned[1]}.*" if pinned[1] != "*" else ""
    return version


def setup_py_requirements(folder: Path) -> Iterator[str]:
    """Yield what a setup.py requires, as far as it stands there literally."""
    try:
        tree = ast.parse(read_text(folder / "setup.py"))
    except (SyntaxError, ValueError):
        return
    variables = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or called_name(node) != "setup":
            continue
        for argument in node.keywords:
            value = argument.value
            if isinstance(value, ast.Name):
                value = variables.get(value.id, value)
            if argument.arg in SETUP_KEYWORDS:
                yield from literals(value)


def setup_cfg_requirements(folder: Path) -> Iterator[str]:
    """Yield what a setup.cfg requires."""
    config = ConfigParser(interpolation=None)
    try:
        config.read_string(read_text(folder / "setup.cfg"))
    except ConfigError:
        return
    lists = [config.get("options", "install_requires", fallback="")]
    if config.has_section("options.extras_require"):
        lists += dict(config["options.extras_require"]).values()
    for lines in lists:
        yield from (line.strip() for line in lines.splitlines() if line.strip())


def literals(node: ast.AST) -> Iterator[str]:
    """Yield the texts in a list, or in the lists of a dictionary."""
    if isinstance(node, ast.Dict):
        for value in node.values:
            yield from literals(value)
    elif isinstance(node, ast.List | ast.Tuple):
        for element in node.elts:
            yield from literals(element)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


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
