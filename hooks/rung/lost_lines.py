"""Whether an update has lost a line that the team wrote."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from .git import git, read_blob, split_nul
from .template import ANSWERS


def find_lost_lines(
    old_render: Path,
    project: Path,
    head: str,
    new_places: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, list[bytes]]:
    """Return the team's lines that an update has lost, by file; conflict blocks count as kept.

    Args:
        old_render: The project as the previous version of the template renders it.
        project: The project after the update.
        head: Its commit before the update.
        new_places: The new path of each file that moved.
    """
    lost: dict[str, list[bytes]] = {}
    tracked = set(split_nul(git(project, "ls-tree", "-r", "-z", "--name-only", head)))
    # Files that the update added are not the team's; those it did not change are intact.
    for name in split_nul(git(project, "diff", "-z", "--name-only", head)):
        if name == ANSWERS or name not in tracked:
            continue
        rendered_lines = Counter(split_lines(read_content(old_render / name)))
        team_lines = Counter(split_lines(read_blob(project, head, name))) - rendered_lines
        current_lines = Counter(split_lines(read_content(project / new_places.get(name, name))))
        missing = [line for line in team_lines - current_lines if line.strip()]
        if missing:
            lost[name] = missing
    return lost


def split_lines(content: bytes) -> list[bytes]:
    """Return the lines of a file without their ends, which an update may change."""
    return [line.rstrip(b"\r") for line in content.split(b"\n")]


def read_content(file: Path) -> bytes:
    """Return the bytes of a file: none if it does not exist, the target if it is a link."""
    if file.is_symlink():
        return os.fsencode(file.readlink())
    return file.read_bytes() if file.is_file() else b""
