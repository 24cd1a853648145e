"""A render and a repository as one commit with two parents, made without touching the work tree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from ..git import NO_HOOKS, git, split_nul, write_blob

REGULAR_FILE = "100644"


def commit_orphan(repository: Path, render: Path, message: str) -> str:
    """Commit a rendered project without a parent, and return the commit."""
    with TemporaryDirectory(prefix="rung-") as temporary:
        env = {
            "GIT_DIR": git(repository, "rev-parse", "--absolute-git-dir"),
            "GIT_WORK_TREE": str(render),
            "GIT_INDEX_FILE": str(Path(temporary, "index")),
        }
        git(render, "add", "--all", "--force", ".", env=env)
        tree = git(render, "write-tree", env=env)
    return git(repository, "commit-tree", tree, "-m", message)


def create_merge(
    repository: Path,
    render: str,
    *,
    added: list[str],
    moved: Mapping[str, str],
    written: Mapping[str, bytes],
    message: str,
) -> str:
    """Commit the merge of a repository and a rendered project, and return the commit.

    Args:
        repository: Its HEAD is the first parent.
        render: The commit of the rendered project, the second parent.
        added: Files to take from the rendered project.
        moved: Files of the repository, and their new paths.
        written: Contents that neither parent has, by path.
        message: The commit message.
    """
    ours = tree_entries(repository, render)
    theirs = tree_entries(repository, "HEAD")
    changes = {name: ours[name] for name in added}
    no_entry = f"{'0' * 6} {'0' * len(render)}"  # removes a path from the index
    for name, new_name in moved.items():
        changes[new_name] = theirs[name]
        changes[name] = ours.get(name, no_entry)
    for name, content in written.items():
        mode, _, _ = theirs.get(name, ours.get(name, REGULAR_FILE)).partition(" ")
        changes[name] = f"{mode} {write_blob(repository, content)}"
    index_info = "".join(f"{entry}\t{name}\0" for name, entry in changes.items())
    with TemporaryDirectory(prefix="rung-") as temporary:
        env = {"GIT_INDEX_FILE": str(Path(temporary, "index"))}
        git(repository, "read-tree", "HEAD", env=env)
        stdin = index_info.encode("utf-8", "surrogateescape")
        git(repository, "update-index", "-z", "--index-info", stdin=stdin, env=env)
        tree = git(repository, "write-tree", env=env)
    parents = ("-p", "HEAD", "-p", render)
    return git(repository, "commit-tree", tree, *parents, "-F", "-", stdin=message.encode())


def tree_entries(repository: Path, commit: str) -> dict[str, str]:
    """Return the mode and the object name of each file of a commit."""
    entries = {}
    for line in split_nul(git(repository, "ls-tree", "-r", "-z", commit)):
        description, name = line.split("\t", 1)
        mode, _, blob = description.split()
        entries[name] = f"{mode} {blob}"
    return entries


def switch_to_new_branch(repository: Path, branch: str, commit: str) -> None:
    """Create a branch at a commit, and check it out; a file in the way stops it before it starts.

    Raises:
        UsageError: Git refused.
    """
    options = ("--quiet", "--no-overwrite-ignore")
    git(repository, *NO_HOOKS, "switch", *options, "-c", branch, commit)
