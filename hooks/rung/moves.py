"""What moved from one version of the template to the next, and a team's changes with it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from . import source
from .tools import asks, git, names

TABLE = "copier/moves.yml"


@dataclass(frozen=True)
class Move:
    """A file of the template that has another place in the new version."""

    old: str
    new: str


def between(template: source.Source, package: str, old: Path, new: Path) -> list[Move]:
    """List the files that moved.

    Args:
        template: The version that comes; its table says which folders moved.
        package: The name of the project's own package.
        old: The project as the version before renders it.
        new: The same as the new version renders it.

    Returns:
        Files of the old render that the new one has at their new place, and no more at the old.
    """
    folder = source.history(template.url)
    if not asks(folder, "cat-file", "-e", f"{template.commit}:{TABLE}"):
        return []
    rows = yaml.safe_load(git(folder, "show", f"{template.commit}:{TABLE}"))
    places = {row["from"].replace("{{ package_name }}", package): row["to"] for row in rows}
    had, has = source.files(old), source.files(new)
    moves = []
    for name in sorted(had - has):
        before = next((start for start in places if name.startswith(start)), None)
        if before and (place := places[before] + name.removeprefix(before)) in has:
            moves.append(Move(name, place))
    return moves


def carry(project: Path, moves: list[Move], old: Path, before: str) -> None:
    """Bring a team's changes of files that moved to the new places, after Copier has been there.

    A file that was deleted is deleted at its new place, too. Where changes meet, both stand between
    conflict markers that name both places, and Git's index has the three versions.

    Args:
        project: What is updated.
        moves: Of its files.
        old: The project as the version before renders it.
        before: The project's commit before the update.
    """
    had = set(names(git(project, "ls-tree", "-r", "-z", "--name-only", before)))
    for move in moves:
        new = project / move.new
        if move.old not in had:
            new.unlink(missing_ok=True)
            continue
        team = git_bytes(project, "cat-file", "blob", f"{before}:{move.old}")
        base = (old / move.old).read_bytes()
        if team != base and new.is_file():
            _merge(project, move, base, team)
        for left in (move.old, f"{move.old}.rej"):
            if left == move.old or left not in had:
                (project / left).unlink(missing_ok=True)


def git_bytes(folder: Path, *args: str, given: bytes = b"") -> bytes:
    """Run git with and for bytes."""
    command = ["git", "-C", str(folder), *args]
    return subprocess.run(command, input=given, capture_output=True, check=True).stdout


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
        command = ["git", "merge-file", "-p", *labels, *map(str, files)]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    if done.returncode < 0 or done.returncode > 127:  # Git cannot merge it: it is not text
        merged, conflicts = team, True
    else:
        merged, conflicts = done.stdout, done.returncode > 0
    (project / move.new).write_bytes(merged)
    if conflicts:
        stages = []
        for stage, text in enumerate((base, team, theirs), 1):
            blob = git_bytes(project, "hash-object", "-w", "--stdin", given=text).decode().strip()
            stages.append(f"100644 {blob} {stage}\t{move.new}\0")
        git_bytes(project, "update-index", "-z", "--index-info", given="".join(stages).encode())


def prune(project: Path, before: str) -> None:
    """Remove folders that an update left with nothing but what Python had compiled.

    To Python and mypy they would be packages yet.

    Args:
        project: What is updated.
        before: Its commit before the update.
    """
    listed = names(git(project, "ls-tree", "-r", "-z", "--name-only", before))
    gone = [project / name for name in listed if not (project / name).exists()]
    for folder in sorted({path.parent for path in gone}, reverse=True):
        place = folder
        while place != project and place.is_dir() and not _has_files(place):
            shutil.rmtree(place)
            place = place.parent


def _has_files(folder: Path) -> bool:
    """Check whether a folder has a file that Python has not compiled."""
    files = (path for path in folder.rglob("*") if not path.is_dir())
    return any(path.parent.name != "__pycache__" for path in files)


def mentions(project: Path, moves: list[Move]) -> list[str]:
    """List lines that name a file or module that moved, as `file:line`, such as of a Makefile."""
    olds = sorted({move.old for move in moves})
    patterns = [part for old in olds for part in ("-e", old)]
    command = ["grep", "-n", "-I", "-F", "-o", *patterns, "--", ":!*.lock", ":!src/rung_runtime"]
    done = subprocess.run(["git", "-C", str(project), *command], capture_output=True, check=False)
    lines = done.stdout.decode(errors="replace").splitlines()
    return list(dict.fromkeys(line.rpartition(":")[0] for line in lines))
