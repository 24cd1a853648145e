"""The requirements of a repository, from whichever file has them."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from ..files import read_toml, read_yaml
from .collected import CollectedRequirements
from .find import CONDA_FILES, how_to_adopt, is_requirements_file, requirement_files
from .pip_files import add_conda_environment, add_pip_config, add_requirements_file
from .setup_files import add_setup_cfg, add_setup_py
from .tables import add_pipfile, add_pyproject, add_setuptools


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
    add_pip_config(folder, collected)
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
