"""After an update: does it hold? `python -m rung.post_update DIR` relocks, and runs the checks."""

from __future__ import annotations

import sys
from pathlib import Path

from . import RefusedError
from .tools import ended, git, names, say, shown

# Those of `make check`, and of the pipeline called checks. A project's Makefile may be its team's.
CHECKS = ("ruff check", "ruff format --check", "mypy", "pytest")
MARKERS = (b"<<<<<<< ", b">>>>>>> ")


def conflicts(project: Path) -> list[str]:
    """Name the files where the template's lines and the team's meet: unmerged, marked or *.rej."""
    unmerged = {line.split("\t", 1)[1] for line in names(git(project, "ls-files", "-u", "-z"))}
    changed = names(git(project, "diff", "HEAD", "-z", "--name-only", "--diff-filter=d"))
    new = names(git(project, "ls-files", "-z", "--others", "--exclude-standard"))
    for name in {*changed, *new}:
        if name.endswith(".rej") or marked(project / name):
            unmerged.add(name)
    return sorted(unmerged)


def marked(file: Path) -> bool:
    """Tell whether a file has a conflict block."""
    if not file.is_file():
        return False
    lines = file.read_bytes().splitlines()
    return all(any(line.startswith(marker) for line in lines) for marker in MARKERS)


def check(project: Path) -> None:
    """Relock, and run the project's checks.

    Raises:
        RefusedError: There are conflicts, no lock can be made, or a check fails.
    """
    if left := conflicts(project):
        raise RefusedError(f"conflicts are left in {', '.join(left)}: merge them first")
    if shown(project, "uv", "lock"):
        raise RefusedError("uv finds no versions that go together, as said above")
    failed = []
    for one in CHECKS:
        say(f"→ {one}")
        if shown(project, "uv", "run", "--locked", "--all-groups", *one.split()):
            failed.append(one)
    if failed:
        raise RefusedError(f"what the project checks fails: {', '.join(failed)}")


if __name__ == "__main__":
    sys.exit(ended(lambda: check(Path(sys.argv[1]))))
