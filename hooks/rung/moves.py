"""Files that moved between two versions of the template, and a team's changes to them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from .git import git, git_bytes, read_blob, split_nul
from .process import run
from .template import Template, list_files

TABLE = "copier/moves.yml"
MOST_CONFLICTS = 127  # `git merge-file` ends with the number of conflicts; above are errors


@dataclass(frozen=True)
class Move:
    """A file of the template that has a new place in the new version."""

    old: str
    new: str
    module: str = ""  # what imports of a Python file name now; empty: the file at its new place
    # Names of a Python file that went elsewhere, and their dotted names now.
    names: dict[str, str] = field(default_factory=dict)


def between(template: Template, package: str, old: Path, new: Path) -> list[Move]:
    """List the files that moved.

    Args:
        template: The new version; its table says which folders moved.
        package: The name of the project's own package.
        old: The project as the previous version renders it.
        new: The project as the new version renders it.

    Returns:
        Files of the old render that the new one has at their new place, and no longer at the old.
    """
    if not template.has(TABLE):
        return []
    rows = {
        row["from"].replace("{{ package_name }}", package): row
        for row in yaml.safe_load(template.read(TABLE))
    }
    new_files = list_files(new)
    moves = []
    for name in sorted(list_files(old) - new_files):
        folder = next((start for start in rows if name.startswith(start)), None)
        if folder is None:
            continue
        row = rows[folder]
        place = row["to"] + name.removeprefix(folder)
        if place in new_files:
            moves.append(Move(name, place, row.get("module", ""), row.get("names", {})))
    return moves


def carry(project: Path, moves: list[Move], old: Path, before: str) -> None:
    """Carry a team's changes to files that moved over to the new places, once Copier has finished.

    A file that the team deleted is deleted at its new place, too. Where changes conflict, both
    stand between conflict markers that name both places, and Git's index has the three versions.

    Args:
        project: The project that is updated.
        moves: The files that moved.
        old: The project as the previous version renders it.
        before: The project's commit before the update.
    """
    tracked = set(split_nul(git(project, "ls-tree", "-r", "-z", "--name-only", before)))
    for move in moves:
        new = project / move.new
        if move.old not in tracked:
            new.unlink(missing_ok=True)
            continue
        team = read_blob(project, before, move.old)
        base = (old / move.old).read_bytes()
        if team != base and new.is_file():
            _merge(project, move, base, team)
        for name in (move.old, f"{move.old}.rej"):
            if name == move.old or name not in tracked:
                (project / name).unlink(missing_ok=True)


def _merge(project: Path, move: Move, base: bytes, team: bytes) -> None:
    """Merge a team's version into the file at its new place."""
    theirs = (project / move.new).read_bytes()
    with TemporaryDirectory(prefix="rung-") as folder:
        files = []
        for name, text in (("team", team), ("base", base), ("theirs", theirs)):
            files.append(Path(folder, name))
            files[-1].write_bytes(text)
        labels = []
        for label in (f"before updating ({move.old})", move.old, f"after updating ({move.new})"):
            labels += ["-L", label]
        result = run(["git", "merge-file", "-p", *labels, *map(str, files)], Path(folder))
    if not 0 <= result.returncode <= MOST_CONFLICTS:  # Git cannot merge it: it is not text
        merged = team
        has_conflicts = True
    else:
        merged = result.stdout
        has_conflicts = result.returncode > 0
    (project / move.new).write_bytes(merged)
    if has_conflicts:
        entries = []
        for stage, content in enumerate((base, team, theirs), 1):
            blob = git(project, "hash-object", "-w", "--stdin", stdin=content)
            entries.append(f"100644 {blob} {stage}\t{move.new}\0")
        git_bytes(project, "update-index", "-z", "--index-info", stdin="".join(entries).encode())


def prune(project: Path, before: str, saved: Path) -> None:
    """Remove folders that an update left with nothing but compiled Python.

    Python and mypy would still take them for packages.

    Args:
        project: The project that is updated.
        before: Its commit before the update.
        saved: Where to keep them, for an update that is aborted.
    """
    tracked = split_nul(git(project, "ls-tree", "-r", "-z", "--name-only", before))
    deleted = [project / name for name in tracked if not (project / name).exists()]
    for parent in sorted({path.parent for path in deleted}, reverse=True):
        folder = parent
        while folder != project and folder.is_dir() and not _has_files(folder):
            kept = saved / folder.relative_to(project)
            shutil.copytree(folder, kept, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(folder)
            folder = folder.parent


def _has_files(folder: Path) -> bool:
    """Check whether a folder has a file other than compiled Python."""
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return any(path.parent.name != "__pycache__" for path in files)


def mentions(project: Path, moves: list[Move]) -> list[str]:
    """List the lines that name the old place of a file, such as in a Makefile, as `file:line`."""
    old_paths = sorted({move.old for move in moves})
    patterns = [option for path in old_paths for option in ("-e", path)]
    search = ["grep", "-n", "-I", "-F", "-o", *patterns, "--", ":!*.lock", ":!src/rung_runtime"]
    result = run(["git", *search], project)
    return list(dict.fromkeys(line.rpartition(":")[0] for line in result.text.splitlines()))
