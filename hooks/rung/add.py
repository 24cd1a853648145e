"""`rung add`: another system for a slot, at the version of the template that a project has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from . import pre_update, update
from .console import echo
from .exceptions import UsageError
from .template import PACKAGED, read_questions

# The question that chooses a slot's adapter. One that takes a list keeps its earlier choices.
QUESTIONS = {
    "registry": "registry",
    "target": "deployment",
    "ci": "ci",
    "model_format": "model_format",
    "explainer": "explainer",
    "engine": "engine",
}
# Slots with one adapter each, and what to do instead.
SINGLE = {
    "tracker": (
        "there is one tracker, mlflow, and every project of level 1 has it: MLFLOW_TRACKING_URI "
        "names a server"
    ),
    "pipeline": (
        "there is one pipeline, dvc: `rung export` writes its graph for another system, such as "
        "Airflow"
    ),
}


def add(project: Path, slot: str, name: str) -> None:
    """Add the adapter of a slot to a project: its files, requirements and configuration.

    Args:
        project: The top of its repository.
        slot: `registry`, `target`, `ci`, `model_format`, `explainer` or `engine`.
        name: The adapter, as docs/adapters.md lists it.

    Raises:
        UsageError: There is no such slot or adapter, or the project cannot be updated.
        RefusedError: There are conflicts, or one of the project's checks fails.
    """
    answers = pre_update.check(project)
    if answers["_src_path"] == PACKAGED:
        raise UsageError(
            f"{project} was created from a package: run `rung update --template URL` first"
        )
    template = update.installed_version(answers)
    question = slot_question(slot, read_questions(template))
    adapters = list(question["choices"].values())
    if name not in adapters:
        raise UsageError(f"there is no {slot} {name}: use one of {', '.join(adapters)}")
    is_later = "when" in question or slot == "engine"
    if is_later and not int(answers.get("level", 0)):
        raise UsageError(f"a {slot} comes with level 1: run `rung up` first")
    key = QUESTIONS[slot]
    current = answers.get(key, question["default"])
    if current == name or (isinstance(current, list) and name in current):
        echo(f"Nothing to add: the project has the {slot} {name}.")
        return
    new: Any = [*current, name] if isinstance(current, list) else name
    echo(f"{key}: {format_answer(current)} → {format_answer(new)}\n")
    update.merge_version(project, template, answers, {key: new})
    update.finish(project)


def slot_question(slot: str, questions: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the question that chooses a slot's adapter.

    Raises:
        UsageError: There is no such slot.
    """
    if slot in SINGLE:
        raise UsageError(SINGLE[slot])
    if slot not in QUESTIONS:
        raise UsageError(f"there is no slot {slot}: use one of {', '.join(QUESTIONS)}")
    return questions[QUESTIONS[slot]]


def format_answer(answer: object) -> str:
    """Return an answer as a person reads it."""
    return ", ".join(answer) if isinstance(answer, list) else str(answer)
