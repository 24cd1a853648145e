"""The files that pip reads, and those of conda, which may have lines for pip."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from packaging.utils import canonicalize_name

from ... import pip_config
from .. import conda
from ..files import is_inside, read_text, read_yaml
from .collected import CollectedRequirements

EGG = r"(?:-e\s+|--editable[= ])?((?:git|hg|svn)\+\S+?)#.*egg=([\w.-]+)"
INDEX_OPTIONS = {
    "-i": "default",
    "--index-url": "default",
    "--extra-index-url": "extra",
    "-f": "find-links",
    "--find-links": "find-links",
}
PIP_KEYS = {option[2:]: kind for option, kind in INDEX_OPTIONS.items() if option[:2] == "--"}
PIP_CONFIGS = ("pip.conf", "pip.ini")  # of the repository itself, which a person copies or names


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


def add_pip_config(folder: Path, collected: CollectedRequirements) -> None:
    """Add the indexes of pip's configuration, if the repository has one."""
    for file in PIP_CONFIGS:
        for key, value in pip_config.values(read_text(folder, file), *PIP_KEYS):
            for url in value.split():
                collected.add_index(PIP_KEYS[key], url, file)


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
