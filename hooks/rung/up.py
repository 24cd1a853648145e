"""`rung up`: the next level, at the version of the template that a project has."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from . import BadInputError, RefusedError, pre_update, source, update
from .tools import git, say

# What a level needs that no file brings.
NEEDS = {
    1: (
        "a place for models: the folder registry/ until config/delivery.yaml names another",
        "a machine that stays, to serve on: this one until the variable ML_RUNNER names another",
        "new rows and their labels now and then: ml data add, ml labels add",
    ),
    2: (
        "a repository on GitHub or GitLab, with a main branch that pull requests merge into",
        "docker or buildah for the image: pipelines bring theirs",
        "people who approve: the environment production, with required reviewers",
    ),
}


def up(project: Path, said: list[str], *, yes: bool) -> None:
    """Raise a project's level by one.

    Args:
        project: The top of its repository.
        said: Answers to the new level's questions, NAME=VALUE.
        yes: Do not ask whether to go on.

    Raises:
        BadInputError: It is at the top, or cannot be updated.
        RefusedError: There are conflicts, or a check of the new level fails.
    """
    known = pre_update.check(project)
    if known["_src_path"] == source.PACKED:
        raise BadInputError(f"{project} came from a package: rung update --template URL first")
    level = int(known.get("level", 0)) + 1
    if level not in source.LEVELS:
        raise BadInputError(f"{project} is at level {known['level']}, the highest there is")
    template = update.had(known)
    if "level" in (data := source.parsed(said, template)):
        raise BadInputError("rung up raises the level by one: leave --data level out")
    data["level"] = level
    added, changed, new = adds(template, known, data)
    folders = groupby(added, parent)
    listed = "".join(
        f"\n  {where}/: {', '.join(PurePosixPath(name).name for name in names)}"
        for where, names in folders
    ).replace("\n  ./: ", "\n  ")
    needs = "".join(f"\n  - {one}" for one in NEEDS[level])
    say(f"Level {level} adds {len(added)} files:{listed}\n")
    say(f"It changes {', '.join([*changed, 'uv.lock'])}.")
    if answers := "".join(f"\n  {name}: {value}" for name, value in new.items()):
        say(f"\nIt asks, and without --data NAME=VALUE takes:{answers}")
    say(f"\nIt needs:{needs}\n\nIts checks, a whole training among them, take minutes.\n")
    if not yes and not agreed():
        raise RefusedError("nothing was changed")
    update.bring(project, template, known, data)
    update.finish(project)


def agreed() -> bool:
    """Ask a person whether to go on.

    Raises:
        BadInputError: There is no terminal to ask in.
    """
    try:
        return input("Go on? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        raise BadInputError("there is no terminal to ask in: add --yes") from None


def adds(
    template: source.Source, known: dict[str, Any], data: dict[str, Any]
) -> tuple[list[str], list[str], dict[str, Any]]:
    """Name the files that other answers add to a render, those they change, and new answers."""
    questions = source.questions(template)
    own = {name: value for name, value in known.items() if name in questions}
    with TemporaryDirectory(prefix="rung-") as folder:
        old, new = Path(folder, "old"), Path(folder, "new")
        source.render(template, old, own)
        answers = source.render(template, new, own | data)
        had, has = source.files(old), source.files(new)
        both = sorted(had & has)
        changed = [n for n in both if (old / n).read_bytes() != (new / n).read_bytes()]
        kept = seeds(template, str(own["package_name"]))
    added = sorted(has - had, key=lambda name: (parent(name), name))
    more = {name: value for name, value in answers.items() if name not in known}
    return added, [name for name in changed if not name.startswith(kept)], more


def parent(name: str) -> str:
    """Give the folder of a file of a project."""
    return str(PurePosixPath(name).parent)


def seeds(template: source.Source, package: str) -> tuple[str, ...]:
    """Name the files and folders that an update leaves to the team."""
    text = git(source.history(template.url), "show", f"{template.commit}:copier/paths.yml")
    rows = yaml.safe_load(text)
    paths = [row["path"] for row in rows if row["class"] == "seed"]
    return tuple(path[1:].replace("{{ package_name }}", package) for path in paths)
