"""Before an update: may it begin? And what was before, so that it can be taken back.

`python -m rung.pre_update DIR` says whether a project can be updated, and changes nothing.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from . import BadInputError, source
from .tools import asks, ended, git, has_commit, names, unfinished

RECORD = "rung"  # in Git's own folder
LINK = "120000"  # the mode of a symbolic link in a tree


def check(project: Path) -> dict[str, Any]:
    """See that a project can be updated, and give its answers.

    Raises:
        BadInputError: It is no project, or something of it is not in Git yet.
    """
    known = source.answers(project)
    if not has_commit(project):
        raise BadInputError(f"{project} has no commit yet: run make setup, or commit what is there")
    if Path(git(project, "rev-parse", "--show-toplevel")).resolve() != project.resolve():
        raise BadInputError(
            f"{project} is within another repository: only the top of one can be updated"
        )
    if unfinished(project):
        raise BadInputError(f"{project} is in the middle of a merge or rebase: finish or abort it")
    if changed := names(
        git(project, "status", "--porcelain", "--untracked-files=all", "--no-renames", "-z")
    ):
        if under_way(project):
            raise BadInputError(
                f"an update of {project} is under way: `rung update --continue` finishes it, "
                "`rung update --abort` takes it back"
            )
        some = ", ".join(one[3:] for one in changed[:3]) + ", …" * (len(changed) > 3)
        raise BadInputError(
            f"not everything of {project} is committed ({some}): commit or stash it, then try again"
        )
    shown = names(git(project, "status", "--porcelain", "--ignored", "-z"))
    if rejected := [row[3:] for row in shown if row.endswith(".rej")]:
        raise BadInputError(
            f"{rejected[0]} looks like what a merge leaves: rename or remove it, then try again"
        )
    listed = names(git(project, "ls-files", "-v", "-z"))
    overlooked = [row[2:] for row in listed if row[0] == "S" or row[0].islower()]
    if some := ", ".join(name for name in overlooked if (project / name).exists()):
        raise BadInputError(
            f"Git is told to overlook changes of {some}: "
            "git update-index --no-skip-worktree --no-assume-unchanged FILE, then commit them"
        )
    return known


def record(project: Path) -> Path:
    """Give the folder, in Git's own, where what was before an update is kept."""
    return project / git(project, "rev-parse", "--git-path", RECORD)


def keep(project: Path, template: source.Source, answers: dict[str, Any], head: str) -> None:
    """Note what is now: the commit, and the files that Git ignores where the template writes.

    Args:
        project: What is updated.
        template: The version that comes.
        answers: Those before.
        head: The commit to come back to.
    """
    folder = record(project)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tracked = set(names(git(project, "ls-files", "-z")))
    may = sorted(written(template, str(answers["package_name"])) - tracked)
    kept = [path for path in may if (project / path).is_file()]
    new = [path for path in may if not os.path.lexists(project / path)]
    for path in kept:
        copy = folder / "ignored" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project / path, copy, follow_symlinks=False)
    at = git(project, "rev-parse", "HEAD")
    about = {"to": template.name, "level": answers["level"], "ignored": kept, "new": new}
    note(project, head=head, at=at, **about)


def note(project: Path, **more: Any) -> None:
    """Write into the record of an update."""
    file = record(project) / "update.json"
    known = json.loads(file.read_text("utf-8")) if file.exists() else {}
    file.write_text(json.dumps(known | more), "utf-8")


def under_way(project: Path) -> dict[str, Any] | None:
    """Read the record of the update that is under way, if one is.

    None is once its commit is left, or its changes are: a merge that ended changes the answers.
    """
    file = record(project) / "update.json"
    if not file.exists():
        return None
    known: dict[str, Any] = json.loads(file.read_text("utf-8"))
    here = git(project, "rev-parse", "HEAD") == known["at"]
    merged = not asks(project, "diff", "--quiet", "HEAD", "--", source.ANSWERS)
    return known if here and (merged or not known.get("ended")) else None


def kept(project: Path) -> dict[str, Any]:
    """Read what was before the update that is under way.

    Raises:
        BadInputError: None is.
    """
    if (known := under_way(project)) is None:
        raise BadInputError(
            f"no update is under way in {project}: one that was committed, git revert takes back"
        )
    return known


def written(template: source.Source, package: str) -> set[str]:
    """Name the files that a render may write, whatever the answers."""
    folder = source.history(template.url)
    paths = set()
    for name in tree(folder, str(template.commit), "template"):
        path = name.removeprefix("template/").removesuffix(".jinja")
        path = re.sub(r"\{%.*?%\}", "", path).replace("{{package_name}}", package)
        paths.add(str(PurePosixPath(path)))
    return paths


def tree(repository: Path, commit: str, folder: str) -> list[str]:
    """Name the files under a folder of a commit; where a link leads to a folder, those in it."""
    found = []
    for entry in names(git(repository, "ls-tree", "-r", "-z", commit, f"{folder}/")):
        mode, _, rest = entry.partition(" ")
        name = rest.partition("\t")[2]
        if mode == LINK:
            target = git(repository, "cat-file", "blob", f"{commit}:{name}")
            place = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
            if asks(repository, "cat-file", "-e", f"{commit}:{place}/"):  # a folder
                inside = tree(repository, commit, place)
                found += [name + path.removeprefix(place) for path in inside]
                continue
        found.append(name)
    return found


if __name__ == "__main__":
    sys.exit(ended(lambda: bool(check(Path(sys.argv[1]))) and 0))
