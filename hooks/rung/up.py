"""`rung up`: the next level, at the version of the template that a project has."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from . import pre_update, update
from .console import bullets, confirm, echo
from .exceptions import RefusedError, UsageError
from .template import (
    LEVELS,
    PACKAGED,
    Template,
    list_files,
    parse_answers,
    read_questions,
    render,
)

RUNTIME = "src/rung_runtime/"
# What a level needs that no file provides.
NEEDS = {
    1: (
        "a place for models: the folder registry/, unless config/delivery.yaml names another",
        "a machine that keeps running, to serve on: this one, unless the variable ML_RUNNER names "
        "another",
        "new rows and their labels from time to time: ml data add, ml labels add",
    ),
    2: (
        "a repository on GitHub or GitLab, with a main branch that pull requests merge into",
        "docker or buildah for the image: pipelines bring their own",
        "people who approve: the environment production, with required reviewers",
    ),
}


@dataclass(frozen=True)
class Preview:
    """What other answers change in a project."""

    added: list[str]
    changed: list[str]
    new_answers: dict[str, Any]


def up(project: Path, options: list[str], *, yes: bool) -> None:
    """Raise a project's level by one.

    Args:
        project: The top of its repository.
        options: Answers to the new level's questions, as NAME=VALUE.
        yes: Do not ask for confirmation.

    Raises:
        UsageError: The project is at the highest level, or cannot be updated.
        RefusedError: There are conflicts, or one of the new level's checks fails.
    """
    answers = pre_update.check(project)
    if answers["_src_path"] == PACKAGED:
        raise UsageError(
            f"{project} was created from a package: run `rung update --template URL` first"
        )
    level = int(answers.get("level", 0)) + 1
    if level not in LEVELS:
        raise UsageError(f"{project} is at level {answers['level']}, the highest there is")
    template = update.installed_version(answers)
    data = parse_answers(options, template)
    if "level" in data:
        raise UsageError("rung up raises the level by one: omit --data level")
    data["level"] = level
    changes = preview(template, answers, data)
    echo(describe(changes, level))
    if not yes and not confirm():
        raise RefusedError("nothing was changed")
    update.merge_version(project, template, answers, data, shown=changes.new_answers)
    update.finish(project)


def describe(changes: Preview, level: int) -> str:
    """Return what a level adds, changes, asks and needs, for a person to decide."""
    machinery = [name for name in changes.added if name.startswith(RUNTIME)]
    lines = []
    for folder, names in groupby(
        sorted(set(changes.added) - set(machinery), key=by_folder), parent_folder
    ):
        listed = ", ".join(PurePosixPath(name).name for name in names)
        lines.append(f"  {listed}" if folder == "." else f"  {folder}/: {listed}")
    if machinery:
        lines.append(f"  {RUNTIME}: {len(machinery)} files of the runtime")
    parts = ["\n".join([f"Level {level} adds {len(changes.added)} files:", *lines]) + "\n"]
    changed = [name for name in changes.changed if not name.startswith(RUNTIME)]
    parts.append(f"It changes {', '.join([*changed, 'uv.lock'])}.")
    if changes.new_answers:
        defaults = "".join(f"\n  {name}: {value}" for name, value in changes.new_answers.items())
        parts.append(f"\nNew settings, which --data NAME=VALUE changes:{defaults}")
    parts.append(f"\nIt needs:{bullets(NEEDS[level])}\n")
    parts.append("Its checks include a full training run, and take minutes.\n")
    return "\n".join(parts)


def preview(template: Template, answers: dict[str, Any], data: dict[str, Any]) -> Preview:
    """Return what a project's files and answers become with other answers.

    Args:
        template: The version that the project has.
        answers: The project's.
        data: Those that change.
    """
    questions = read_questions(template)
    asked_before = {name: value for name, value in answers.items() if name in questions}
    with TemporaryDirectory(prefix="rung-") as temporary:
        old_render = Path(temporary, "old")
        new_render = Path(temporary, "new")
        render(template, old_render, asked_before)
        new_answers = render(template, new_render, asked_before | data)
        old_files = list_files(old_render)
        new_files = list_files(new_render)
        changed = [
            name
            for name in sorted(old_files & new_files)
            if (old_render / name).read_bytes() != (new_render / name).read_bytes()
        ]
    seeds = seed_paths(template, str(answers["package_name"]))
    return Preview(
        added=sorted(new_files - old_files, key=by_folder),
        changed=[name for name in changed if not name.startswith(seeds)],
        new_answers={name: value for name, value in new_answers.items() if name not in answers},
    )


def by_folder(name: str) -> tuple[str, str]:
    """Return a key that sorts the files of a folder together."""
    return parent_folder(name), name


def parent_folder(name: str) -> str:
    """Return the folder of a file."""
    return str(PurePosixPath(name).parent)


def seed_paths(template: Template, package: str) -> tuple[str, ...]:
    """Return the files and folders that an update leaves to the team."""
    rows = yaml.safe_load(template.read("copier/paths.yml"))
    paths = [row["path"] for row in rows if row["class"] == "seed"]
    return tuple(path[1:].replace("{{ package_name }}", package) for path in paths)
