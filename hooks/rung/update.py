"""`rung update`: what the template has learned comes into a project, or all is as it was."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import BadInputError, RefusedError, kept, post_update, pre_update, source
from .tools import git, say

ABORTED = "refs/rung/aborted"
NEXT = "Next: git add --all, git diff --cached, git commit."


def update(
    project: Path, url: str | None, ref: str | None, said: list[str], *, check: bool
) -> None:
    """Bring a project to a version of its template, by default the newest.

    Args:
        project: The top of its repository.
        url: Where the template is, if the project's answers do not know it.
        ref: A version of the template; else the newest.
        said: New answers, NAME=VALUE.
        check: Only say whether there is something new.

    Raises:
        BadInputError: The update cannot begin.
        RefusedError: There is something new, of `check`; else there are conflicts, or what the
            project checks fails.
    """
    known = source.answers(project) if check else pre_update.check(project)
    if url and not check:
        known = moved(project, known, source.addressed(url))
    if known["_src_path"] == source.PACKED:
        raise BadInputError(
            f"{project} came from a package: name the template's address, --template"
        )
    template = source.found(url or known["_src_path"], ref)
    data = source.parsed(said, template)
    new = source.behind(template, known["_commit"])
    if not new and all(known.get(name) == value for name, value in data.items()):
        have = known["_commit"]
        say(f"Nothing to update: the project has {have}, and {template.name} is no newer.")
        return
    if new:
        news = source.changes(template, known["_commit"])
        say(f"{known['_commit']} → {template.name}\n\n{news}\n")
    if check:
        have = known["_commit"]
        raise RefusedError(f"{template.name} is new, and the project has {have}: rung update")
    bring(project, template if new else had(known), known, data)
    post_update.check(project)
    say(f"\nThe project has {template.name}, and its checks pass. {NEXT}")


def had(known: Mapping[str, Any]) -> source.Source:
    """Give the version that a project has."""
    return source.found(known["_src_path"], known["_commit"])


def bring(
    project: Path, template: source.Source, known: dict[str, Any], data: Mapping[str, Any]
) -> None:
    """Have Copier merge a version into a project.

    Raises:
        BadInputError: Copier refuses, or would lose lines of the team; the project is as before.
        RefusedError: There are conflicts, which are in the files.
    """
    from copier import run_update

    pre_update.keep(project, template, known)
    before = git(project, "rev-parse", "HEAD")
    try:
        with source.told():
            run_update(
                project,
                data=dict(data),
                defaults=True,
                skip_answered=True,
                overwrite=True,
                quiet=True,
                unsafe=False,
                vcs_ref=template.commit,
            )
        with TemporaryDirectory(prefix="rung-") as folder:
            questions = source.questions(source.found(known["_src_path"], known["_commit"]))
            own = {name: value for name, value in known.items() if name in questions}
            old = Path(folder, "old")
            source.render(source.found(known["_src_path"], known["_commit"]), old, own)
            lost = kept.lost(old, project, before)
        if lost:
            listed = "".join(
                f"\n  - {name}: {lines[0].decode(errors='replace').strip()}"
                + f" (and {len(lines) - 1} more)" * (len(lines) > 1)
                for name, lines in lost.items()
            )
            raise BadInputError(
                f"the update would lose lines of yours:{listed}\n"
                "Copy them elsewhere, take them out and commit, then try again; nothing was changed"
            )
    except BaseException:
        restore(project)
        raise
    for name, value in source.answers(project).items():
        if name not in known:
            say(f"New: {name} is {value}; another answer is given with --data {name}=…")
    if left := post_update.conflicts(project):
        listed = "".join(f"\n  - {name}" for name in left)
        raise RefusedError(
            f"your changes and the template's meet in {len(left)} file(s):{listed}\n"
            "Both stand between <<<<<<< and >>>>>>>: keep what is right, then `git add` the file.\n"
            "To finish: rung update --continue. To have all as before: rung update --abort"
        )


def go_on(project: Path) -> None:
    """Finish an update whose conflicts are merged.

    Raises:
        BadInputError: No update is under way.
        RefusedError: Conflicts are left, or what the project checks fails.
    """
    note = pre_update.kept(project)
    post_update.check(project)
    say(f"\nThe project has {note['to']}, and its checks pass. {NEXT}")


def abort(project: Path) -> None:
    """Restore exactly what was before the update that is under way.

    What is there now is kept as the commit `ABORTED`, so that no work on conflicts is lost.

    Raises:
        BadInputError: No update is under way, or it was committed.
    """
    note = pre_update.kept(project)
    if git(project, "rev-parse", "HEAD") != note["head"]:
        raise BadInputError(f"the update of {project} was committed: git revert takes it back")
    with TemporaryDirectory() as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        git(project, "read-tree", "HEAD", **index)
        git(project, "add", "--all", **index)
        tree = git(project, "write-tree", **index)
        who = {
            f"GIT_{who}_{what}": "rung"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        }
        commit = git(project, "commit-tree", tree, "-p", "HEAD", "-m", "An update, aborted", **who)
        git(project, "update-ref", ABORTED, commit)
    restore(project)
    say(f"All is as it was before the update. What was there is kept: git show {ABORTED}")


def restore(project: Path) -> None:
    """Bring back the commit that was, and the files that Git ignores."""
    note, folder = pre_update.kept(project), pre_update.record(project)
    git(project, "reset", "--quiet", "--hard", note["head"])
    # All was committed before, so that what Git does not know came with the update.
    git(project, "clean", "--quiet", "-d", "--force")
    for path in note["ignored"]:
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / "ignored" / path, project / path)
    shutil.rmtree(folder)


def moved(project: Path, known: dict[str, Any], url: str) -> dict[str, Any]:
    """Write another address of the template into a project's answers, as a commit of its own."""
    if known["_src_path"] == url:
        return known
    template = source.found(url, known["_commit"])
    file = project / source.ANSWERS
    text = file.read_text("utf-8").splitlines(keepends=True)
    new = {"_src_path": url, "_commit": template.name}
    file.write_text(
        "".join(
            f"{key}: {new[key]}\n" if (key := line.partition(":")[0]) in new else line
            for line in text
        ),
        "utf-8",
    )
    git(
        project,
        "commit",
        "--quiet",
        "--no-verify",
        "-m",
        f"The template is at {url}",
        "--",
        source.ANSWERS,
    )
    return known | new
