"""`rung add`: another system for a slot, at the version of the template that a project has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import BadInputError, pre_update, source, update
from .tools import say

# The question that chooses a slot's adapter. One that takes a list keeps what is there.
QUESTIONS = {"registry": "registry", "target": "deployment", "ci": "ci"}


def add(project: Path, slot: str, name: str) -> None:
    """Give a project the adapter of a slot: its files, requirements and configuration.

    Args:
        project: The top of its repository.
        slot: `registry`, `target` or `ci`.
        name: The adapter, as docs/adapters.md lists it.

    Raises:
        BadInputError: There is no such slot or adapter, or the project cannot be updated.
        RefusedError: There are conflicts, or a check of the project fails.
    """
    known = pre_update.check(project)
    if known["_src_path"] == source.PACKED:
        raise BadInputError(f"{project} came from a package: rung update --template URL first")
    template = update.had(known)
    question = chosen_by(slot, source.questions(template))
    available = list(question["choices"].values())
    if name not in available:
        raise BadInputError(f"there is no {slot} {name}: use one of {', '.join(available)}")
    if "when" in question and not int(known.get("level", 0)):
        raise BadInputError(f"a {slot} comes with level 1: rung up first")
    key = QUESTIONS[slot]
    before = known.get(key, question["default"])
    if before == name or (isinstance(before, list) and name in before):
        say(f"Nothing to add: the project has the {slot} {name}.")
        return
    after: Any = [*before, name] if isinstance(before, list) else name
    say(f"{key}: {shown(before)} → {shown(after)}\n")
    update.bring(project, template, known, {key: after})
    update.finish(project)


def chosen_by(slot: str, questions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the question that chooses a slot's adapter.

    Raises:
        BadInputError: There is no such slot.
    """
    if slot not in QUESTIONS:
        raise BadInputError(f"there is no slot {slot}: use one of {', '.join(QUESTIONS)}")
    return questions[QUESTIONS[slot]]


def shown(answer: object) -> str:
    """Return an answer as a person reads it."""
    return ", ".join(answer) if isinstance(answer, list) else str(answer)
