"""The requirements of a repository, from whichever file has them, as PEP 508 writes them."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import tomlkit
from packaging.markers import InvalidMarker, Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from .. import pip_config
from . import conda
from .detect import nested
from .files import is_inside, read_text, read_toml, read_yaml
from .indexes import PackageIndex, is_pypi, parse_index
from .notebooks import called_name

EGG = r"(?:-e\s+|--editable[= ])?((?:git|hg|svn)\+\S+?)#.*egg=([\w.-]+)"
SETUP_KEYWORDS = ("install_requires", "extras_require", "tests_require")
INDEX_OPTIONS = {
    "-i": "default",
    "--index-url": "default",
    "--extra-index-url": "extra",
    "-f": "find-links",
    "--find-links": "find-links",
}
PIP_KEYS = {option[2:]: kind for option, kind in INDEX_OPTIONS.items() if option[:2] == "--"}
# One of those that a project runs on.
PROJECT_PYTHON = {"python_version": "3.13", "python_full_version": "3.13.0"}
LOCAL_URL = r"(git\+)?file:|\.{0,2}/"
# Where the requirements of a whole repository are; elsewhere, they are of a part of it.
SHARED_FOLDERS = (".", "requirements", "requires", "reqs", "deps", "env", "envs", "conda", "src")
PIP_FILES = (
    r"(?i)(.*/)?([\w.-]*requirements?[\w.-]*|((dev|test|prod)[-_.])?reqs|pip|"
    r"(requirements?|requires|reqs|deps)/([\w.-]+/)*[\w.-]+)\.(txt|in)"
)
# By their folder alone; what is in them decides.
PERHAPS_PIP_FILES = r"(?i)(.*/)?(requirements?|requires|reqs|deps)/([\w.-]+/)*[\w.-]+\.(txt|in)"
CONDA_FILES = r"(.*/)?(environment|conda|env(?![a-z]))[\w.-]*\.ya?ml"
PIP_CONFIGS = ("pip.conf", "pip.ini")  # of the repository itself, which a person copies or names
PACKAGE_FILES = r"(.*/)?(setup\.py|setup\.cfg|pyproject\.toml|Pipfile)"


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


def collect(
    folder: Path, files: Sequence[str], imported: Collection[str] = ()
) -> CollectedRequirements:
    """Return the requirements of a repository.

    Args:
        folder: The repository.
        files: Its files, relative to it.
        imported: The top-level modules that its code imports.
    """
    collected = CollectedRequirements()
    add_pyproject(folder, collected)
    pip_files, conda_files, other_files = requirement_files(files)
    seen: set[str] = set()
    for file in pip_files:
        if is_requirements_file(folder, file):
            add_requirements_file(folder, file, collected, seen)
        else:
            other_files.append(file)
    add_setuptools(folder, collected, seen)
    for file in PIP_CONFIGS:
        for key, value in pip_config.values(read_text(folder, file), *PIP_KEYS):
            for url in value.split():
                collected.add_index(PIP_KEYS[key], url, file)
    add_pipfile(read_toml(folder, "Pipfile"), collected)
    for file in conda_files:
        add_conda_environment(folder, file, collected, seen, imported)
    add_setup_py(folder, collected, seen)
    add_setup_cfg(folder, collected, seen)
    for file in other_files:
        is_no_environment = re.fullmatch(CONDA_FILES, file) and "dependencies" not in read_yaml(
            folder, file
        )
        if file not in seen and not is_no_environment:
            collected.notes.append(f"{file}: {how_to_adopt(folder, file)}")
    collected.apply_constraints()
    return collected


def requirement_files(files: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Return pip's files and conda's that are about a whole repository, and those about a part.

    If none is about the whole, those nearest to the top count as such.
    """
    # What pip-compile made of a shorter list is left to uv.lock.
    pip_files = [
        file
        for file in sorted(files)
        if re.fullmatch(PIP_FILES, file)
        and file.removesuffix("txt") + "in" not in files
        and "constraint" not in file.lower()
    ]
    conda_files = [file for file in sorted(files) if re.fullmatch(CONDA_FILES, file)]
    package_files = [file for file in sorted(files) if re.fullmatch(PACKAGE_FILES, file)]
    parts = [file for file in package_files if "/" in file]
    both = [*pip_files, *conda_files]
    shared = {file for file in both if str(PurePosixPath(file).parent) in SHARED_FOLDERS}
    if both and not shared and package_files == parts:
        depth = min(file.count("/") for file in both)
        shared = {file for file in both if file.count("/") == depth}
    return (
        [file for file in pip_files if file in shared],
        [file for file in conda_files if file in shared],
        [file for file in (*both, *parts) if file not in shared],
    )


def is_requirements_file(folder: Path, file: str) -> bool:
    """Check whether a file has requirements, if its name alone does not say so."""
    if not re.fullmatch(PERHAPS_PIP_FILES, file) or "requirement" in PurePosixPath(file).name:
        return True
    text = re.sub(r"(?m)(^|\s)#.*", "", read_text(folder, file))
    start = r"-|\.|(\w+\+)?\w+:|[\w.-]+\s*($|[\[<>=!~@;\\])"
    return all(re.match(start, line.strip()) for line in text.splitlines() if line.strip())


def how_to_adopt(folder: Path, file: str) -> str:
    """Return why the requirements in a file of a repository stay where they are."""
    if not is_requirements_file(folder, file):
        return "is not a list of requirements, and was not read"
    part = PurePosixPath(file).parent
    if re.fullmatch(PIP_FILES, file):
        return f"is about {part}/ alone, and stays: uv add --group adopted -r {file} adopts it"
    return f"is about {part}/ alone, and stays as it is"


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


def add_requirements_file(
    folder: Path,
    file: str,
    collected: CollectedRequirements,
    seen: set[str],
    *,
    constraints: bool = False,
) -> None:
    """Add the lines of a pip requirements file, and of those that it includes.

    Args:
        folder: The repository.
        file: The path of the file in it.
        collected: What to add to.
        seen: Files that were read already.
        constraints: The file only says which versions may be installed.
    """
    if not is_inside(folder, file):
        collected.notes.append(f"{file}: is outside of the repository, and was not read")
        return
    name = (folder / file).resolve().relative_to(folder.resolve()).as_posix()
    if name in seen:
        return
    seen |= {name, file}
    if not (folder / file).is_file():
        collected.notes.append(f"{file}: there is no such file, though another one includes it")
    for line in re.sub(r"\\\r?\n", " ", read_text(folder, file)).splitlines():
        add_pip_line(folder, line, file, collected, seen, constraints=constraints)


def add_pip_line(
    folder: Path,
    raw_line: str,
    file: str,
    collected: CollectedRequirements,
    seen: set[str],
    *,
    constraints: bool = False,
) -> None:
    """Add a line of a pip requirements file, as `add_requirements_file` does."""
    line = re.sub(r"(^|\s)#.*", "", raw_line).strip()
    line = re.sub(r"\s--(hash|config-settings|global-option)[= ]\S+", "", line).strip()
    option = re.match(r"(--[\w-]+|-\w)[= ]?\s*(.*)", line)
    name, value = (option[1], option[2].strip()) if option else ("", "")
    included = PurePosixPath(file).parent / value
    if name in ("-r", "--requirement"):
        add_requirements_file(folder, included.as_posix(), collected, seen, constraints=constraints)
    elif name in ("-c", "--constraint"):
        add_requirements_file(folder, included.as_posix(), collected, seen, constraints=True)
    elif name in INDEX_OPTIONS:
        collected.add_index(INDEX_OPTIONS[name], value.strip("\"'"), file)
    elif egg := re.match(EGG, line):
        collected.add(f"{egg[2]} @ {egg[1]}", file)
    elif re.match(r"(-e|--editable)|\.{0,2}/|\.$", line):
        is_this_repository = re.fullmatch(r"(-e|--editable)?[= ]*\.(\[.*\])?", line)
        if not is_this_repository:
            collected.notes.append(f"{file}: {line!r} is a folder or an address: add it by hand")
    elif name:
        collected.notes.append(
            f"{file}: {line!r} is an option of pip: [tool.uv] may need its counterpart"
        )
    elif line and constraints:
        if constraint := collected.parse(line, file):
            collected.constraints.setdefault(canonicalize_name(constraint.name), constraint)
    elif line:
        collected.add(line, file)


def add_conda_environment(
    folder: Path,
    file: str,
    collected: CollectedRequirements,
    seen: set[str],
    imported: Collection[str],
) -> None:
    """Add the requirements of a conda environment that are packages of PyPI, too.

    Args:
        folder: The repository.
        file: The path of the environment in it.
        collected: What to add to.
        seen: Files that were read already.
        imported: The top-level modules that the repository's code imports.
    """
    environment = conda.read_environment(read_yaml(folder, file), imported)
    collected.has_cuda |= environment.has_cuda
    for line in environment.pip_lines:
        add_pip_line(folder, line, file, collected, seen)
    for line in environment.requirements:
        name = collected.add(line, file)
        if name and collected.files[name] == file:
            collected.from_conda.add(name)
    collected.notes += [f"{file}: {note}" for note in environment.notes]


def add_setup_py(folder: Path, collected: CollectedRequirements, seen: Collection[str]) -> None:
    """Add what a setup.py requires, as far as it stands there literally."""
    try:
        tree = ast.parse(read_text(folder, "setup.py"))
    except (SyntaxError, ValueError):
        return
    variables = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    reads_known_file = not texts.isdisjoint(seen)  # such as open("requirements.txt")
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or called_name(node) != "setup":
            continue
        for argument in node.keywords:
            value = argument.value
            if isinstance(value, ast.Name):
                value = variables.get(value.id, value)
            if argument.arg == "dependency_links":
                collected.note_links(literals(value), "setup.py")
            if argument.arg not in SETUP_KEYWORDS:
                continue
            for line in literals(value):
                collected.add(line, "setup.py")
            if not isinstance(value, ast.Dict | ast.List | ast.Tuple) and not reads_known_file:
                collected.notes.append(
                    f"setup.py: {argument.arg} is computed by {ast.unparse(value)[:60]}, which "
                    "adopt does not run: add what is missing with uv add --group adopted"
                )


def add_setup_cfg(folder: Path, collected: CollectedRequirements, seen: set[str]) -> None:
    """Add what a setup.cfg requires."""
    config = ConfigParser(interpolation=None)
    try:
        config.read_string(read_text(folder, "setup.cfg"))
    except ConfigError:
        return
    lists = [config.get("options", "install_requires", fallback="")]
    links = config.get("options", "dependency_links", fallback="")
    collected.note_links(links.split(), "setup.cfg")
    if config.has_section("options.extras_require"):
        lists += dict(config["options.extras_require"]).values()
    for lines in lists:
        for line in filter(None, map(str.strip, lines.splitlines())):
            if line.startswith("file:"):
                for file in re.split(r"[,\s]+", line.removeprefix("file:").strip()):
                    add_requirements_file(folder, file, collected, seen)
            else:
                collected.add(line, "setup.cfg")


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
