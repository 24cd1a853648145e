"""A repository that is to be adopted: may it be, and what is in it?"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import BadInputError, pre_gen, source, target, told
from .kept import blob
from .tools import asks, git, has_commit, names, unfinished

# Never looked into: what tools make, and environments.
SKIPPED = ("__pycache__", "node_modules", "site-packages", "mlruns")
HIDDEN = (".github", ".gitlab", ".dvc")  # of what begins with a dot, these are looked into


@dataclass
class Repository:
    """What is adopted: a folder, and its files, relative to it with slashes."""

    folder: Path
    git: bool
    names: list[str]  # in Git, or all
    tables: list[str]  # possible data, in Git or not
    others: list[str] = field(default_factory=list)  # neither in Git nor ignored
    base: str = ""  # how to go back

    def read(self, name: str) -> bytes:
        """Give a file's content as it is kept."""
        return blob(self.folder, "HEAD", name) if self.git else (self.folder / name).read_bytes()

    def crlf(self) -> list[str]:
        """Name the files that Git has with line ends of Windows."""
        if not self.git:
            return []
        listed = [
            line.split("\t", 1) for line in names(git(self.folder, "ls-files", "--eol", "-z"))
        ]
        return [name for about, name in listed if about.startswith(("i/crlf", "i/mixed"))]


def looked(folder: Path) -> Repository:
    """See that a folder can be adopted, and look at what is in it.

    Raises:
        BadInputError: It cannot; all that is in the way is named.
    """
    if not folder.is_dir():
        raise BadInputError(
            f"{folder} is no folder: name one that has your code, or see `rung new`"
        )
    if (folder / source.ANSWERS).exists():
        raise BadInputError(f"{folder} is a project already: rung update brings it what is new")
    has_commit(folder)  # or the reason why Git does not look
    inside = asks(folder, "rev-parse", "--is-inside-work-tree")
    missing = [
        *pre_gen.programs(),
        *(state(folder) if inside or (folder / ".git").exists() else ()),
    ]
    own = "UV_PROJECT_ENVIRONMENT" in os.environ or (folder / "uv.lock").exists()
    if (folder / ".venv").exists() and not own:
        missing.append(".venv is where the project's environment goes: rename or remove it")
    if missing:
        listed = "".join(f"\n  - {one}" for one in missing)
        raise BadInputError(f"{folder} cannot be adopted yet:{listed}\nNothing was written")
    walked = sorted(walk(folder))
    tables = [name for name in walked if name.lower().endswith(target.TABLES)]
    if not inside:
        return Repository(folder, False, walked, tables)
    branch = git(folder, "branch", "--show-current")
    base = branch or f"--detach {git(folder, 'rev-parse', '--short', 'HEAD')}"
    tracked = names(git(folder, "ls-files", "-z"))
    others = names(git(folder, "ls-files", "-z", "--others", "--exclude-standard"))
    return Repository(folder, True, tracked, tables, others, base)


def state(folder: Path) -> Iterator[str]:
    """Say what a repository's state has against adopting it."""
    yield from pre_gen.identity(folder)
    top = Path(git(folder, "rev-parse", "--show-toplevel"))
    if top.resolve() != folder.resolve():
        yield f"it is within the repository {top}: adopt that, or move the folder out"
        return
    if not has_commit(folder):
        yield "it has no commit yet: git add --all && git commit"
        return
    if unfinished(folder):
        yield "it is in the middle of a merge or rebase: finish or abort it"
    if changed := names(git(folder, "status", "--porcelain", "-z", "--untracked-files=no")):
        some = ", ".join(one[3:] for one in changed[:3]) + ", …" * (len(changed) > 3)
        yield f"not all changes are committed ({some}): commit or stash them"
    if asks(folder, "rev-parse", "-q", "--verify", f"refs/heads/{told.BRANCH}"):
        yield f"it has a branch {told.BRANCH}: merge it, or git branch -D {told.BRANCH}"


def walk(folder: Path) -> Iterator[str]:
    """Name the files in a folder, but for those that tools make."""
    for at, folders, found in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if name not in SKIPPED
            and not (name.startswith(".") and name not in HIDDEN)
            and not Path(at, name, "pyvenv.cfg").exists()
        ]
        yield from (Path(at, name).relative_to(folder).as_posix() for name in found)
