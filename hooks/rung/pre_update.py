"""Before an update: can it start? And the state to return to, so that it can be aborted.

`python -m rung.pre_update FOLDER` checks whether a project can be updated, and changes nothing.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import shutil
import sys
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from .console import bullets, exit_code, shorten
from .exceptions import UsageError
from .git import git, git_succeeds, has_commit, merge_in_progress, missing_filters, split_nul
from .pre_gen import surrounding_problems
from .template import ANSWERS, Template, history, read_answers

RECORD_FOLDER = "rung"  # in the Git directory
LINK_MODE = "120000"  # of a symbolic link in a tree


@dataclass(frozen=True)
class UpdateRecord:
    """What is kept, in the Git directory, of an update that has begun."""

    head: str  # the commit to return to
    base: str  # the commit that the update started from
    version: str  # of the template
    level: int  # before the update
    ignored: list[str] = field(default_factory=list)  # ignored files that were saved
    new: list[str] = field(default_factory=list)  # paths where there was no file
    merged: bool = False  # Copier has finished
    rewritten: list[str] = field(default_factory=list)  # files whose imports were rewritten


# How update.json of any version names what differs from the fields above.
RECORD_KEYS = {"base": "at", "version": "to", "merged": "ended"}


def check(project: Path) -> dict[str, Any]:
    """Check that a project can be updated, and return its answers.

    Raises:
        UsageError: It is not a project, or not all of it is committed.
    """
    answers = read_answers(project)
    if not has_commit(project):
        raise UsageError(f"{project} has no commit yet: run `make setup`, or commit what is there")
    if Path(git(project, "rev-parse", "--show-toplevel")).resolve() != project.resolve():
        raise UsageError(
            f"{project} is inside another repository: only a repository of its own can be updated"
        )
    if problems := [*surrounding_problems(project), *missing_filters(project)]:
        raise UsageError(
            f"{project} cannot be updated yet:{bullets(problems)}\nNothing was changed"
        )
    if merge_in_progress(project):
        raise UsageError(f"{project} is in the middle of a merge or rebase: finish or abort it")
    status = ("status", "--porcelain", "--untracked-files=all", "--no-renames", "-z")
    if changes := split_nul(git(project, *status)):
        if pending_update(project):
            raise UsageError(
                f"an update of {project} is in progress: finish it with `rung update --continue`, "
                "or undo it with `rung update --abort`"
            )
        raise UsageError(
            f"{project} has uncommitted changes ({shorten(change[3:] for change in changes)}): "
            "commit or stash them, then try again"
        )
    with_ignored = split_nul(git(project, "status", "--porcelain", "--ignored", "-z"))
    if rejected := [entry[3:] for entry in with_ignored if entry.endswith(".rej")]:
        raise UsageError(
            f"{rejected[0]} looks like a rejected hunk of a merge: "
            "rename or remove it, then try again"
        )
    entries = split_nul(git(project, "ls-files", "-v", "-z"))
    hidden = [entry[2:] for entry in entries if entry[0] == "S" or entry[0].islower()]
    if names := ", ".join(name for name in hidden if (project / name).exists()):
        raise UsageError(
            f"Git is configured to ignore changes to {names}. "
            "Run: git update-index --no-skip-worktree --no-assume-unchanged FILE, then commit them"
        )
    return answers


def record_folder(project: Path) -> Path:
    """Return the folder, in the Git directory, that holds the state before an update."""
    return project / git(project, "rev-parse", "--git-path", RECORD_FOLDER)


def save_state(project: Path, template: Template, answers: dict[str, Any], head: str) -> None:
    """Save the state before an update: the commit, and ignored files that the template may write.

    Args:
        project: The project.
        template: The version that it is updated to.
        answers: Its answers before the update.
        head: The commit to return to.
    """
    folder = record_folder(project)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    tracked = set(split_nul(git(project, "ls-files", "-z")))
    untracked = sorted(possible_files(template, str(answers["package_name"])) - tracked)
    ignored = [path for path in untracked if (project / path).is_file()]
    for path in ignored:
        copy = folder / "ignored" / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(project / path, copy, follow_symlinks=False)
    record = UpdateRecord(
        head=head,
        base=git(project, "rev-parse", "HEAD"),
        version=template.version,
        level=answers["level"],
        ignored=ignored,
        new=[path for path in untracked if not os.path.lexists(project / path)],
    )
    write_record(project, record)


def write_record(project: Path, record: UpdateRecord) -> None:
    """Write the record of an update."""
    content = {RECORD_KEYS.get(name, name): value for name, value in asdict(record).items()}
    (record_folder(project) / "update.json").write_text(json.dumps(content), "utf-8")


def pending_update(project: Path) -> UpdateRecord | None:
    """Return the record of the update that is in progress, if there is one.

    An update is over once its commit or its changes are gone: a finished merge changes the answers.
    """
    file = record_folder(project) / "update.json"
    if not file.exists():
        return None
    content = json.loads(file.read_text("utf-8"))
    keys = {item.name: RECORD_KEYS.get(item.name, item.name) for item in fields(UpdateRecord)}
    record = UpdateRecord(**{name: content[key] for name, key in keys.items() if key in content})
    if git(project, "rev-parse", "HEAD") != record.base:
        return None
    answers_changed = not git_succeeds(project, "diff", "--quiet", "HEAD", "--", ANSWERS)
    return record if answers_changed or not record.merged else None


def require_pending(project: Path) -> UpdateRecord:
    """Return the record of the update that is in progress.

    Raises:
        UsageError: There is none.
    """
    record = pending_update(project)
    if record is None:
        raise UsageError(
            f"no update is in progress in {project}; to undo one that was committed, use git revert"
        )
    return record


def possible_files(template: Template, package: str) -> set[str]:
    """Return every path that the template may write, whatever the answers."""
    paths = set()
    for name in list_tree(history(template.url), str(template.commit), "template"):
        path = name.removeprefix("template/").removesuffix(".jinja")
        path = re.sub(r"\{%.*?%\}", "", path).replace("{{package_name}}", package)
        paths.add(str(PurePosixPath(path)))
    return paths


def list_tree(repository: Path, commit: str, folder: str) -> list[str]:
    """Return the files under a folder of a commit, with those that links to folders lead to."""
    paths = []
    for entry in split_nul(git(repository, "ls-tree", "-r", "-z", commit, f"{folder}/")):
        mode, _, rest = entry.partition(" ")
        name = rest.partition("\t")[2]
        if mode == LINK_MODE:
            link = git(repository, "cat-file", "blob", f"{commit}:{name}")
            target = posixpath.normpath(posixpath.join(posixpath.dirname(name), link))
            is_folder = git_succeeds(repository, "cat-file", "-e", f"{commit}:{target}/")
            if is_folder:
                linked = list_tree(repository, commit, target)
                paths += [name + path.removeprefix(target) for path in linked]
                continue
        paths.append(name)
    return paths


def main() -> None:
    """Check the project that the command line names."""
    check(Path(sys.argv[1]))


if __name__ == "__main__":
    sys.exit(exit_code(main))
