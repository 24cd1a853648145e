"""After an update: does the project still work?

`python -m rung.post_update FOLDER` relocks it and runs its checks.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from . import lock
from .console import echo, exit_code
from .exceptions import RefusedError
from .git import git, split_nul
from .process import run
from .yaml_files import read_yaml

# Those of `make check`, as the Makefile may be the team's own.
CHECKS = ("ruff check", "ruff format --check", "mypy", "pytest")
# Levels above 0 also do what their pipelines would do, with a registry of their own.
REHEARSAL = ("ml run", "ml register", "ml deploy --target local/staging")
TIDY_IMPORTS = ("ruff check --quiet --select I --fix", "ruff format --quiet")
TO_FINISH = "Fix it, then run `rung update --continue`"
SHOWN_LINES = 15  # of what a failed check prints
CONFLICT_MARKERS = (b"<<<<<<< ", b">>>>>>> ")


def find_conflicts(project: Path) -> list[str]:
    """Return the files that are unmerged in Git, have conflict markers, or are rejected hunks."""
    entries = split_nul(git(project, "ls-files", "-u", "-z"))
    conflicts = {entry.split("\t", 1)[1] for entry in entries}
    changed = split_nul(git(project, "diff", "HEAD", "-z", "--name-only", "--diff-filter=d"))
    new = split_nul(git(project, "ls-files", "-z", "--others", "--exclude-standard"))
    for name in {*changed, *new}:
        if name.endswith(".rej") or has_conflict_markers(project / name):
            conflicts.add(name)
    return sorted(conflicts)


def has_conflict_markers(file: Path) -> bool:
    """Check whether a file has a conflict block."""
    if not file.is_file():
        return False
    lines = file.read_bytes().splitlines()
    return all(any(line.startswith(marker) for line in lines) for marker in CONFLICT_MARKERS)


def check(project: Path, rewritten: Iterable[str] = ()) -> None:
    """Relock a project, and run its checks.

    Args:
        project: The top of its repository.
        rewritten: Files whose imports the update has changed; they are sorted first.

    Raises:
        RefusedError: There are conflicts, no lock can be made, or a check fails.
    """
    if conflicts := find_conflicts(project):
        raise RefusedError(f"unresolved conflicts in {', '.join(conflicts)}: resolve them first")
    if reason := lock.lock(project):
        raise RefusedError(f"uv lock failed: {reason}\n{TO_FINISH}")
    if settings := lock.personal_settings(project):
        raise RefusedError(f"{settings}\n{TO_FINISH}")
    echo("uv lock … passed")
    if files := [name for name in rewritten if (project / name).is_file()]:
        for command in TIDY_IMPORTS:
            run(in_environment(project, command, "--", *files), project)
    run_checks(project, CHECKS)


def rehearse(project: Path) -> None:
    """Train, register and deploy to staging in a copy, with a registry, that are thrown away.

    Raises:
        RefusedError: One of them failed.
    """
    with TemporaryDirectory(prefix="rung-") as temporary:
        copy = Path(temporary, project.resolve().name)
        contract = read_yaml(project / "config/data.yaml")
        listed = git(project, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        for name in {*split_nul(listed), str(contract["source"])}:  # which Git may ignore
            if (project / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(project / name, copy / name)
        git(copy, "init", "--quiet")  # DVC needs a repository
        run_checks(project, REHEARSAL, copy, ML_REGISTRY=str(Path(temporary, "registry")))


def in_environment(project: Path, command: str, *more: str) -> list[str]:
    """Return a command that runs in a project's locked environment."""
    options = ("--quiet", "--locked", "--all-groups", "--project", str(project.resolve()))
    return ["uv", "run", *options, *command.split(), *more]


def run_checks(
    project: Path, checks: Iterable[str], folder: Path | None = None, **env: str
) -> None:
    """Run checks in a project's environment, and show the end of what a failed one prints.

    Args:
        project: The project whose environment it is.
        checks: Commands.
        folder: Where to run them, if not in the project.
        env: Environment variables for them.

    Raises:
        RefusedError: One failed.
    """
    failed = []
    for command in checks:
        echo(f"{command} … ", end="")
        result = run(in_environment(project, command), folder or project, env=env, output="merged")
        echo("passed" if result.succeeded else "failed")
        if not result.succeeded:
            failed.append(f"`uv run {command}`")
            lines = result.text.strip().splitlines()[-SHOWN_LINES:]
            echo("".join(f"  {line}\n" for line in lines))
    if failed:
        verdict = f"{', '.join(failed)} failed in {project}"
        raise RefusedError(f"{verdict}. {TO_FINISH}")


if __name__ == "__main__":
    sys.exit(exit_code(lambda: check(Path(sys.argv[1]))))
