"""What a repository still lacks once it is adopted, in the order in which to do it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

BRANCH = "rung-adopt"
# Titles of sections that more than one module adds to.
TO_DO = "Still to do"
IN_BOTH = "Files that exist in both"
NEXT = "Next"


def format_report(sections: Mapping[str, Sequence[str]]) -> str:
    """Return a numbered report of the sections that are not empty."""
    filled = [(title, lines) for title, lines in sections.items() if lines]
    return "\n\n".join(
        f"{number}. {title}\n" + "\n".join(f"   - {line}" for line in lines)
        for number, (title, lines) in enumerate(filled, 1)
    )


def data_use_command(file: str | None, target: str | None) -> str:
    """Return the command that brings a table into use; what is not known stands in capitals."""
    file_argument = shlex.quote(file) if file else "FILE"
    column = shlex.quote(target) if target else "COLUMN"
    return f"uv run ml data use {file_argument} --target {column}"


def next_steps(base: str, check: str) -> list[str]:
    """Return what to do on the branch, and how to go back.

    Args:
        base: The branch that was checked out before, or `--detach COMMIT`.
        check: The command that runs the project's checks.
    """
    commit = base.removeprefix("--detach ")
    return [
        f"see what changed: git diff {commit}...{BRANCH} --stat",
        "run the pipeline: uv run ml run, then open artifacts/report.html",
        f"run the checks: {check}; to run them on every commit: uv run pre-commit install",
        f"accept: git switch {base} && git merge {BRANCH}",
        "add more automation: rung up",
        f"or undo everything: git switch {base} && git branch -D {BRANCH}",
    ]


def next_steps_without_git() -> list[str]:
    """Return what to do in a folder that is not in Git."""
    return [
        "run the pipeline: uv run ml run, then open artifacts/report.html",
        "for each NAME.rung: merge what you want of it into NAME, then delete it",
        "create a repository, which updates need: "
        "git init && git add --all && git commit -m 'Adopt Rung'",
        "run the checks: make check; to run them on every commit: uv run pre-commit install",
        "add more automation: rung up",
    ]
