"""Requirements, from whichever file they are in, as PEP 508 has them."""

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

from .guess import conda, dig, toml
from .notebooks import called, text

# Names that are others on the Python Package Index, and what conda has that is no Python package.
RENAMED = {
    "sklearn": "scikit-learn",
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "py-xgboost": "xgboost",
    "matplotlib-base": "matplotlib",
    "tensorflow-gpu": "tensorflow",
    "opencv": "opencv-python",
    "msgpack-python": "msgpack",
}
OTHER = r"python|pip|setuptools|wheel|cuda.*|mkl|(open|lib)?blas.*|nodejs|gcc.*|gxx.*|make|r-.*|_.*"
EGG = r"(?:-e\s+|--editable[= ])?((?:git|hg|svn)\+\S+?)#.*egg=([\w.-]+)"


@dataclass
class Carried:
    """Requirements by their names, the file that each is from, and what was not understood."""

    found: dict[str, Requirement] = field(default_factory=dict)
    source: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, said: str, file: str) -> None:
        """Take a requirement; of two of a name, the one that says more, or the first."""
        try:
            wanted = Requirement(said)
        except InvalidRequirement:
            self.notes.append(f"{file}: {said!r} is not understood, and not carried")
            return
        if wanted.url and wanted.url.startswith("file:"):  # conda's pip freeze has these
            self.notes.append(f"{file}: {wanted.name} was of a file ({wanted.url}): any version")
            wanted.url = None
        wanted.name = RENAMED.get(canonicalize_name(wanted.name), wanted.name)
        name = canonicalize_name(wanted.name)
        known = self.found.get(name)
        if known is None or (not str(known.specifier) + (known.url or "") and wanted.specifier):
            self.found[name], self.source[name] = wanted, file


def requirements(folder: Path, files: list[str]) -> Carried:
    """Collect the requirements of a repository."""
    carried = Carried()
    pyproject = toml(folder / "pyproject.toml")
    for said in standard(pyproject):
        carried.add(said, "pyproject.toml")
    for said in poetry(dig(pyproject, "tool", "poetry"), carried):
        carried.add(said, "pyproject.toml")
    seen: set[Path] = set()
    for file in sorted(f for f in files if re.fullmatch(r"(requirements/)?[\w.-]*\.(txt|in)", f)):
        # What pip-compile made of a shorter list is left to uv.lock.
        if "requirements" in file and file.removesuffix("txt") + "in" not in files:
            pip(folder, file, carried, seen)
    pipfile = toml(folder / "Pipfile")
    for table in ("packages", "dev-packages"):
        for said in tabled(dig(pipfile, table), "Pipfile", carried):
            carried.add(said, "Pipfile")
    for file in ("environment.yml", "environment.yaml", "conda.yml", "conda.yaml"):
        environment(conda(folder / file), file, carried)
    for said in setup(folder):
        carried.add(said, "setup.py or setup.cfg")
    return carried


def standard(pyproject: dict[str, Any]) -> Iterator[str]:
    """Give the requirements that PEP 621 and PEP 735 know."""
    project = dig(pyproject, "project")
    lists = [project.get("dependencies") or [], *dig(project, "optional-dependencies").values()]
    lists.append(dig(pyproject, "tool", "uv", "dev-dependencies") or [])
    for listed in (*lists, *dig(pyproject, "dependency-groups").values()):
        yield from (said for said in listed if isinstance(said, str))


def poetry(table: dict[str, Any], carried: Carried) -> Iterator[str]:
    """Give what Poetry requires, in all its groups."""
    groups = [table, {"dependencies": dig(table, "dev-dependencies")}]
    groups += dig(table, "group").values()
    for group in groups:
        yield from tabled(dig(group, "dependencies"), "pyproject.toml", carried)


def tabled(table: dict[str, Any], file: str, carried: Carried) -> Iterator[str]:
    """Give the requirements of a table, as Poetry and Pipenv write them."""
    for name, value in table.items():
        if name.lower() == "python":
            continue
        said = value
        if isinstance(said, list):
            carried.notes.append(f"{file}: {name} has several constraints, the first is carried")
            said = said[0]
        about = said if isinstance(said, dict) else {"version": said}
        if "path" in about or "file" in about:
            carried.notes.append(f"{file}: {name} is a file of yours, and not carried")
            continue
        extras = f"[{','.join(about['extras'])}]" if about.get("extras") else ""
        marker = f"; {about['markers']}" if about.get("markers") else ""
        if url := about.get("git"):
            ref = about.get("rev") or about.get("tag") or about.get("branch") or about.get("ref")
            yield f"{name}{extras} @ git+{url}{f'@{ref}' if ref else ''}{marker and f' {marker}'}"
        else:
            yield f"{name}{extras}{caret(str(about.get('version', '*')))}{marker}"


def caret(said: str) -> str:
    """Give PEP 440's words for a version as Poetry writes it: ^1.2, ~1.2, 1.2.*, 1.2."""
    parts = []
    for part in re.split(r"\s*,\s*|\s+(?=[<>=!~^])", said.strip()):
        sign, number = re.fullmatch(r"([\^~<>=!]*)\s*(.*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
        if number in ("*", ""):
            continue
        if sign in ("^", "~"):
            release = [int(n) for n in re.findall(r"\d+", number.split("-")[0])]
            kept = 1 if sign == "~" and len(release) == 1 else 2 if sign == "~" else 1
            if sign == "^":
                kept = next((n for n, r in enumerate(release, 1) if r), len(release))
            top = [*release[: kept - 1], release[kept - 1] + 1]
            parts.append(f">={number},<{'.'.join(map(str, top))}")
        elif sign in ("", "="):
            parts.append(f"=={number}")
        else:
            parts.append(f"{sign}{number}")
    return ",".join(parts)


def pip(folder: Path, file: str, carried: Carried, seen: set[Path]) -> None:
    """Read a requirements file, and those that it includes."""
    path = (folder / file).resolve()
    if path in seen:
        return
    seen.add(path)
    lines = re.sub(r"\\\r?\n", " ", text(path)).splitlines()
    for line in lines:
        line = re.sub(r"(^|\s)#.*", "", line).strip()
        line = re.sub(r"\s--(hash|config-settings|global-option)[= ]\S+", "", line).strip()
        include = re.match(r"(?:-r|--requirement)[= ]\s*(.+)", line)
        if include:
            other = Path(file).parent / include[1].strip()
            pip(folder, other.as_posix(), carried, seen)
        elif egg := re.match(EGG, line):
            carried.add(f"{egg[2]} @ {egg[1]}", file)
        elif re.match(r"(-e|--editable)|\.{0,2}/|\.$", line):
            if not re.fullmatch(r"(-e|--editable)?[= ]*\.(\[.*\])?", line):
                carried.notes.append(f"{file}: {line!r} is a folder or an address: add it by hand")
        elif line.startswith("-"):
            carried.notes.append(f"{file}: the option {line!r} is pip's: [tool.uv] may need it")
        elif line:
            carried.add(line, file)


def environment(table: dict[str, Any], file: str, carried: Carried) -> None:
    """Read the requirements of a conda environment."""
    for said in table.get("dependencies") or ():
        if isinstance(said, dict):
            for line in said.get("pip") or ():
                if not str(line).startswith("-"):
                    carried.add(str(line), file)
            continue
        found = re.fullmatch(r"(?:[\w./-]+::)?([\w.-]+)(?:\[.*\])?\s*(.*)", str(said).strip())
        if found is None or re.fullmatch(OTHER, found[1]):
            continue
        version = re.sub(r"\s+", "", found[2])
        if exact := re.fullmatch(r"==([^=<>,|]+)(=.*)?", version):
            version = f"=={exact[1]}"
        elif pinned := re.fullmatch(r"=?([^=<>!~,|]+?)(\.?\*)?(=.*)?", version):
            version = f"=={pinned[1]}.*" if pinned[1] != "*" else ""
        carried.add(f"{found[1]}{version}", file)


def setup(folder: Path) -> Iterator[str]:
    """Give what setup.py or setup.cfg requires, as far as it stands there literally."""
    try:
        tree = ast.parse(text(folder / "setup.py"))
    except (SyntaxError, ValueError):
        tree = ast.Module([], [])
    values = {
        t.id: n.value
        for n in ast.walk(tree)
        if isinstance(n, ast.Assign)
        for t in n.targets
        if isinstance(t, ast.Name)
    }
    for call in (n for n in ast.walk(tree) if isinstance(n, ast.Call) and called(n) == "setup"):
        for keyword in call.keywords:
            value = keyword.value
            value = values.get(value.id, value) if isinstance(value, ast.Name) else value
            if keyword.arg in ("install_requires", "extras_require", "tests_require"):
                yield from literals(value)
    config = ConfigParser(interpolation=None)
    try:
        config.read_string(text(folder / "setup.cfg"))
    except ConfigError:
        return
    lists = [config.get("options", "install_requires", fallback="")]
    if config.has_section("options.extras_require"):
        lists += dict(config["options.extras_require"]).values()
    for listed in lists:
        yield from (line.strip() for line in listed.splitlines() if line.strip())


def literals(node: ast.AST) -> Iterator[str]:
    """Give the texts in a list, or in the lists of a dictionary."""
    if isinstance(node, ast.Dict):
        for value in node.values:
            yield from literals(value)
    elif isinstance(node, ast.List | ast.Tuple):
        for element in node.elts:
            yield from literals(element)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def known(pyproject: str) -> dict[str, Requirement]:
    """Give the requirements of a pyproject.toml by their names."""
    read = tomlkit.parse(pyproject).unwrap()
    return {canonicalize_name(r.name): r for r in map(Requirement, standard(read))}


def together(theirs: Requirement, ours: Requirement) -> bool:
    """Tell whether a version can satisfy both; ours has a floor only."""
    floors = [Version(s.version) for s in ours.specifier if s.operator == ">="]
    pins = [s.version.removesuffix(".*") for s in theirs.specifier if s.operator in ("==", "~=")]
    tried = [*floors, Version("99999"), *map(Version, pins)]
    return any(
        theirs.specifier.contains(v, prereleases=True)
        and ours.specifier.contains(v, prereleases=True)
        for v in tried
    )
