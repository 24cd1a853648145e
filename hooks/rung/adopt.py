"""`rung adopt`: what is there becomes a project, and no byte of it is lost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import (
    BadInputError,
    RefusedError,
    beside,
    carry,
    graft,
    guess,
    lock,
    meet,
    merged,
    notebooks,
    pyproject,
    source,
    target,
    told,
)
from .merged import decoded, encoded
from .repository import Repository, looked
from .tools import git, plain, say
from .up import agreed
from .use import take

HOOKS, PYPROJECT = ".pre-commit-config.yaml", "pyproject.toml"
FIRST, STAYED = "Not done yet", "Files that are on both sides"


@dataclass
class Made:
    """All that is decided before anything is written."""

    plan: meet.Plan
    written: dict[str, bytes]
    sections: dict[str, list[str]] = field(default_factory=dict)  # of the report, in its order
    file: str | None = None
    target: str | None = None


def adopt(
    folder: Path,
    template: source.Source,
    data: Mapping[str, Any],
    *,
    ask: bool,
    yes: bool,
    pretend: bool,
    file: str | None = None,
    column: str | None = None,
) -> None:
    """Make a project of what is in a folder: on a branch, or beside it where there is no Git.

    Args:
        folder: The top of a repository, or a folder without one.
        template: What it becomes a project of.
        data: Answers, by the names of questions.
        ask: Ask the other questions, with what was guessed as defaults.
        yes: Do not ask whether to go on.
        pretend: Only say what would be done.
        file: The data to use, if it is not to be guessed.
        column: The target, if it is not to be guessed.

    Raises:
        BadInputError: It cannot be adopted, and nothing was changed.
        RefusedError: Something could not be done, which has been said.
    """
    repository = looked(folder)
    with plain():
        likely = guessed(repository, template, data)
        with TemporaryDirectory(prefix="rung-") as stage:
            render = Path(stage, "render")
            about = source.render(template, render, data, ask=ask, likely=likely)
            made = prepared(repository, render, about, (file, column), Path(stage))
            say(f"\n{made.plan.tell(repository.names, git=repository.git)}\n")
            if pretend:
                say("Nothing was changed.")
                return
            if ask and not yes and not agreed():
                raise RefusedError("nothing was changed")
            if repository.git:
                grafted(repository, template, render, made, str(about["project_name"]))
            else:
                beside.write(folder, render, made.plan, made.written)
                made.sections[STAYED] = beside.told(made.plan)
                made.sections["Next"] = told.without_git()
        problem = take(repository, made)
    if problem:
        made.sections[FIRST].insert(0, problem)
    say(f"\n{told.report(made.sections)}")
    if problem:
        raise RefusedError(f"adopted, but for this: {problem}")


def guessed(
    repository: Repository, template: source.Source, data: Mapping[str, Any]
) -> dict[str, Any]:
    """Guess the answers that were not given, and say why these."""
    remotes = git(repository.folder, "remote", "-v") if repository.git else ""
    found = guess.answers(repository.folder, repository.names, remotes, taken(template))
    say("Guessed:")
    for name, one in found.items():
        if name not in data:
            value = ", ".join(one.value) if isinstance(one.value, list) else one.value
            say(f"  {name}: {value} ({one.why})")
    return {name: one.value for name, one in found.items()}


def taken(template: source.Source) -> set[str]:
    """Give the names that a template's package may not have."""
    path = "copier/names.jinja"
    if template.commit is None:
        text = (source.PACKAGE_DATA / path).read_text("utf-8")
    else:
        text = git(source.history(template.url), "show", f"{template.commit}:{path}")
    return set(re.findall(r"\w+", "".join(re.findall(r'"""(.*?)"""', text, re.DOTALL))))


def prepared(
    repository: Repository,
    render: Path,
    about: Mapping[str, Any],
    asked: tuple[str | None, str | None],
    stage: Path,
) -> Made:
    """Decide on everything: each file, the requirements, the lock, the data, the report.

    Raises:
        BadInputError: Something stands where the project writes.
        RefusedError: The project's requirements cannot be locked.
    """
    folder, package = repository.folder, str(about["package_name"])
    rendered = {name: (render / name).read_bytes() for name in sorted(source.files(render))}
    theirs = {name: repository.read(name) for name in meet.clash(repository.names, rendered)}
    plan = meet.plan(rendered, theirs, repository.names, repository.crlf())
    free(repository, [*rendered] if repository.git else [*beside.targets(plan)], package)
    made = Made(plan, dict(plan.merged))
    there = [plan.moved.get(name, name) for name in (*repository.names, *repository.others)]
    there = [f"{name}/" if (folder / name).is_dir() else name for name in there]  # a submodule
    left_out = meet.left_out(there, rendered, package)
    found = [*notebooks.pieces(folder, repository.names)]
    made.sections[FIRST] = chosen(repository, made, found, asked)
    made.sections["Requirements that changed"] = requires(
        repository, made, decoded(rendered[PYPROJECT]), left_out, stage / "lock"
    )
    if HOOKS not in plan.stays:
        own = decoded(theirs[HOOKS]) if HOOKS in theirs else None
        text, _ = merged.pre_commit(decoded(rendered[HOOKS]), own, left_out["hooks"])
        made.written[HOOKS] = encoded(text)
    python = guess.python(folder)
    code = [name for name in there if name.endswith(meet.CODE)]
    made.sections |= {
        "Code of yours, and where in the project it belongs": notebooks.moves(found, package),
        STAYED: [*plan.moves(), *plan.notes],
        "Left alone by ruff, mypy, pytest and the hooks, until you take it out of "
        f"{PYPROJECT} and {HOOKS}": meet.outside(code, rendered),
        "Python": [f"{python.why} asks for {python.value}; a project needs 3.11 or newer"]
        if python and guess.too_old(str(python.value))
        else [],
    }
    return made


def free(repository: Repository, paths: Sequence[str], package: str) -> None:
    """See that nothing stands where the project writes.

    Raises:
        BadInputError: Something does; all of it is named.
    """
    tracked = repository.names if repository.git else None
    missing = meet.obstacles(repository.folder, paths, tracked)
    if any(name.startswith(f"src/{package}/") for name in repository.names):
        missing.append(f"src/{package}/ is there: give the new package another name, package_name")
    if missing:
        listed = "".join(f"\n  - {one}" for one in missing)
        said = f"{repository.folder} cannot be adopted yet:{listed}\nNothing was written"
        raise BadInputError(said)


def requires(
    repository: Repository, made: Made, ours: str, left_out: dict[str, list[str]], stage: Path
) -> list[str]:
    """Carry the requirements into the project's pyproject.toml, lock it, and say what changed.

    Raises:
        RefusedError: The project's own requirements cannot be locked.
    """
    carried = carry.requirements(repository.folder, repository.names)
    said, wanted, known = carried.notes, {}, carry.known(ours)
    for name, one in carried.found.items():
        if name not in known:
            wanted[name] = one
        elif str(one.specifier):
            other = "the project needs" if carry.together(one, known[name]) else "does not go with"
            said.append(f"{one} ({carried.source[name]}): {other} {known[name]}, which is kept")
    own = decoded(repository.read(PYPROJECT)) if PYPROJECT in made.plan.both else ""
    python = guess.python(repository.folder)
    asked = str(python.value) if python else ""
    for name, of in made.plan.stays.items():
        if of == "README.md":
            ours = ours.replace('readme = "README.md"', f'readme = "{name}"')
    stage.mkdir()
    if "uv.lock" in repository.names:
        (stage / "uv.lock").write_bytes(repository.read("uv.lock"))
    locked = lock.lock(
        stage,
        wanted,
        lambda kept, left: pyproject.merged(ours, own, asked, left_out, kept, left)[0],
    )
    made.written |= {PYPROJECT: encoded(locked.pyproject), "uv.lock": locked.lock}
    _, dropped = pyproject.merged(ours, own, asked, left_out, [], [])
    said += locked.changed
    made.sections[FIRST] += [
        f"{one} goes with the others in no version: a comment in {PYPROJECT}" for one in locked.left
    ]
    if dropped:
        said.append(f"of your {PYPROJECT}, not in the new one: {', '.join(dropped)}")
    return said


def chosen(
    repository: Repository,
    made: Made,
    found: Sequence[notebooks.Piece],
    asked: tuple[str | None, str | None],
) -> list[str]:
    """Choose the data and the target, and say what is not known."""
    made.file, about = target.chosen(repository.folder, repository.tables, found, *asked)
    made.target = str(about.value) if about else None
    if not made.file:
        return [f"no table was found: {told.use(None, made.target)}"]
    if not about:
        return [f"which column is predicted was not found: {told.use(made.file, None)}"]
    say(f"  data: {made.file}\n  target: {made.target} ({about.why})")
    return []


def grafted(
    repository: Repository, template: source.Source, render: Path, made: Made, project: str
) -> None:
    """Make the branch, and go there."""
    folder, plan = repository.folder, made.plan
    orphan = graft.orphan(folder, render, f"What Rung {template.name} makes of {project}")
    made.sections[STAYED] += [
        f"{own}: yours; the template's: git show {orphan[:9]}:{name}"
        for own, name in plan.stays.items()
    ]
    made.sections["Next"] = told.afterwards(repository.base)
    commit = graft.merge(
        folder,
        orphan,
        added=plan.added,
        moved=plan.moved,
        written=made.written,
        message=f"Adopt Rung {template.name}\n\n{told.report(made.sections)}\n",
    )
    graft.switch(folder, told.BRANCH, commit)
