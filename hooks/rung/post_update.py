"""After an update: does it hold? `python -m rung.post_update DIR` relocks, and runs the checks."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from . import RefusedError
from .tools import ended, git, heard, names, say, shown

# Those of `make check`, whose Makefile may be the team's own.
CHECKS = ("ruff check", "ruff format --check", "mypy", "pytest")
# What is above level 0 has checks of its own: what its pipelines would do, with another registry.
REHEARSAL = ("ml run", "ml register", "ml deploy --target local/staging")
UV = ("uv", "run", "--quiet", "--locked", "--all-groups", "--project")
TOLD = 15  # lines
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


def check(project: Path, rewritten: Iterable[str] = ()) -> None:
    """Relock, and run the project's checks.

    Args:
        project: The top of its repository.
        rewritten: Files whose imports the update has changed, which are sorted anew first.

    Raises:
        RefusedError: There are conflicts, no lock can be made, or a check fails.
    """
    if left := conflicts(project):
        raise RefusedError(f"conflicts are left in {', '.join(left)}: merge them first")
    if shown(project, "uv", "lock", "--quiet"):
        raise RefusedError("uv finds no versions that go together, as said above")
    say("uv lock … passed")
    if files := [name for name in rewritten if (project / name).is_file()]:
        for tidy in ("check --quiet --select I --fix", "format --quiet"):
            heard(project, *UV, str(project.resolve()), "ruff", *tidy.split(), "--", *files)
    passes(project, CHECKS)


def rehearse(project: Path) -> None:
    """Train, register, deploy to staging: in a copy, with a registry, that are thrown away.

    Raises:
        RefusedError: One of them failed.
    """
    with TemporaryDirectory(prefix="rung-") as folder:
        copy = Path(folder, project.resolve().name)
        data = yaml.safe_load((project / "config/data.yaml").read_text("utf-8"))["source"]
        listed = git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in {*names(listed), str(data)}:  # data that Git ignores as well
            if (project / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(project / name, copy / name)
        git(copy, "init", "--quiet")  # DVC asks for one
        passes(project, REHEARSAL, copy, ML_REGISTRY=str(Path(folder, "registry")))


def passes(project: Path, checks: Iterable[str], at: Path | None = None, **env: str) -> None:
    """Run checks in a project's environment; of one that fails, show the end of what it prints.

    Args:
        project: Whose environment it is.
        checks: Commands.
        at: The folder to run them in, if that is another one.
        env: Set for them.

    Raises:
        RefusedError: One failed.
    """
    failed = []
    for one in checks:
        print(f"{one} … ", end="", flush=True)
        code, said = heard(at or project, *UV, str(project.resolve()), *one.split(), **env)
        say("failed" if code else "passed")
        if code:
            failed.append(one)
            say("".join(f"  {line}\n" for line in said.strip().splitlines()[-TOLD:]))
    if failed:
        listed = ", ".join(f"`uv run {one}`" for one in failed)
        raise RefusedError(f"in {project}, {listed} fails: mend it, then rung update --continue")


if __name__ == "__main__":
    sys.exit(ended(lambda: check(Path(sys.argv[1]))))
