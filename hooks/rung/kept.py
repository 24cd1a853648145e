"""Is every line that a team wrote still there? `rung update` asks, before it says it is done."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path

from .tools import git, names


def lost(old: Path, project: Path, before: str) -> dict[str, list[bytes]]:
    """Give the team's lines that an update has lost, by file; in a conflict block they are not.

    Args:
        old: The project as the template's version before made it.
        project: The project after the update.
        before: Its commit before the update.
    """
    found: dict[str, list[bytes]] = {}
    for name in names(git(project, "ls-tree", "-r", "-z", "--name-only", before)):
        own, now = blob(project, before, name), content(project / name)
        if now == own or name == ".copier-answers.yml":
            continue
        theirs = Counter(own.splitlines()) - Counter(content(old / name).splitlines())
        if missing := theirs - Counter(plain(now)):
            found[name] = [line for line in missing if line.strip()]
    return {name: lines for name, lines in found.items() if lines}


def plain(text: bytes) -> list[bytes]:
    """Give the lines of a text, of which an update may have changed the ends."""
    return [line.rstrip(b"\r") for line in text.split(b"\n")] + text.splitlines()


def content(file: Path) -> bytes:
    """Give a file's bytes; none if it is not there, where a link leads if it is one."""
    if file.is_symlink():
        return os.fsencode(file.readlink())
    return file.read_bytes() if file.is_file() else b""


def blob(project: Path, commit: str, name: str) -> bytes:
    """Give a file's bytes as a commit has them."""
    command = ["git", "-C", str(project), "cat-file", "blob", f"{commit}:{name}"]
    return subprocess.run(command, capture_output=True, check=True).stdout
