"""Which files of a repository have requirements, and which of these are about all of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ..files import read_text

# Where the requirements of a whole repository are; elsewhere, they are of a part of it.
SHARED_FOLDERS = (".", "requirements", "requires", "reqs", "deps", "env", "envs", "conda", "src")
PIP_FILES = (
    r"(?i)(.*/)?([\w.-]*requirements?[\w.-]*|((dev|test|prod)[-_.])?reqs|pip|"
    r"(requirements?|requires|reqs|deps)/([\w.-]+/)*[\w.-]+)\.(txt|in)"
)
# By their folder alone; what is in them decides.
PERHAPS_PIP_FILES = r"(?i)(.*/)?(requirements?|requires|reqs|deps)/([\w.-]+/)*[\w.-]+\.(txt|in)"
CONDA_FILES = r"(.*/)?(environment|conda|env(?![a-z]))[\w.-]*\.ya?ml"
PACKAGE_FILES = r"(.*/)?(setup\.py|setup\.cfg|pyproject\.toml|Pipfile)"


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
