"""Before a project is made: is all there that it needs? `python -m rung.pre_gen DIR` says."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from plumbum import local

from . import BadInputError
from .tools import ended

# The oldest that Copier and a project go with.
OLDEST = {"git": (2, 27), "uv": (0, 9), "make": (3, 81)}
PYTHON = ">=3.11"


def programs() -> list[str]:
    """Say which programs are missing or too old."""
    missing = []
    for name, oldest in OLDEST.items():
        wanted = ".".join(map(str, oldest))
        if name not in local:
            missing.append(f"{name} is missing: install {wanted} or newer")
            continue
        said = local[name]("--version")
        have = re.search(r"(\d+)\.(\d+)", said)
        if have and (int(have[1]), int(have[2])) < oldest:
            missing.append(f"{name} is {have[0]}: install {wanted} or newer")
    if "uv" in local and local["uv"]["python", "find", PYTHON].run(retcode=None)[0] != 0:
        missing.append(f"no Python {PYTHON}: uv python install 3.13")
    return missing


def identity(folder: Path) -> list[str]:
    """Say whether Git does not know who commits."""
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
    if "git" not in local:
        return []
    ask = local["git"].with_cwd(str(nearest))["-c", "user.useConfigOnly=true", "var"]
    if ask["GIT_COMMITTER_IDENT"].run(retcode=None)[0] == 0:
        return []
    return ["Git does not know you: git config --global user.name NAME, and user.email ADDRESS"]


def place(folder: Path) -> list[str]:
    """Say what is wrong with the folder that a project is to be made in."""
    if folder.is_dir():
        if any(folder.iterdir()):
            return [f"{folder} is not empty: name another folder, or see `rung adopt`"]
        nearest = folder = folder.resolve()
    elif folder.exists() or folder.is_symlink():
        return [f"{folder} exists, and is no folder: name another"]
    else:
        nearest = next(p for p in folder.absolute().parents if p.exists())
    # It is made beside the folder, and takes its place when it is whole.
    where = nearest if nearest != folder else folder.absolute().parent
    if not where.is_dir() or not os.access(where, os.W_OK | os.X_OK):
        return [f"{where} may not be written to: name another folder"]
    return []


def check(folder: Path) -> None:
    """See that a project can be made in a folder.

    Raises:
        BadInputError: Something is missing; all that is missing is named.
    """
    if missing := [*programs(), *identity(folder), *place(folder)]:
        listed = "".join(f"\n  - {one}" for one in missing)
        raise BadInputError(f"{folder} cannot become a project yet:{listed}\nNothing was written")


if __name__ == "__main__":
    sys.exit(ended(lambda: check(Path(sys.argv[1]))))
