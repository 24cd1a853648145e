"""Before a project is rendered: is everything there that it needs?

`python -m rung.pre_gen FOLDER` checks it, and changes nothing.
"""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

from .console import bullets, exit_code
from .exceptions import UsageError
from .git import git_succeeds
from .process import is_installed, run

# The oldest versions that Copier and a project work with.
MINIMUM_VERSIONS = {"git": (2, 27), "uv": (0, 9), "make": (3, 81)}
PYTHON = ">=3.11"
OF_THE_SYSTEM = ("--system", "--no-project", "--no-config")  # not of an environment, or a folder's
EDITABLE = '"editable"'  # in the record of a package whose code is in somebody's folder


def program_problems() -> list[str]:
    """Return a sentence for each program that is missing or too old."""
    # In an empty folder: uv would start the Python of a .venv around it, and read uv.toml.
    with TemporaryDirectory(prefix="rung-") as temporary:
        return [*version_problems(Path(temporary)), *python_problems(Path(temporary))]


def version_problems(empty: Path) -> list[str]:
    """Return a sentence for each program that is missing or too old; they run in this folder."""
    problems = []
    for name, minimum in MINIMUM_VERSIONS.items():
        needed = ".".join(map(str, minimum))
        if not is_installed(name):
            problems.append(f"{name} is not installed: install {needed} or newer")
            continue
        result = run([name, "--version"], empty)
        version = re.search(r"(\d+)\.(\d+)", result.text)
        if not result.succeeded:
            problems.append(f"{name} --version failed: {result.reason}")
        elif version and (int(version[1]), int(version[2])) < minimum:
            problems.append(f"{name} {version[0]} is too old: install {needed} or newer")
    return problems


def python_problems(empty: Path) -> list[str]:
    """Return a sentence if uv has no Python for a project; it looks for one from this folder."""
    command = ["uv", "python", "find", *OF_THE_SYSTEM, PYTHON]
    if not is_installed("uv") or run(command, empty).succeeded:
        return []
    return [f"there is no Python {PYTHON}: run `uv python install 3.13`"]


def identity_problems(folder: Path) -> list[str]:
    """Return a sentence if Git does not know whose name to put on commits in a folder."""
    if not is_installed("git"):
        return []
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    command = ["git", "-c", "user.useConfigOnly=true", "var", "GIT_COMMITTER_IDENT"]
    result = run(command, nearest, env={"LC_ALL": "C"})
    if result.succeeded:
        return []
    if "identity unknown" not in result.error_text:
        return [f"Git cannot read its settings: {result.reason}"]
    return [
        "Git has no identity configured: run `git config --global user.name NAME` "
        "and `git config --global user.email ADDRESS`"
    ]


def trust_problems(folder: Path) -> list[str]:
    """Return a sentence if Git does not trust the repository around a folder, or cannot read it."""
    if not is_installed("git"):
        return []
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.is_dir())
    try:
        git_succeeds(nearest, "rev-parse", "--git-dir")
    except UsageError as error:
        return [str(error)]
    return []


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


def surrounding_problems(folder: Path) -> list[str]:
    """Return a sentence for each thing outside of a folder that uv would change for it."""
    return [*environment_problems(folder), *workspace_problems(folder)]


def environment_problems(folder: Path) -> list[str]:
    """Return a sentence if uv would install a project into an environment that has another use."""
    value = os.environ.get("UV_PROJECT_ENVIRONMENT", "")
    environment = Path(value)
    if not environment.is_absolute():
        return []  # none, or one in the project
    records = environment.glob("lib/python*/site-packages/*.dist-info/direct_url.json")
    installed = [
        text for text in (record.read_text("utf-8") for record in records) if EDITABLE in text
    ]
    is_used = any(f'"{folder.resolve().as_uri()}"' not in text for text in installed)
    if not is_used and not (environment / "conda-meta").is_dir():
        return []
    user = "another project" if is_used else "conda"
    return [f"UV_PROJECT_ENVIRONMENT is {value}, which {user} uses: unset it, or name a new folder"]


def workspace_problems(folder: Path) -> list[str]:
    """Return a sentence if a folder would belong to a uv workspace, whose lock would change."""
    folder = folder.resolve()
    for root in folder.parents:
        workspace = read_workspace(root / "pyproject.toml")
        if workspace is None:
            continue
        name = folder.relative_to(root)
        is_member = any(matches(name, pattern) for pattern in workspace.get("members", []))
        if not is_member or any(matches(name, item) for item in workspace.get("exclude", [])):
            return []
        return [
            f"it would be a member of the uv workspace {root}, whose uv.lock would change: add "
            f'"{name.as_posix()}" to exclude of [tool.uv.workspace] there, or choose another folder'
        ]
    return []


def read_workspace(pyproject: Path) -> dict[str, list[str]] | None:
    """Return the workspace that a pyproject.toml defines; what uv cannot read defines none."""
    try:
        content = tomllib.loads(pyproject.read_text("utf-8"))
        workspace: dict[str, list[str]] = content["tool"]["uv"]["workspace"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return workspace if isinstance(workspace, dict) else None


def matches(path: Path, pattern: str) -> bool:
    """Check whether a relative path matches a glob pattern; neither has to exist."""
    with TemporaryDirectory(prefix="rung-") as temporary:
        Path(temporary, path).mkdir(parents=True)
        try:
            return Path(temporary, path) in Path(temporary).glob(pattern.removeprefix("./"))
        except (ValueError, NotImplementedError):  # empty, or not relative: it matches nothing here
            return False


def check(folder: Path) -> None:
    """Check that a project can be created in a folder.

    Raises:
        UsageError: Something is missing; the message lists everything that is.
    """
    problems = [
        *program_problems(),
        *(identity_problems(folder) or trust_problems(folder)),
        *folder_problems(folder),
        *surrounding_problems(folder),
    ]
    if problems:
        raise UsageError(
            f"no project can be created in {folder} yet:{bullets(problems)}\nNothing was written"
        )


if __name__ == "__main__":
    sys.exit(exit_code(lambda: check(Path(sys.argv[1]))))
