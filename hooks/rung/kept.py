"""Is every line that a team wrote still there? `rung update` asks, before it says it is done."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from .tools import git, names


def lost(
    old: Path, project: Path, before: str, moved: Mapping[str, str] = MappingProxyType({})
) -> dict[str, list[bytes]]:
    """Give the team's lines that an update has lost, by file; in a conflict block they are not.

    Args:
        old: The project as the template's version before made it.
        project: The project after the update.
        before: Its commit before the update.
        moved: By a path that moved, its new one.
    """
    found: dict[str, list[bytes]] = {}
    had = set(names(git(project, "ls-tree", "-r", "-z", "--name-only", before)))
    # What came with the update is not the team's; what did not change is as the team left it.
    for name in names(git(project, "diff", "-z", "--name-only", before)):
        if name == ".copier-answers.yml" or name not in had:
            continue
        own, now = blob(project, before, name), content(project / moved.get(name, name))
        theirs = Counter(lines(own)) - Counter(lines(content(old / name)))
        if missing := [line for line in theirs - Counter(lines(now)) if line.strip()]:
            found[name] = missing
    return found


def lines(text: bytes) -> list[bytes]:
    """Give the lines of a text without their ends, which an update may change."""
    return [line.rstrip(b"\r") for line in text.split(b"\n")]


def content(file: Path) -> bytes:
    """Give a file's bytes; none if it is not there, where a link leads if it is one."""
    if file.is_symlink():
        return os.fsencode(file.readlink())
    return file.read_bytes() if file.is_file() else b""


def blob(project: Path, commit: str, name: str) -> bytes:
    """Give a file's bytes as a commit has them."""
    command = ["git", "-C", str(project), "cat-file", "blob", f"{commit}:{name}"]
    return subprocess.run(command, capture_output=True, check=True).stdout
