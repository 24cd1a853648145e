"""`rung update`: what the template has learned comes into a project, or all is as it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import BadInputError, RefusedError, imports, kept, moves, post_update, pre_update, source
from .tools import git, names, say

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
    address = source.addressed(url) if url else known["_src_path"]
    if address == source.PACKED:
        raise BadInputError(
            f"{project} came from a package: name the template's address, --template"
        )
    template = source.found(address, ref)
    data = source.parsed(said, template)
    have, new = known["_commit"], source.behind(template, known["_commit"])
    same = all(known.get(name) == value for name, value in data.items())
    if new:
        say(f"{have} → {template.name}\n\n{source.changes(template, have)}\n")
    elif same or check:
        newest = "the newest" if have == template.name else f"and {template.name} is no newer"
        say(f"Nothing to update: the project has {have}, {newest}.")
    if check:
        if new:
            raise RefusedError(f"{template.name} is new, and the project has {have}: rung update")
        return
    head = git(project, "rev-parse", "HEAD")
    if known["_src_path"] != address:
        known = moved(project, known, address)
    if new or not same:
        bring(project, template if new else had(known), known, data, head)
        finish(project)


def finish(project: Path) -> None:
    """Relock, run the project's checks, and those of a level that is new to it.

    Raises:
        RefusedError: A check failed, or there are conflicts.
    """
    note, level = pre_update.kept(project), source.answers(project)["level"]
    post_update.check(project, note.get("rewritten", []))
    if level > note["level"]:
        post_update.rehearse(project)
    is_at = f"is at level {level}" if level > note["level"] else f"has {note['to']}"
    say(f"\nThe project {is_at}, and its checks pass. {NEXT}")


def had(known: Mapping[str, Any]) -> source.Source:
    """Give the version that a project has."""
    return source.found(known["_src_path"], known["_commit"])


def bring(
    project: Path,
    template: source.Source,
    known: dict[str, Any],
    data: Mapping[str, Any],
    head: str | None = None,
) -> None:
    """Have Copier merge a version into a project.

    Args:
        project: The top of its repository.
        template: The version.
        known: The project's answers.
        data: Answers that change.
        head: The commit to come back to, if that is not where the project is.

    Raises:
        BadInputError: Copier refuses, or would lose lines of the team; the project is as before.
        RefusedError: There are conflicts, which are in the files.
    """
    from copier import run_update

    before = git(project, "rev-parse", "HEAD")
    pre_update.keep(project, template, known, head or before)
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
            was, old, new = had(known), Path(folder, "old"), Path(folder, "new")
            answered(was, old, known)
            answered(template, new, source.answers(project))
            moved_files = moves.between(template, str(known["package_name"]), old, new)
            moves.carry(project, moved_files, old, before)
            places = {move.old: move.new for move in moved_files}
            lost = kept.lost(old, project, before, places) | overwritten(project, old)
            deleted(project, old, before)
            moves.prune(project, before)
            rewritten = rename_imports(project, old, moved_files, before)
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
    pre_update.note(project, ended=True, rewritten=rewritten)
    tell_moves(project, moved_files, rewritten)
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


def answered(version: source.Source, to: Path, known: Mapping[str, Any]) -> None:
    """Render a version by those of a project's answers that it asks for."""
    questions = source.questions(version)
    source.render(version, to, {name: known[name] for name in known if name in questions})


def rename_imports(
    project: Path, old: Path, moved_files: list[moves.Move], before: str
) -> list[str]:
    """Have the team's own Python files import from where modules have moved to.

    Returns:
        The files that were changed.
    """
    if not moved_files:
        return []
    packages = {m.old: (old / m.old).read_text("utf-8") for m in moved_files if "__init__" in m.old}
    known = imports.renames(moved_files, packages)
    arrived = {move.new for move in moved_files}
    changed = []
    for name in names(git(project, "ls-tree", "-r", "-z", "--name-only", before)):
        path = project / name
        if not name.endswith(".py") or name in arrived or path.is_symlink() or not path.is_file():
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        if (new := imports.rewritten(text, name, known)) != text:
            path.write_bytes(new.encode("utf-8"))
            changed.append(name)
    return changed


def tell_moves(project: Path, moved_files: list[moves.Move], rewritten: list[str]) -> None:
    """Say what moved, whose imports were changed, and which other files name the old places."""
    if not moved_files:
        return
    say(f"{len(moved_files)} files moved, such as {moved_files[0].old} → {moved_files[0].new}.")
    if rewritten:
        say("Imports of what moved were changed in:\n  " + "\n  ".join(rewritten))
    if left := moves.mentions(project, moved_files):
        say("These name what moved, and were left as they are:\n  " + "\n  ".join(left))


def overwritten(project: Path, old: Path) -> dict[str, list[bytes]]:
    """Give the lines of files that Git ignores, where the template has written its own."""
    found = {}
    for path in pre_update.kept(project)["ignored"]:
        saved = kept.content(pre_update.record(project) / "ignored" / path)
        if saved not in (kept.content(project / path), kept.content(old / path)):
            found[path] = saved.splitlines() or [b"(empty)"]
    return found


def deleted(project: Path, old: Path, before: str) -> None:
    """Take away again what the team had deleted: Copier brings back seeds that a level brought."""
    had = set(names(git(project, "ls-tree", "-r", "-z", "--name-only", before)))
    there = set(pre_update.kept(project)["ignored"])
    for path in source.files(old) - had - there:
        (project / path).unlink(missing_ok=True)


def abort(project: Path) -> None:
    """Restore exactly what was before the update that is under way.

    What is there now is kept as the commit `ABORTED`, so that no work on conflicts is lost.

    Raises:
        BadInputError: No update is under way, or it was committed.
    """
    pre_update.kept(project)
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
    for path in note["new"]:
        if (project / path).is_file():  # and ignored: what is not is gone by now
            (project / path).unlink()
    for path in note["ignored"]:
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).unlink(missing_ok=True)
        shutil.copy2(folder / "ignored" / path, project / path, follow_symlinks=False)
    shutil.rmtree(folder)


def moved(project: Path, known: dict[str, Any], url: str) -> dict[str, Any]:
    """Write another address of the template into a project's answers, as a commit of its own.

    Raises:
        BadInputError: It cannot be committed; the answers are as they were.
    """
    new = {"_src_path": url, "_commit": source.found(url, known["_commit"]).name}
    file = project / source.ANSWERS
    before = file.read_text("utf-8")
    lines = []
    for line in before.splitlines(keepends=True):
        key = line.partition(":")[0]
        lines.append(f"{key}: {json.dumps(new[key])}\n" if key in new else line)
    message = f"The template is at {url}"
    try:
        file.write_text("".join(lines), "utf-8")
        git(project, "commit", "--quiet", "--no-verify", "-m", message, "--", source.ANSWERS)
    except BaseException:
        file.write_text(before, "utf-8")
        raise
    return known | new
