"""What a repository still lacks when it is adopted, in the order in which to do it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence

BRANCH = "rung-adopt"


def report(sections: Mapping[str, Sequence[str]]) -> str:
    """Write a report of those sections that have something to say."""
    return "\n\n".join(
        f"{number}. {title}\n" + "\n".join(f"   - {line}" for line in lines)
        for number, (title, lines) in enumerate(((t, ls) for t, ls in sections.items() if ls), 1)
    )


def use(file: str | None, target: str | None) -> str:
    """Give the command that takes data into use."""
    named = shlex.quote(file) if file else "FILE"
    column = shlex.quote(target) if target else "COLUMN"
    return f"uv run ml data use {named} --target {column}"


def afterwards(base: str) -> list[str]:
    """Say what to do on the branch, and how to go back.

    Args:
        base: The branch, or the commit, that was there before.
    """
    back = base if not base.startswith("--detach ") else base.removeprefix("--detach ")
    return [
        f"what changed: git diff {back}...{BRANCH} --stat",
        "the pipeline: uv run ml run, then artifacts/report.html",
        "the checks: make check; as hooks of each commit, once: uv run pre-commit install",
        f"then: git switch {base} && git merge {BRANCH}",
        "more automation: rung up",
        f"or all as it was: git switch {base} && git branch -D {BRANCH}",
    ]


def without_git() -> list[str]:
    """Say what to do where there is no Git."""
    return [
        "the pipeline: uv run ml run, then artifacts/report.html",
        "of each NAME.rung: merge what you want of it into NAME, then delete it",
        "git init && git add --all && git commit -m 'Adopt Rung': updates need it",
        "the checks: make check; as hooks of each commit, once: uv run pre-commit install",
        "more automation: rung up",
    ]
