"""`rung update`: bring a newer version of the template into a project, or change nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from . import imports, moves, pins, post_update, pre_update
from .console import bullets, echo
from .exceptions import RefusedError, UsageError
from .git import commit, git, split_nul
from .lost_lines import find_lost_lines, read_content
from .template import (
    ANSWERS,
    PACKAGED,
    Template,
    changelog_since,
    copier_errors,
    is_newer,
    list_files,
    normalize_url,
    parse_answers,
    read_answers,
    read_questions,
    render,
    resolve_version,
)

ABORTED = "refs/rung/aborted"
PRUNED = "pruned"  # in the record's folder: compiled Python of folders that are gone
NEXT_STEPS = "Next: git add --all, git diff --cached, git commit."


def update(
    project: Path, url: str | None, ref: str | None, options: list[str], *, check: bool
) -> None:
    """Update a project to a version of its template.

    Args:
        project: The top of its repository.
        url: The template's address, if the project's answers do not have it.
        ref: A version of the template; by default the newest.
        options: New answers, as NAME=VALUE.
        check: Only show whether there is a newer version.

    Raises:
        UsageError: The update cannot start.
        RefusedError: With `check`, there is a newer version; otherwise there are conflicts, or one
            of the project's checks fails.
    """
    answers = read_answers(project) if check else pre_update.check(project)
    address = normalize_url(url) if url else answers["_src_path"]
    if address == PACKAGED:
        raise UsageError(
            f"{project} was created from a package: name the template's address with --template URL"
        )
    template = resolve_version(address, ref)
    data = parse_answers(options, template)
    installed = answers["_commit"]
    newer = is_newer(template, installed)
    data_changes = any(answers.get(name) != value for name, value in data.items())
    if newer:
        echo(f"{installed} → {template.version}\n\n{changelog_since(template, installed)}\n")
    elif check or not data_changes:
        same = installed == template.version
        relation = "the newest" if same else f"and {template.version} is no newer"
        echo(f"Nothing to update: the project has {installed}, {relation}.")
    if check:
        if newer:
            raise RefusedError(
                f"{template.version} is available, and the project has {installed}: "
                "run `rung update`"
            )
        return
    head = git(project, "rev-parse", "HEAD")
    if answers["_src_path"] != address:
        answers = relocate_template(project, answers, address)
    if newer or data_changes:
        version = template if newer else installed_version(answers)
        merge_version(project, version, answers, data, head)
        finish(project)


def finish(project: Path) -> None:
    """Relock a project and run its checks, and those of a level that is new to it.

    Raises:
        RefusedError: A check failed, or there are conflicts.
    """
    from . import exports  # and with it pydantic and Jinja

    record = pre_update.require_pending(project)
    level = read_answers(project)["level"]
    post_update.check(project, record.rewritten)
    exports.refresh(project)
    if level > record.level:
        post_update.rehearse(project)
    state = f"is at level {level}" if level > record.level else f"has {record.version}"
    echo(f"\nThe project {state}, and its checks pass. {NEXT_STEPS}")


def installed_version(answers: Mapping[str, Any]) -> Template:
    """Return the version of the template that a project has."""
    return resolve_version(answers["_src_path"], answers["_commit"])


def merge_version(
    project: Path,
    template: Template,
    answers: dict[str, Any],
    data: Mapping[str, Any],
    head: str | None = None,
    shown: Collection[str] = (),
) -> None:
    """Have Copier merge a version of the template into a project.

    Args:
        project: The top of its repository.
        template: The version.
        answers: The project's answers.
        data: Answers that change.
        head: The commit to return to, if not the project's current one.
        shown: New answers that the person has seen already.

    Raises:
        UsageError: Copier refuses, or would lose lines of the team's; nothing was changed.
        RefusedError: There are conflicts, and the files show them.
    """
    from copier import run_update

    base = git(project, "rev-parse", "HEAD")
    pre_update.save_state(project, template, answers, head or base)
    try:
        with copier_errors():
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
        with TemporaryDirectory(prefix="rung-") as temporary:
            old_render = Path(temporary, "old")
            new_render = Path(temporary, "new")
            render_answers(installed_version(answers), old_render, answers)
            render_answers(template, new_render, read_answers(project))
            package = str(answers["package_name"])
            moved = moves.between(template, package, old_render, new_render)
            moves.carry(project, moved, old_render, base)
            new_places = {move.old: move.new for move in moved}
            lost = find_lost_lines(old_render, project, base, new_places)
            lost |= overwritten_lines(project, old_render)
            redelete(project, old_render, base)
            moves.prune(project, base, pre_update.record_folder(project) / PRUNED)
            rewritten = rewrite_imports(project, old_render, new_render, moved, base)
        if lost:
            raise UsageError(
                f"the update would lose lines of yours:{bullets(map(summarize, lost.items()))}\n"
                "Copy them elsewhere, remove them here and commit, then try again. "
                "Nothing was changed"
            )
        pinned = pins.resolve(project)
    except BaseException:
        restore(project)
        raise
    record = pre_update.require_pending(project)
    pre_update.write_record(project, replace(record, merged=True, rewritten=rewritten))
    report_moves(project, moved, rewritten)
    if pinned:
        echo(f"Pins were merged that conflicted; the newer ones stay:{bullets(pinned)}")
    for name, value in read_answers(project).items():
        if name not in answers and name not in shown:
            echo(f"New setting {name}: {value}. To change it: rung update --data {name}=VALUE")
    if conflicts := post_update.find_conflicts(project):
        raise RefusedError(
            f"your changes and the template's conflict in {len(conflicts)} "
            f"file(s):{bullets(conflicts)}\n"
            "Edit what stands between <<<<<<< and >>>>>>>, then `git add` the file.\n"
            "To finish: rung update --continue. To undo everything: rung update --abort"
        )


def summarize(lost: tuple[str, list[bytes]]) -> str:
    """Return the first of the lines that a file has lost, and how many more there are."""
    name, lines = lost
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return f"{name}: {lines[0].decode(errors='replace').strip()}{more}"


def render_answers(version: Template, destination: Path, answers: Mapping[str, Any]) -> None:
    """Render a version with those of a project's answers that it asks for."""
    questions = read_questions(version)
    render(version, destination, {name: answers[name] for name in answers if name in questions})


def rewrite_imports(
    project: Path, old_render: Path, new_render: Path, moved: list[moves.Move], head: str
) -> list[str]:
    """Make the team's own Python import moved modules from their new places.

    In a file that moved, the team's are the lines that the template does not have; what they import
    relatively is relative to the old place.

    Returns:
        The files that were changed.
    """
    if not moved:
        return []
    packages = {
        move.old: (old_render / move.old).read_text("utf-8")
        for move in moved
        if "__init__" in move.old
    }
    renames = imports.renames(moved, packages)
    machinery = {move.new for move in moved}
    changed = []
    for move in moved:
        path = project / move.new
        if not move.new.endswith(".py") or not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        template = (new_render / move.new).read_text("utf-8")
        new_text = imports.rewritten_lines(text, template, move.old, renames)
        if new_text != text:
            path.write_bytes(new_text.encode("utf-8", "surrogateescape"))
            changed.append(move.new)
    for name in split_nul(git(project, "ls-tree", "-r", "-z", "--name-only", head)):
        path = project / name
        if not name.endswith(".py") or name in machinery:
            continue
        if path.is_symlink() or not path.is_file():
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        new_text = imports.rewritten(text, name, renames)
        if new_text != text:
            path.write_bytes(new_text.encode("utf-8"))
            changed.append(name)
    return changed


def report_moves(project: Path, moved: list[moves.Move], rewritten: list[str]) -> None:
    """Print what moved, whose imports were rewritten, and which other files name the old places."""
    if not moved:
        return
    count = "1 file" if len(moved) == 1 else f"{len(moved)} files"
    echo(f"{count} moved, such as {moved[0].old} → {moved[0].new}.")
    if rewritten:
        echo(f"Imports of moved modules were rewritten in:{bullets(rewritten)}")
    if mentions := moves.mentions(project, moved):
        echo(f"These lines name a place that moved, and were not changed:{bullets(mentions)}")


def overwritten_lines(project: Path, old_render: Path) -> dict[str, list[bytes]]:
    """Return the lines of files that Git ignores, where the template has written its own."""
    lost = {}
    saved_files = pre_update.record_folder(project) / "ignored"
    for path in pre_update.require_pending(project).ignored:
        saved = read_content(saved_files / path)
        if saved not in (read_content(project / path), read_content(old_render / path)):
            lost[path] = saved.splitlines() or [b"(empty)"]
    return lost


def redelete(project: Path, old_render: Path, head: str) -> None:
    """Delete again what the team had deleted: Copier brings back the seeds of an earlier level."""
    tracked = set(split_nul(git(project, "ls-tree", "-r", "-z", "--name-only", head)))
    ignored = set(pre_update.require_pending(project).ignored)
    for path in list_files(old_render) - tracked - ignored:
        (project / path).unlink(missing_ok=True)


def abort(project: Path) -> None:
    """Restore the exact state before the update that is in progress.

    The current state is kept as the commit `ABORTED`, so that no work on conflicts is lost.

    Raises:
        UsageError: No update is in progress, or it was committed.
    """
    pre_update.require_pending(project)
    with TemporaryDirectory() as temporary:
        index = {"GIT_INDEX_FILE": str(Path(temporary, "index"))}
        git(project, "read-tree", "HEAD", env=index)
        git(project, "add", "--all", env=index)
        tree = git(project, "write-tree", env=index)
        identity = {
            f"GIT_{role}_{key}": "rung"
            for role in ("AUTHOR", "COMMITTER")
            for key in ("NAME", "EMAIL")
        }
        message = ("-m", "An aborted update")
        commit = git(project, "commit-tree", tree, "-p", "HEAD", *message, env=identity)
        git(project, "update-ref", ABORTED, commit)
    restore(project)
    echo(f"Everything is as it was before the update. What it had changed: git show {ABORTED}")


def restore(project: Path) -> None:
    """Restore the commit before the update, and the files that Git ignores."""
    record = pre_update.require_pending(project)
    folder = pre_update.record_folder(project)
    git(project, "reset", "--quiet", "--hard", record.head)
    # Everything was committed before, so what Git does not know came with the update.
    git(project, "clean", "--quiet", "-d", "--force")
    for path in record.new:
        if (project / path).is_file():  # Git ignores it: what it does not is gone by now
            (project / path).unlink()
    for path in record.ignored:
        (project / path).parent.mkdir(parents=True, exist_ok=True)
        (project / path).unlink(missing_ok=True)
        shutil.copy2(folder / "ignored" / path, project / path, follow_symlinks=False)
    if (folder / PRUNED).exists():
        shutil.copytree(folder / PRUNED, project, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(folder)


def relocate_template(project: Path, answers: dict[str, Any], url: str) -> dict[str, Any]:
    """Write another address of the template into a project's answers, as a commit of its own.

    Returns:
        The new answers.

    Raises:
        UsageError: It cannot be committed; the answers are as they were.
    """
    changes = {"_src_path": url, "_commit": resolve_version(url, answers["_commit"]).version}
    file = project / ANSWERS
    old_text = file.read_text("utf-8")
    lines = []
    for line in old_text.splitlines(keepends=True):
        key = line.partition(":")[0]
        lines.append(f"{key}: {json.dumps(changes[key])}\n" if key in changes else line)
    message = f"The template is at {url}"
    try:
        file.write_text("".join(lines), "utf-8")
        commit(project, message, "--", ANSWERS)
    except BaseException:
        file.write_text(old_text, "utf-8")
        raise
    return answers | changes
