"""A repository that is to be adopted: whether it can be, and what it contains."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .. import pre_gen
from ..console import bullets, shorten
from ..exceptions import UsageError
from ..git import (
    git,
    git_succeeds,
    has_commit,
    merge_in_progress,
    missing_filters,
    read_blob,
    split_nul,
)
from ..template import ANSWERS
from . import detect_target
from .files import is_inside, read_bytes
from .report import BRANCH

# Never searched: what tools make, and environments.
SKIPPED = ("__pycache__", "node_modules", "site-packages", "mlruns")
TRACKED_BY_DVC = tuple(f"{ending}.dvc" for ending in detect_target.TABLES)
SEARCHED = (".github", ".gitlab", ".dvc")  # among names that start with a dot


@dataclass
class Repository:
    """A folder that is adopted, and its files, relative to it with slashes."""

    folder: Path
    in_git: bool
    names: list[str]  # the files in Git; without Git, all of them
    tables: list[str]  # files that may be data, in Git or not
    untracked: list[str] = field(default_factory=list)  # neither in Git nor ignored
    linked_tables: list[str] = field(default_factory=list)  # links that lead out of the folder
    absent_tables: list[str] = field(default_factory=list)  # of which only a pointer is here
    base: str = ""  # what `git switch` goes back to

    def read(self, name: str) -> bytes:
        """Return a file's content, as HEAD has it if there is one."""
        if self.in_git:
            return read_blob(self.folder, "HEAD", name)
        return read_bytes(self.folder, name)

    def crlf_files(self) -> list[str]:
        """Return the files that have Windows line ends in Git."""
        if not self.in_git:
            return []
        entries = split_nul(git(self.folder, "ls-files", "--eol", "-z"))
        rows = [entry.split("\t", 1) for entry in entries]
        return [name for line_ends, name in rows if line_ends.startswith(("i/crlf", "i/mixed"))]


def inspect(folder: Path) -> Repository:
    """Check that a folder can be adopted, and list what it contains.

    Raises:
        UsageError: It cannot; the message lists everything that is in the way.
    """
    if not folder.is_dir():
        raise UsageError(
            f"{folder} is not a directory: name the one with your code, or see `rung new`"
        )
    if (folder / ANSWERS).exists():
        raise UsageError(f"{folder} is a project already: `rung update` brings it up to date")
    has_commit(folder)  # raises if Git refuses to read it
    in_git = git_succeeds(folder, "rev-parse", "--is-inside-work-tree")
    problems = [*pre_gen.program_problems(), *pre_gen.surrounding_problems(folder)]
    if in_git or (folder / ".git").exists():
        problems += repository_problems(folder)
    has_environment = "UV_PROJECT_ENVIRONMENT" in os.environ or (folder / "uv.lock").exists()
    if (folder / ".venv").exists() and not has_environment:
        problems.append(".venv is where the project's environment goes: rename or remove it")
    if problems:
        raise UsageError(f"{folder} cannot be adopted yet:{bullets(problems)}\nNothing was written")
    files = sorted(walk(folder))
    all_tables = [name for name in files if name.lower().endswith(detect_target.TABLES)]
    linked_tables = [name for name in all_tables if not is_inside(folder, name)]
    absent_tables = [
        name
        for name in all_tables
        if name not in linked_tables and detect_target.is_absent(folder / name)
    ]
    tables = [name for name in all_tables if name not in {*linked_tables, *absent_tables}]
    pointers = [name.removesuffix(".dvc") for name in files if name.endswith(TRACKED_BY_DVC)]
    absent_tables += [name for name in pointers if name not in all_tables]
    if not in_git:
        return Repository(
            folder,
            False,
            files,
            tables,
            linked_tables=linked_tables,
            absent_tables=absent_tables,
        )
    branch = git(folder, "branch", "--show-current")
    base = branch or f"--detach {git(folder, 'rev-parse', '--short', 'HEAD')}"
    tracked = split_nul(git(folder, "ls-files", "-z"))
    untracked = split_nul(git(folder, "ls-files", "-z", "--others", "--exclude-standard"))
    return Repository(folder, True, tracked, tables, untracked, linked_tables, absent_tables, base)


def repository_problems(folder: Path) -> Iterator[str]:
    """Yield a sentence for each reason why a repository cannot be adopted in its current state."""
    yield from pre_gen.identity_problems(folder)
    top = Path(git(folder, "rev-parse", "--show-toplevel"))
    if top.resolve() != folder.resolve():
        yield f"it is inside the repository {top}: adopt that one, or move the folder out of it"
        return
    if not has_commit(folder):
        yield "it has no commit yet: git add --all && git commit"
        return
    if merge_in_progress(folder):
        yield "it is in the middle of a merge or rebase: finish or abort it"
    if missing := missing_filters(folder):
        yield from missing
        return  # Git could not compare what it keeps with what is there
    # What is in a submodule is left alone, and so are the programs that its settings name.
    status = (
        "status",
        "--porcelain",
        "-z",
        "--untracked-files=no",
        "--ignore-submodules=dirty",
        "--no-renames",
    )
    if changes := split_nul(git(folder, *status)):
        names = shorten(change[3:] for change in changes)
        yield f"it has uncommitted changes ({names}): commit or stash them"
    if git_succeeds(folder, "rev-parse", "-q", "--verify", f"refs/heads/{BRANCH}"):
        yield f"it already has a branch {BRANCH}: merge it, or git branch -D {BRANCH}"


def walk(folder: Path) -> Iterator[str]:
    """Yield the files in a folder, without those that tools make."""
    for parent, subfolders, files in os.walk(folder):
        subfolders[:] = [name for name in subfolders if is_searched(Path(parent, name))]
        yield from (Path(parent, name).relative_to(folder).as_posix() for name in files)


def is_searched(folder: Path) -> bool:
    """Check whether a folder may have files that a person wrote."""
    is_hidden = folder.name.startswith(".") and folder.name not in SEARCHED
    return folder.name not in SKIPPED and not is_hidden and not (folder / "pyvenv.cfg").exists()
