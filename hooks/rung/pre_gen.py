"""Before a project is rendered: is everything there that it needs?

`python -m rung.pre_gen FOLDER` checks it, and changes nothing.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from .console import bullets, exit_code
from .exceptions import UsageError
from .process import is_installed, run

# The oldest versions that Copier and a project work with.
MINIMUM_VERSIONS = {"git": (2, 27), "uv": (0, 9), "make": (3, 81)}
PYTHON = ">=3.11"


def program_problems() -> list[str]:
    """Return a sentence for each program that is missing or too old."""
    problems = []
    here = Path.cwd()
    for name, minimum in MINIMUM_VERSIONS.items():
        needed = ".".join(map(str, minimum))
        if not is_installed(name):
            problems.append(f"{name} is not installed: install {needed} or newer")
            continue
        result = run([name, "--version"], here)
        version = re.search(r"(\d+)\.(\d+)", result.text)
        if not result.succeeded:
            problems.append(f"{name} --version failed: {result.reason}")
        elif version and (int(version[1]), int(version[2])) < minimum:
            problems.append(f"{name} {version[0]} is too old: install {needed} or newer")
    if is_installed("uv") and not run(["uv", "python", "find", PYTHON], here).succeeded:
        problems.append(f"there is no Python {PYTHON}: run `uv python install 3.13`")
    return problems


def identity_problems(folder: Path) -> list[str]:
    """Return a sentence if Git does not know whose name to put on commits in a folder."""
    if not is_installed("git"):
        return []
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    command = ["git", "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT"]
    if run(command, nearest).succeeded:
        return []
    return [
        "Git has no identity configured: run `git config --global user.name NAME` "
        "and `git config --global user.email ADDRESS`"
    ]


def folder_problems(folder: Path) -> list[str]:
    """Return a sentence if a project cannot be created in a folder."""
    if folder.is_dir():
        if any(folder.iterdir()):
            return [f"{folder} is not empty: choose another folder, or see `rung adopt`"]
        parent = folder.resolve().parent
    elif folder.exists() or folder.is_symlink():
        return [f"{folder} exists and is not a directory: choose another name"]
    else:
        parent = next(path for path in folder.absolute().parents if path.exists())
    # The project is made beside its folder, and takes its place once it is complete.
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        return [f"{parent} is not writable: choose another folder"]
    return []


def check(folder: Path) -> None:
    """Check that a project can be created in a folder.

    Raises:
        UsageError: Something is missing; the message lists everything that is.
    """
    problems = [*program_problems(), *identity_problems(folder), *folder_problems(folder)]
    if problems:
        raise UsageError(
            f"no project can be created in {folder} yet:{bullets(problems)}\nNothing was written"
        )


if __name__ == "__main__":
    sys.exit(exit_code(lambda: check(Path(sys.argv[1]))))
