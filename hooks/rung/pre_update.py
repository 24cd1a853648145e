"""Before an update: may it begin? And what was before, so that it can be taken back.

`python -m rung.pre_update DIR` says whether a project can be updated, and changes nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from . import BadInputError, source
from .tools import asks, ended, git, names

RECORD = "rung"  # in Git's own folder


def check(project: Path) -> dict[str, Any]:
    """See that a project can be updated, and give its answers.

    Raises:
        BadInputError: It is no project, or something of it is not in Git yet.
    """
    known = source.answers(project)
    if not asks(project, "rev-parse", "-q", "--verify", "HEAD"):
        raise BadInputError(f"{project} has no commit yet: run make setup, or commit what is there")
    if Path(git(project, "rev-parse", "--show-toplevel")).resolve() != project.resolve():
        raise BadInputError(
            f"{project} is within another repository: only the top of one can be updated"
        )
    for name in ("MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD", "rebase-merge", "rebase-apply"):
        if (project / git(project, "rev-parse", "--git-path", name)).exists():
            raise BadInputError(
                f"{project} is in the middle of a merge or rebase: finish or abort it"
            )
    if changed := names(git(project, "status", "--porcelain", "-z")):
        some = ", ".join(one[3:] for one in changed[:3]) + ", …" * (len(changed) > 3)
        raise BadInputError(
            f"not everything of {project} is committed ({some}): commit or stash it, then try again"
        )
    return known


def record(project: Path) -> Path:
    """Give the folder, in Git's own, where what was before an update is kept."""
    return project / git(project, "rev-parse", "--git-path", RECORD)


def keep(project: Path, template: source.Source, answers: dict[str, Any]) -> None:
    """Note what is now: the commit, and the files that Git ignores where the template writes."""
    folder = record(project)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    kept = []
    for path in ignored(project, template, str(answers["package_name"])):
        copy = folder / "ignored" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project / path, copy)
        kept.append(path)
    note = {"head": git(project, "rev-parse", "HEAD"), "from": answers["_commit"], "ignored": kept}
    (folder / "update.json").write_text(json.dumps(note | {"to": template.name}), "utf-8")


def kept(project: Path) -> dict[str, Any]:
    """Read what was before the update that is under way.

    Raises:
        BadInputError: None is.
    """
    try:
        note: dict[str, Any] = json.loads((record(project) / "update.json").read_text("utf-8"))
    except FileNotFoundError:
        raise BadInputError(
            f"no update is under way in {project}: there is nothing to abort"
        ) from None
    return note


def ignored(project: Path, template: source.Source, package: str) -> list[str]:
    """Name the files that Git ignores and that a render may overwrite."""
    folder = source.history(template.url)
    tree = git(folder, "ls-tree", "-r", "-z", "--name-only", str(template.commit), "template/")
    paths = set()
    for name in names(tree):
        path = name.removeprefix("template/").removesuffix(".jinja")
        path = re.sub(r"\{%.*?%\}", "", path).replace("{{package_name}}", package)
        if (project / path).is_file():
            paths.add(str(PurePosixPath(path)))
    tracked = set(names(git(project, "ls-files", "-z")))
    return sorted(paths - tracked)


if __name__ == "__main__":
    sys.exit(ended(lambda: bool(check(Path(sys.argv[1]))) and 0))
